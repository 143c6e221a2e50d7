"""Which anchors and regions a detector learns from, and which object each of them is to find.

Ren et al., "Faster R-CNN", 2015, Sec. 3.1.3; the numbers are those of ViLD's TensorFlow reference.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torchvision.ops import box_iou

from rebus.nn.only_shapes import only_shapes

# IoU with an object above which an anchor has one, below which it has none; from which a region has one
ANCHOR_HIGH, ANCHOR_LOW, REGION_HIGH = 0.7, 0.3, 0.5
ANCHOR_SHARE, REGION_SHARE = 0.5, 0.25  # of what is sampled, with an object, at most


class Matches(NamedTuple):
    """Of N boxes: `objects` the number of the object that overlaps each most (0 where there is none), `positive` those
    that have it, `negative` those without any; a box may be neither."""

    objects: Int[Tensor, "N"]
    positive: Bool[Tensor, "N"]
    negative: Bool[Tensor, "N"]


def match_anchors(anchors: Float[Tensor, "N 4"], objects: Float[Tensor, "M 4"]) -> Matches:
    """An anchor has an object from an IoU of 0.7 on, none below 0.3. Each object has the anchors that overlap it most,
    however little that is."""
    overlaps = box_iou(anchors, objects)
    if not objects.numel():
        return _without_objects(anchors)
    most, which = overlaps.max(dim=1)
    of_objects = overlaps.amax(dim=0)
    best = (overlaps == of_objects) & (of_objects > 0)
    forced = best.any(dim=1)
    which = torch.where(forced, best.to(torch.uint8).argmax(dim=1), which)
    return Matches(which, (most >= ANCHOR_HIGH) | forced, (most < ANCHOR_LOW) & ~forced)


def match_regions(regions: Float[Tensor, "N 4"], objects: Float[Tensor, "M 4"]) -> Matches:
    """A region has the object that it overlaps most, from an IoU of 0.5 on, or else none."""
    if not objects.numel():
        return _without_objects(regions)
    most, which = box_iou(regions, objects).max(dim=1)
    return Matches(which, most >= REGION_HIGH, most < REGION_HIGH)


def _without_objects(boxes: Tensor) -> Matches:
    none = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    return Matches(torch.zeros_like(none, dtype=torch.int64), none, ~none)


def sample(matches: Matches, number: int, share: float, generator: torch.Generator) -> Int[Tensor, "K"]:
    """At most `number` random boxes, of which at most the fraction `share` have an object; positive ones first.

    The draw depends on the generator and the matches alone, whatever the device.
    """
    if only_shapes(matches.positive):  # how many have an object depends on values
        return torch.zeros_like(matches.objects[:number])
    order = torch.rand(len(matches.positive), generator=generator).argsort().to(matches.positive.device)
    positive, negative = order[matches.positive[order]], order[matches.negative[order]]
    positive = positive[: int(number * share)]
    return torch.cat([positive, negative[: number - len(positive)]])
