"""Outlines against pycocotools on random polygons, runs and masks, bit for bit."""

import numpy as np
import pytest

from rebus.data.outlines import mask_of, outline_of, runs_of, runs_of_mask, text_of_runs

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # inside pycocotools
]
official = pytest.importorskip("pycocotools.mask")

KINDS = ["inside", "across the border", "whole numbers", "tiny", "far outside", "star", "on the border"]


def polygon(rng: np.random.Generator, kind: str, height: int, width: int) -> list[float]:
    corners = int(rng.integers(3, 12))
    unit = rng.random((corners, 2))
    size = np.array([width, height], dtype=float)
    if kind == "inside":
        points = unit * size
    elif kind == "across the border":
        points = (unit * 2 - 0.5) * size
    elif kind == "whole numbers":
        points = np.round((unit * 1.5 - 0.25) * size)
    elif kind == "tiny":
        points = rng.random(2) * size + unit * 1.5
    elif kind == "far outside":
        points = (unit * 2 - 3) * size * rng.choice([-1, 1], 2)
    elif kind == "star":
        angles = np.sort(rng.random(corners)) * 2 * np.pi
        points = size / 2 + np.stack([np.cos(angles), np.sin(angles)], 1) * rng.random((corners, 1)) * size
    else:
        points = np.where(rng.random((corners, 2)) < 0.5, np.round(unit) * size, unit * size)
    return [round(float(value), 2) for value in points.reshape(-1)]


def official_mask(polygons: list[list[float]], height: int, width: int) -> np.ndarray:
    return official.decode(official.merge(official.frPyObjects(polygons, height, width))).astype(bool)


@pytest.mark.parametrize("kind", KINDS)
def test_polygons(kind: str) -> None:
    rng = np.random.default_rng(KINDS.index(kind))
    filled = 0
    for _ in range(120):
        height, width = (int(side) for side in rng.integers(1, 90, 2))
        polygons = [polygon(rng, kind, height, width) for _ in range(int(rng.integers(1, 4)))]
        ours = mask_of(polygons, height, width)
        filled += int(ours.sum())
        assert np.array_equal(ours, official_mask(polygons, height, width)), (polygons, height, width)
    assert filled > 0 or kind == "far outside"


def test_a_polygon_that_repeats_corners_and_runs_either_way() -> None:
    corners = [[3.0, 2.5], [3.0, 2.5], [20.4, 2.5], [20.4, 17.1], [3.0, 17.1]]
    for points in (corners, corners[::-1], corners + corners[:1]):
        flat = [value for point in points for value in point]
        assert np.array_equal(mask_of([flat], 20, 22), official_mask([flat], 20, 22))


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.98, 1.0])
def test_runs_both_ways(share: float) -> None:
    rng = np.random.default_rng(7)
    for _ in range(40):
        height, width = (int(side) for side in rng.integers(1, 60, 2))
        mask = rng.random((height, width)) < share
        theirs = official.encode(np.asfortranarray(mask.astype(np.uint8)))
        ours = outline_of(mask)
        assert ours == {"size": theirs["size"], "counts": theirs["counts"].decode()}
        assert np.array_equal(mask_of(theirs, height, width), mask)
        counts = runs_of_mask(mask).tolist()
        uncompressed = {"size": [height, width], "counts": counts}
        assert np.array_equal(mask_of(uncompressed, height, width), mask)
        assert official.frPyObjects(uncompressed, height, width)["counts"] == theirs["counts"]


def test_long_runs_have_the_same_text() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        runs = rng.integers(1, 2 ** int(rng.integers(1, 24)), int(rng.integers(1, 9)))
        width = int(runs.sum())
        theirs = official.frPyObjects({"size": [1, width], "counts": runs.tolist()}, 1, width)["counts"]
        assert text_of_runs(runs) == theirs.decode()
        assert runs_of(theirs).tolist() == runs.tolist()
