"""Mask R-CNN against the reference's steps, written out plainly, and torchvision's operators where they agree."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F
from torchvision.ops import MultiScaleRoIAlign, box_iou

from rebus.backbones.vision.fpn import FPN, STRIDES
from rebus.backbones.vision.mask_rcnn import MaskRCNN, MaskRCNNConfig, detector_backbone, image_spec
from rebus.backbones.vision.resnet import ResNet
from rebus.backbones.vision.roi_heads import region_maps
from rebus.backbones.vision.rpn import LevelOutput, propose
from rebus.core.capabilities import DescribesRegions
from rebus.nn.boxes import decode_boxes

TINY = MaskRCNNConfig(
    backbone=detector_backbone(variant="resnet18", depths=(1, 1, 1, 1), channels=(16, 24, 32, 48)),
    image_size=64,
    width=24,
    mlp_width=32,
    num_proposals=30,
)


def tiny(seed=0):
    torch.manual_seed(seed)
    network = MaskRCNN(TINY).eval()
    for buffer in network.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    return network


def some_boxes(number, side, least=0.5):
    corner = torch.rand(number, 2) * side
    return torch.cat([corner, corner + least + torch.rand(number, 2) * side], dim=1).clamp(max=side - 1)


@pytest.mark.parametrize(
    ("part", "number"),
    [("fpn", 3_937_024), ("rpn", 1_189_135), ("box_head", 16_262_144), ("mask_head", 2_625_537), ("deltas", 4_100)],
)
def test_parts_have_the_published_sizes(part, number):
    with torch.device("meta"):
        network = MaskRCNN(MaskRCNNConfig())
    assert sum(p.numel() for p in network.get_submodule(part).parameters()) == number


def test_the_reference_s_batch_norm_is_everywhere():
    with torch.device("meta"):
        norms = [m for m in MaskRCNN(MaskRCNNConfig()).modules() if "BatchNorm" in type(m).__name__]
    assert len(norms) == 53 + 5 + 10 + 6 + 5
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-4, 0.003)}


def test_pooling_pads_as_tensorflow():
    """On even sizes nothing to the left and on top; the convolutions of stride 2 stay symmetric."""
    torch.manual_seed(0)
    same, both = (ResNet(replace(TINY.backbone, padding=padding)) for padding in ("same", "both"))
    x = torch.rand(1, 1, 8, 8)
    found = same.net.maxpool(x)
    assert found.shape == (1, 1, 4, 4)
    for row in range(4):
        for column in range(4):
            window = x[0, 0, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3]
            assert found[0, 0, row, column] == window.max()
    odd = torch.rand(1, 1, 9, 7)
    assert torch.equal(same.net.maxpool(odd), both.net.maxpool(odd))
    assert both.net.layer2[0].conv1.padding == (1, 1)


def test_the_pyramid():
    torch.manual_seed(0)
    fpn = FPN((8, 12, 16, 20), 6).eval()
    for buffer in fpn.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    maps = [torch.randn(2, n, s, s + 2) for n, s in ((8, 32), (12, 16), (16, 8), (20, 4))]
    maps = [m[..., : m.shape[2]] for m in maps]
    lateral = [conv(m) for conv, m in zip(fpn.lateral, maps, strict=True)]
    for i in (2, 1, 0):
        lateral[i] = lateral[i] + lateral[i + 1].repeat_interleave(2, 2).repeat_interleave(2, 3)
    outputs = [conv(m) for conv, m in zip(fpn.output, lateral, strict=True)]
    outputs.append(F.conv2d(F.pad(outputs[-1], (0, 1, 0, 1)), fpn.coarsest.weight, fpn.coarsest.bias, stride=2))
    wanted = [norm(m) for norm, m in zip(fpn.norms, outputs, strict=True)]
    for one, other in zip(fpn(maps), wanted, strict=True):
        torch.testing.assert_close(one, other)
    assert any((m < 0).any() for m in fpn(maps)), "no ReLU after the last norms"


def test_images_of_any_size():
    for found in tiny().region_features(torch.randn(1, 3, 75, 101)):
        assert len(found.boxes) > 3


def bilinear(one, y, x):
    """The value of a map (C, H, W) at a place, whose neighbours stay within it."""
    height, width = one.shape[1:]
    top, left = math.floor(y), math.floor(x)
    wy, wx = y - top, x - left
    rows = [min(max(top, 0), height - 1), min(max(top + 1, 0), height - 1)]
    columns = [min(max(left, 0), width - 1), min(max(left + 1, 0), width - 1)]
    up = one[:, rows[0], columns[0]] * (1 - wx) + one[:, rows[0], columns[1]] * wx
    down = one[:, rows[1], columns[0]] * (1 - wx) + one[:, rows[1], columns[1]] * wx
    return up * (1 - wy) + down * wy


def test_roi_align_reads_each_part_at_its_centre():
    torch.manual_seed(0)
    side = 256
    maps = [torch.randn(2, 3, side // s, side // s) for s in STRIDES]
    boxes = [some_boxes(12, side), torch.cat([some_boxes(6, side, 60), torch.tensor([[3.0, 3, 4.5, 3.5]])])]
    found = iter(region_maps(maps, boxes, 7))
    for image, several in enumerate(boxes):
        for x1, y1, x2, y2 in several.tolist():
            area = (x2 - x1) * (y2 - y1)
            level = min(max(math.floor(math.log2(math.sqrt(area) / 224)) + 4, 2), 6)
            cells, one = next(found), maps[level - 2][image]
            for row in (0, 3, 6):
                for column in (0, 4, 6):
                    y = (y1 + (y2 - y1) * (row + 0.5) / 7) / 2**level
                    x = (x1 + (x2 - x1) * (column + 0.5) / 7) / 2**level
                    torch.testing.assert_close(cells[:, row, column], bilinear(one, y, x), atol=1e-4, rtol=0)
    assert next(found, None) is None


def test_roi_align_equals_torchvisions_for_boxes_of_a_cell_and_more():
    torch.manual_seed(1)
    maps = [torch.randn(1, 3, 512 // s, 512 // s) for s in STRIDES]
    boxes = some_boxes(60, 512, 5.0)
    boxes = boxes[((boxes[:, 2:] - boxes[:, :2]) >= 4).all(1)]
    theirs = MultiScaleRoIAlign(["0", "1", "2", "3", "4"], 7, sampling_ratio=1)
    wanted = theirs({str(i): m for i, m in enumerate(maps)}, [boxes], [(512, 512)])
    torch.testing.assert_close(region_maps(maps, [boxes], 7), wanted, atol=2e-4, rtol=0)


def greedy(boxes, scores, most):
    order, kept = scores.argsort(descending=True).tolist(), []
    for i in order:
        if not any(box_iou(boxes[i][None], boxes[j][None]) > most for j in kept):  # of empty boxes NaN
            kept.append(i)
    return kept


def test_proposals_are_chosen_level_by_level():
    torch.manual_seed(0)
    levels = []
    for number in (60, 12, 3):
        anchors = some_boxes(number, 90)
        levels.append(LevelOutput(torch.randn(2, number), torch.randn(2, number, 4) * 0.3, anchors))
    found = propose(levels, (80, 100), num_candidates=20, num_proposals=15, max_overlap=0.7)
    for image in range(2):
        wanted = []
        for level in levels:
            scores = level.logits[image].sigmoid()
            boxes = decode_boxes(level.deltas[image], level.anchors)
            boxes = torch.stack([boxes[:, 0::2].clamp(0, 99), boxes[:, 1::2].clamp(0, 79)], dim=2).flatten(1)
            best = scores.argsort(descending=True)[:20]
            for i in greedy(boxes[best], scores[best], 0.7):
                wanted.append((float(scores[best[i]]), boxes[best[i]].tolist()))
        wanted = sorted(wanted, reverse=True)[:15]
        assert found.scores[image].tolist() == pytest.approx([score for score, _ in wanted])
        torch.testing.assert_close(found.boxes[image], torch.tensor([box for _, box in wanted]))


def test_rpn_says_for_each_anchor_what_its_place_in_the_map_does():
    network = tiny()
    maps = network.features(torch.randn(2, 3, 64, 64))
    level, x = network.rpn_outputs(maps)[1], maps[1]
    for conv, norm in zip(network.rpn.convs, network.rpn.norms[1], strict=True):
        x = norm(conv(x)).relu()
    deltas, logits = network.rpn.deltas(x), network.rpn.logits(x)
    for anchor, (y, column, which) in {0: (0, 0, 0), 5: (0, 1, 2), 8 * 3 * 3 + 4: (3, 1, 1)}.items():
        assert torch.equal(level.deltas[:, anchor], deltas[:, 4 * which : 4 * which + 4, y, column])
        assert torch.equal(level.logits[:, anchor], logits[:, which, y, column])
        centre = (level.anchors[anchor, :2] + level.anchors[anchor, 2:]) / 2
        assert centre.tolist() == pytest.approx([8 * column + 4, 8 * y + 4])


def test_regions_for_other_models():
    network = tiny()
    assert isinstance(network, DescribesRegions)
    pixels = torch.randn(3, 3, 64, 64)
    together = network.region_features(pixels, num_regions=5)
    for image, found in zip(pixels, together, strict=True):
        (alone,) = network.region_features(image[None], num_regions=5)
        assert found.features.shape == (5, 32)
        assert box_iou(found.boxes, found.boxes).fill_diagonal_(0).max() <= 0.6
        for one, other in zip(found, alone, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_the_canvas():
    spec = image_spec(MaskRCNNConfig())
    assert (spec.size, spec.resize, spec.pad, spec.pad_colour) == ((1024, 1024), "longer", "end", None)
