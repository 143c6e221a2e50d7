"""Polygons and runs → masks (H, W), equal to COCO's own tools; https://github.com/cocodataset/cocoapi.

Coordinates go from edge to edge: the pixel in the upper left is the square from 0 to 1. Runs go down the columns, from
the left, beginning with a run outside.
"""

from collections.abc import Sequence

import numpy as np

from rebus.core.errors import RebusError

_FINE = 5  # polygons are drawn this much larger, so that sides pass between the centres of pixels
MAX_STEPS = 50_000_000  # along the sides of one polygon, so drawn


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


def mask_of_runs(runs: np.ndarray, height: int, width: int) -> np.ndarray:
    """int64 lengths of runs → bool (H, W). Raises `RebusError` when they do not fill the image."""
    if (runs < 0).any() or runs.sum() != height * width:
        raise RebusError(f"runs of {int(runs.sum()):,} pixels in an image of {height * width:,}")
    inside = np.arange(len(runs)) % 2 == 1
    return np.repeat(inside, runs).reshape(width, height).T


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
