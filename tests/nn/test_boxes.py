"""Boxes by the conventions of the TensorFlow reference, each spelt out by numbers; torchvision where it agrees."""

import math

import pytest
import torch
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops.poolers import initLevelMapper

from rebus.nn.boxes import clip_boxes, decode_boxes, encode_boxes, grid_anchors, pyramid_level

WEIGHTS = (10.0, 10.0, 5.0, 5.0)


def some_boxes(number, side=1000.0, least=2.0):
    corner = torch.rand(number, 2) * side
    return torch.cat([corner, corner + least + torch.rand(number, 2) * side / 3], dim=1)


def test_coding_is_that_of_the_reference():
    torch.manual_seed(0)
    boxes, anchors = some_boxes(50), some_boxes(50)
    found = encode_boxes(boxes, anchors, WEIGHTS)
    for box, anchor, deltas in zip(boxes.tolist(), anchors.tolist(), found.tolist(), strict=True):
        (x1, y1, x2, y2), (ax1, ay1, ax2, ay2) = box, anchor
        h, w, ah, aw = y2 - y1 + 1, x2 - x1 + 1, ay2 - ay1 + 1, ax2 - ax1 + 1
        yc, xc, ayc, axc = y1 + h / 2, x1 + w / 2, ay1 + ah / 2, ax1 + aw / 2
        wanted = [10 * (yc - ayc) / ah, 10 * (xc - axc) / aw, 5 * math.log(h / ah), 5 * math.log(w / aw)]
        assert deltas == pytest.approx(wanted, abs=2e-3)
    torch.testing.assert_close(decode_boxes(found, anchors, WEIGHTS), boxes, atol=1e-3, rtol=0)


def test_decoding_equals_torchvisions_where_the_last_pixel_counts():
    torch.manual_seed(1)
    anchors, deltas = some_boxes(60), torch.randn(60, 4) * torch.tensor([5.0, 5.0, 8.0, 8.0])
    deltas[0, 2:] = 100  # beyond the limit
    last = torch.tensor([0.0, 0.0, 1.0, 1.0])
    theirs = BoxCoder(WEIGHTS).decode_single(deltas[:, [1, 0, 3, 2]], anchors + last) - last
    torch.testing.assert_close(decode_boxes(deltas, anchors, WEIGHTS), theirs, atol=1e-2, rtol=1e-5)


def test_anchors():
    found = grid_anchors(2, 3, 8, scale=8.0).view(2, 3, 3, 4)
    for row in range(2):
        for column in range(3):
            for anchor, ratio in zip(found[row, column].tolist(), (1.0, 2.0, 0.5), strict=True):
                y, x = 4 + 8 * row, 4 + 8 * column
                wide, high = 64 * math.sqrt(ratio), 64 / math.sqrt(ratio)
                assert anchor == pytest.approx([x - wide / 2, y - high / 2, x + wide / 2, y + high / 2], abs=1e-4)


def test_the_level_of_a_box():
    torch.manual_seed(2)
    boxes = torch.cat([some_boxes(300, 900), some_boxes(50, 5, 0.01), torch.zeros(1, 4)])
    found = pyramid_level(boxes, 2, 6)
    for box, level in zip(boxes.tolist(), found.tolist(), strict=True):
        side = math.sqrt((box[2] - box[0]) * (box[3] - box[1]))
        wanted = 2 if side == 0 else min(max(math.floor(math.log2(side / 224)) + 4, 2), 6)
        assert level == wanted
    assert {2, 3, 4} <= set(found.tolist())
    whole = torch.tensor([[0.0, 0, 223.9, 223.9], [0, 0, 224, 224], [0, 0, 448, 448], [0, 0, 900, 900]])
    assert pyramid_level(whole, 2, 6).tolist() == [3, 4, 5, 6]
    assert torch.equal(found, initLevelMapper(2, 6, 224, 4)([boxes]) + 2)


def test_boxes_are_clipped_to_the_last_pixel():
    boxes = torch.tensor([[-3.0, 5.0, 30.0, 99.0]])
    assert clip_boxes(boxes, (50, 20)).tolist() == [[0, 5, 19, 49]]
