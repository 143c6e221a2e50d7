import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.detection.roi_heads import paste_masks_in_image

from rebus.codec.boxes import LOC_1024
from rebus.codec.masks import crop_mask, mask_box, parse_segments, paste_mask, paste_region_mask


def ellipse(width: int, height: int, box: tuple[float, float, float, float]) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width] + 0.5
    left, top, right, bottom = box
    inside = ((x - (left + right) / 2) / (right - left)) ** 2 + ((y - (top + bottom) / 2) / (bottom - top)) ** 2
    return inside <= 0.25


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


@settings(max_examples=60, deadline=None)
@given(st.integers(60, 300), st.integers(60, 300), st.integers(0, 30), st.integers(0, 30), st.data())
def test_cut_out_and_pasted_back_a_mask_is_itself(width, height, left, top, data):
    right = data.draw(st.integers(left + 20, width))
    bottom = data.draw(st.integers(top + 20, height))
    mask = ellipse(width, height, (left, top, right, bottom))
    box = mask_box(mask)
    small = crop_mask(mask, box)
    assert small.shape == (64, 64)
    assert small.dtype == np.float32
    assert small.min() >= 0
    assert small.max() <= 1
    assert iou(paste_mask(2 * (small - 0.5), box, (width, height)), mask) > 0.93


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 127), min_size=16, max_size=16), st.sampled_from(["cat", "the red car", "3 dogs"]))
def test_codes_survive_the_text(codes, label):
    found, rejected = parse_segments(LOC_1024, LOC_1024.segmentation_text((10, 20, 60, 90), codes, label, (100, 100)))
    assert not rejected
    assert found[0].codes == tuple(codes)
    assert found[0].label == label
    assert found[0].xyxy == pytest.approx((0.1, 0.2, 0.6, 0.9), abs=0.5 / 1023)


def test_rejects():
    box = "<loc0100><loc0200><loc0300><loc0400>"
    whole = "<seg001>" * 16
    found, rejected = parse_segments(LOC_1024, f"{box}{whole} ; {box} cat ; {box}{whole[8:]} cat ; {whole} cat")
    assert [f.label for f in found] == [""]
    assert sorted(r.reason for r in rejected) == [
        "15 mask tokens instead of 16",
        "mask tokens without a box",
        "no mask tokens",
    ]


def test_wrong_codes_are_refused():
    for codes in ([0] * 15, [0] * 15 + [128], [0] * 15 + [-1]):
        with pytest.raises(ValueError, match="16 codes from 0 to 127"):
            LOC_1024.masks.text(codes)


def test_boxes_are_cut_to_whole_pixels_and_keep_one():
    full = np.ones((64, 64), np.float32)
    assert np.argwhere(paste_mask(full, (1.9, 2.9, 4.9, 5.1), (10, 8))).tolist() == [
        [y, x] for y in (2, 3, 4) for x in (1, 2, 3)
    ]
    assert paste_mask(full, (9.99, 7.99, 10, 8), (10, 8)).sum() == 1
    assert paste_mask(full, (-5, -5, 50, 50), (10, 8)).all()
    assert not paste_mask(-full, (0, 0, 10, 8), (10, 8)).any()
    assert crop_mask(np.ones((8, 10), np.bool_), (3.2, 3.2, 3.3, 3.3)).min() == 1


def test_box_of_a_mask():
    mask = np.zeros((8, 10), np.bool_)
    assert mask_box(mask) is None
    mask[2:4, 5:9] = True
    assert mask_box(mask) == (5, 2, 9, 4)


def linear(values, y, x):
    """Between the cells of a grid, and at its border the nearest one."""
    rows, columns = values.shape
    y, x = min(max(y, 0), rows - 1), min(max(x, 0), columns - 1)
    top, left = min(int(y), rows - 2), min(int(x), columns - 2)
    wy, wx = y - top, x - left
    up = values[top, left] * (1 - wx) + values[top, left + 1] * wx
    down = values[top + 1, left] * (1 - wx) + values[top + 1, left + 1] * wx
    return up * (1 - wy) + down * wy


@pytest.mark.parametrize("box", [(20.3, 10.6, 61.2, 30.9), (-8.4, -3.2, 12.5, 9.1), (70, 20, 95.5, 60), (5, 5, 5.2, 5)])
def test_a_region_s_mask_is_pasted_as_in_the_reference(box):
    small = np.random.default_rng(0).random((28, 28), dtype=np.float32)
    found = paste_region_mask(small, box, (80, 40))
    padded = np.zeros((30, 30))
    padded[1:-1, 1:-1] = small
    x, y, w, h = box[0], box[1], box[2] - box[0], box[3] - box[1]
    half_w, half_h = w / 2 * 30 / 28, h / 2 * 30 / 28
    left, top = int(x + w / 2 - half_w), int(y + h / 2 - half_h)
    wide, high = int(x + w / 2 + half_w) - left + 1, int(y + h / 2 + half_h) - top + 1
    wanted = np.zeros((40, 80), dtype=bool)
    for row in range(high):
        for column in range(wide):
            if 0 <= top + row < 40 and 0 <= left + column < 80:
                value = linear(padded, (row + 0.5) * 30 / high - 0.5, (column + 0.5) * 30 / wide - 0.5)
                wanted[top + row, left + column] = value > 0.5
    assert found.shape == wanted.shape
    assert (found != wanted).mean() <= 0.001  # a value at a half within rounding
    assert found.any() or box[2] - box[0] < 1


def test_a_region_s_mask_is_pasted_as_torchvision_does():
    random = np.random.default_rng(1)
    for _ in range(20):
        small = random.random((28, 28), dtype=np.float32)
        corner, size = random.uniform(0, 60, 2), random.uniform(3, 70, 2)
        box = tuple(float(v) for v in (*corner, *(corner + size)))
        (theirs,) = paste_masks_in_image(torch.from_numpy(small)[None, None], torch.tensor([box]), (90, 100))
        assert np.array_equal(paste_region_mask(small, box, (100, 90)), theirs[0].numpy() > 0.5)
