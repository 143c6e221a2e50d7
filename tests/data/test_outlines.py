"""Outlines to masks and back; what is damaged says so. `tests/parity/test_outlines.py` compares with COCO's tools."""

from typing import Any

import numpy as np
import pytest

from rebus.core.errors import LimitExceeded, RebusError
from rebus.data.outlines import mask_of, outline_of, runs_of, runs_of_mask, text_of_runs


def test_a_square_and_its_runs() -> None:
    mask = mask_of([[1.0, 2.0, 4.0, 2.0, 4.0, 5.0, 1.0, 5.0]], 6, 5)
    expected = np.zeros((6, 5), dtype=bool)
    expected[2:5, 1:4] = True
    assert mask.dtype == np.bool_
    assert np.array_equal(mask, expected)
    assert runs_of_mask(mask).tolist() == [8, 3, 3, 3, 3, 3, 7]
    assert outline_of(mask) == {"size": [6, 5], "counts": "8330004"}
    assert np.array_equal(mask_of({"size": [6, 5], "counts": [8, 3, 3, 3, 3, 3, 7]}, 6, 5), expected)


def test_several_polygons_are_one_thing_and_none_is_empty() -> None:
    left, right = [0, 0, 2, 0, 2, 4, 0, 4], [6, 0, 8, 0, 8, 4, 6, 4]
    assert np.array_equal(mask_of([left, right], 4, 8), mask_of([left], 4, 8) | mask_of([right], 4, 8))
    assert not mask_of([], 4, 8).any()


@pytest.mark.parametrize("seed", range(5))
def test_there_and_back(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((int(rng.integers(1, 40)), int(rng.integers(1, 40)))) < rng.random()
    assert np.array_equal(mask_of(outline_of(mask), *mask.shape), mask)
    runs = rng.integers(0, 10**9, 20)
    assert runs_of(text_of_runs(runs)).tolist() == runs.tolist()


@pytest.mark.parametrize(
    ("outline", "message"),
    [
        ("polygons", "polygons or runs; got str"),
        (5, "polygons or runs; got int"),
        ([[1, 2, 3, 4, 5, 6, 7]], "three corners or more; got 7 numbers"),
        ([[1, 2, 3, 4, 5, float("nan")]], "three corners"),
        ([[1, 2, 3, 4, 5, 1e9]], "three corners"),
        ([["a", 2, 3, 4, 5, 6]], "list of numbers"),
        ([5], "three corners"),
        ({"size": [4, 6], "counts": [48]}, r"an outline of size \[4, 6\] in an image of \[6, 8\]"),
        ({"counts": [48]}, "size None"),
        ({"size": [6, 8], "counts": [40]}, "runs of 40 pixels in an image of 48"),
        ({"size": [6, 8], "counts": [50, -2]}, "text or a list of whole numbers"),
        ({"size": [6, 8], "counts": [1.5]}, "text or a list of whole numbers"),
        ({"size": [6, 8], "counts": None}, "text or a list of whole numbers"),
        ({"size": [6, 8], "counts": "0 0"}, "damaged run-length encoding"),
        ({"size": [6, 8], "counts": "oooooooooooooooo"}, "damaged run-length encoding"),
        ({"size": [6, 8], "counts": "ä"}, "runs"),
        ({"size": [6, 8], "counts": "0o"}, "truncated"),
        ({"size": 5, "counts": "0"}, "size 5"),
    ],
)
def test_damaged_outlines(outline: Any, message: str) -> None:
    with pytest.raises(RebusError, match=message):
        mask_of(outline, 6, 8)


def test_a_polygon_of_four_numbers_drops_that_polygon_alone() -> None:
    square = [1, 1, 4, 1, 4, 4, 1, 4]
    assert np.array_equal(mask_of([[1, 2, 3, 4], square, []], 6, 8), mask_of([square], 6, 8))
    assert not mask_of([[1, 2, 3, 4]], 6, 8).any()


def test_sizes_have_limits() -> None:
    with pytest.raises(LimitExceeded, match="MAX_PIXELS"):
        mask_of({"size": [10**6, 10**6], "counts": [10**12]}, 10**6, 10**6)
    with pytest.raises(RebusError, match="pixels long"):
        mask_of([[0, 0, 999_999, 0, 0, 999_999] * 20], 6, 8)
