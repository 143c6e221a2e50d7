"""Outlines of things: polygons and run-length codes of COCO ⇄ masks (H, W), equal to COCO's own tools.

Runs go down the columns, from the left, beginning with a run outside; https://github.com/cocodataset/cocoapi.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rebus.core.errors import RebusError
from rebus.core.limits import check

_FINE = 5  # polygons are drawn this much larger, so that sides pass between the centres of pixels
MAX_STEPS = 50_000_000  # along the sides of one polygon, so drawn


def mask_of(outline: Any, height: int, width: int) -> np.ndarray:
    """Polygons [[x, y, x, y, …], …], or runs {"counts": …, "size": [H, W]} → bool (H, W).

    Polygons of less than three corners enclose nothing. Raises `RebusError` for what is neither, or does not fit the
    size.
    """
    check("MAX_PIXELS", height * width, f"an outline in an image of {width} x {height}")
    if isinstance(outline, Mapping):
        if outline.get("size") not in ([height, width], (height, width)):
            raise RebusError(f"an outline of size {outline.get('size')} in an image of [{height}, {width}]")
        return mask_of_runs(runs_of(outline.get("counts")), height, width)
    if not isinstance(outline, Sequence) or isinstance(outline, str | bytes):
        raise RebusError(f"an outline should be polygons or runs; got {type(outline).__name__}")
    mask = np.zeros((height, width), dtype=bool)
    for polygon in outline:
        if _is_line(polygon):
            continue
        mask |= mask_of_polygon(polygon, height, width)
    return mask


def has_area(outline: Any) -> bool:
    """Whether an outline is there and more than points and lines, which tools leave: a thing with these alone has no
    mask, not an empty one."""
    if isinstance(outline, Sequence) and not isinstance(outline, str | bytes):
        return not all(map(_is_line, outline))
    return outline is not None


def _is_line(polygon: Any) -> bool:
    """Of less than three corners."""
    return isinstance(polygon, Sequence) and len(polygon) < 6


def outline_of(mask: np.ndarray) -> dict[str, Any]:
    """bool (H, W) → {"size": [H, W], "counts": the compressed text}."""
    return {"size": list(mask.shape), "counts": text_of_runs(runs_of_mask(mask))}


def mask_of_runs(runs: np.ndarray, height: int, width: int) -> np.ndarray:
    """int64 lengths of runs → bool (H, W). Raises `RebusError` when they do not fill the image."""
    if (runs < 0).any() or runs.sum() != height * width:
        raise RebusError(f"runs of {int(runs.sum()):,} pixels in an image of {height * width:,}")
    inside = np.arange(len(runs)) % 2 == 1
    return np.repeat(inside, runs).reshape(width, height).T


def runs_of_mask(mask: np.ndarray) -> np.ndarray:
    """bool (H, W) → int64 lengths of runs, the first outside."""
    flat = np.asarray(mask, dtype=bool).T.reshape(-1)
    turns = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    edges = np.concatenate([[0], turns, [len(flat)]]) if len(flat) else np.array([0, 0])
    runs = np.diff(edges)
    return np.concatenate([[0], runs]) if len(flat) and flat[0] else runs


def runs_of(counts: Any) -> np.ndarray:
    """The compressed text, or a list of lengths → int64 lengths. Raises `RebusError` when it is damaged."""
    if isinstance(counts, bytes | str):
        return _runs_of_text(counts if isinstance(counts, bytes) else counts.encode("ascii", "replace"))
    if isinstance(counts, Sequence) and all(isinstance(run, int) and 0 <= run < 1 << 40 for run in counts):
        return np.array(counts, dtype=np.int64)
    raise RebusError("counts of an outline should be a text or a list of whole numbers")


def text_of_runs(runs: np.ndarray) -> str:
    """Each run, from the fourth on less the one before the last, in letters of five bits, the lowest first."""
    letters = bytearray()
    values = [int(run) for run in runs]
    for at, value in enumerate(values):
        rest = value - values[at - 2] if at > 2 else value
        more = True
        while more:
            bits, rest = rest & 31, rest >> 5
            more = rest != (-1 if bits & 16 else 0)
            letters.append(48 + bits + (32 if more else 0))
    return letters.decode("ascii")


def _runs_of_text(text: bytes) -> np.ndarray:
    runs: list[int] = []
    value = shift = 0
    for letter in text:
        bits = letter - 48
        if not 0 <= bits < 64 or shift > 40:
            raise RebusError("damaged text of runs")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    if shift:
        raise RebusError("the text of runs is cut off")
    return np.array(runs, dtype=np.int64)


def mask_of_polygon(polygon: Sequence[float], height: int, width: int) -> np.ndarray:
    """[x, y, x, y, …] in pixels → bool (H, W). Raises `RebusError` for less than three corners or no numbers."""
    try:
        corners = np.asarray(polygon, dtype=np.float64)
    except (TypeError, ValueError):
        raise RebusError("a polygon should be a list of numbers") from None
    if corners.ndim != 1 or len(corners) < 6 or len(corners) % 2 or not (np.abs(corners) < 1e6).all():
        raise RebusError(f"a polygon should be x, y of three corners or more; got {corners.size} numbers")
    x, y = _border(corners.reshape(-1, 2))
    return mask_of_runs(_runs_of_border(x, y, height, width), height, width)


def _border(corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The points (x, y) on all sides in the enlarged image, one for each step along a side's longer direction."""
    points = np.trunc(_FINE * corners + 0.5).astype(np.int64)
    ends = np.roll(points, -1, axis=0)
    spans = np.abs(ends - points)
    steps = spans.max(axis=1)
    if steps.sum() > MAX_STEPS:
        raise RebusError(f"a polygon {int(steps.sum()) // _FINE:,} pixels long")
    xs, ys = [], []
    for (x0, y0), (x1, y1), (dx, dy) in zip(points.tolist(), ends.tolist(), spans.tolist()):
        flat = dx >= dy
        turned = x0 > x1 if flat else y0 > y1  # always drawn the same way, whichever way the side runs
        if turned:
            x0, y0, x1, y1 = x1, y1, x0, y0
        along = np.arange((dx if flat else dy) + 1)[:: -1 if turned else 1]
        slope = ((y1 - y0) if flat else (x1 - x0)) / max(dx if flat else dy, 1)
        across = np.trunc((y0 if flat else x0) + slope * along + 0.5).astype(np.int64)
        xs.append(along + x0 if flat else across)
        ys.append(across if flat else along + y0)
    return np.concatenate(xs), np.concatenate(ys)


def _runs_of_border(x: np.ndarray, y: np.ndarray, height: int, width: int) -> np.ndarray:
    """Where the border crosses the middle of a column of pixels, a run ends."""
    moved = np.flatnonzero(x[1:] != x[:-1]) + 1
    before, after = x[moved - 1], x[moved]
    column = (np.where(after < before, after, after - 1) + 0.5) / _FINE - 0.5
    row = (np.minimum(y[moved], y[moved - 1]) + 0.5) / _FINE - 0.5
    kept = (np.floor(column) == column) & (column >= 0) & (column <= width - 1)
    rows = np.ceil(np.clip(row[kept], 0, height)).astype(np.int64)
    places = np.sort(column[kept].astype(np.int64) * height + rows)
    runs = np.diff(np.concatenate([[0], places, [height * width]]))
    return _joined(runs)


def _joined(runs: np.ndarray) -> np.ndarray:
    """Runs of no length vanish, and those beside them become one."""
    found = [int(runs[0])]
    at = 1
    while at < len(runs):
        if runs[at] > 0:
            found.append(int(runs[at]))
        elif at + 1 < len(runs):
            at += 1
            found[-1] += int(runs[at])
        at += 1
    return np.array(found, dtype=np.int64)
