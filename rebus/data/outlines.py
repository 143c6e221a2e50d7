"""Outlines of things: polygons and run-length codes of COCO ⇄ masks (H, W), equal to COCO's own tools.

Runs go down the columns, from the left, beginning with a run outside; https://github.com/cocodataset/cocoapi.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rebus.codec.polygon_masks import mask_of_polygon, mask_of_runs
from rebus.core.errors import RebusError
from rebus.core.limits import check


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
            raise RebusError("damaged run-length encoding")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    if shift:
        raise RebusError("the run-length encoding is truncated")
    return np.array(runs, dtype=np.int64)
