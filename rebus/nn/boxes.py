"""Boxes of detectors as tensors: anchors, coding relative to them, the level of a pyramid that a box is read from.

Boxes are (left, top, right, bottom) in pixels of the image that the network reads. Deltas are (dy, dx, dh, dw), the
order in which the released detectors of TensorFlow have them, whose conventions these are: a box from pixel 3 to
pixel 7 is 7 − 3 + 1 wide where it is coded, and 7 − 3 where its area is measured.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

MAX_LOG_SCALE = math.log(1000 / 16)  # a box is at most so many times its anchor: no overflow early in training
BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)  # of a box head's deltas (dy, dx, dh, dw); proposals have none
_CANONICAL = 224  # pixels: √area of a box that is read from the level 4, as ImageNet's images were (Lin et al., 2017)
_CANONICAL_LEVEL = 4


def grid_anchors(
    height: int,
    width: int,
    stride: int,
    *,
    scale: float,
    ratios: Sequence[float] = (1.0, 2.0, 0.5),
    device: torch.device | None = None,
) -> Float[Tensor, "A 4"]:
    """Anchors of one level of `height` × `width` cells: row by row, the `ratios` (width / height) of a cell together.

    Each is centred on its cell and has the area of a square of `scale` strides.
    """
    side = scale * stride / 2
    halves = torch.tensor([(side * r**0.5, side * r**-0.5) for r in ratios], device=device)  # (x, y)
    x, y = ((torch.arange(n, device=device) + 0.5) * stride for n in (width, height))
    centres = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).view(-1, 1, 2)
    return torch.cat([centres - halves, centres + halves], dim=-1).view(-1, 4)


def encode_boxes(
    boxes: Float[Tensor, "*N 4"],
    anchors: Float[Tensor, "*N 4"],
    weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0),
) -> Float[Tensor, "*N 4"]:
    """Deltas that turn anchors into boxes, each multiplied by its weight."""
    (centre, size), (origin, unit) = _centres(boxes), _centres(anchors)
    deltas = torch.cat([((centre - origin) / unit).flip(-1), (size / unit).log().flip(-1)], dim=-1)
    return deltas * deltas.new_tensor(weights)


def decode_boxes(
    deltas: Float[Tensor, "*N 4"],
    anchors: Float[Tensor, "*N 4"],
    weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0),
) -> Float[Tensor, "*N 4"]:
    """The boxes that deltas make of anchors, in float32."""
    deltas = deltas.float() / deltas.new_tensor(weights, dtype=torch.float32)
    origin, unit = _centres(anchors.float())
    centre = deltas[..., :2].flip(-1) * unit + origin
    size = deltas[..., 2:].clamp(max=MAX_LOG_SCALE).exp().flip(-1) * unit
    first = centre - size / 2
    return torch.cat([first, first + size - 1], dim=-1)


def _centres(boxes: Float[Tensor, "*N 4"]) -> tuple[Float[Tensor, "*N 2"], Float[Tensor, "*N 2"]]:
    """(x, y) of the centres and sizes, which count the last pixel."""
    size = boxes[..., 2:] - boxes[..., :2] + 1
    return boxes[..., :2] + size / 2, size


def clip_boxes(boxes: Float[Tensor, "*N 4"], size: tuple[int, int]) -> Float[Tensor, "*N 4"]:
    """Boxes within an image of `size` (height, width), whose last pixel is at size − 1."""
    height, width = size
    return boxes.clamp(min=0).minimum(boxes.new_tensor([width - 1, height - 1, width - 1, height - 1]))


def pyramid_level(boxes: Float[Tensor, "*N 4"], first: int, last: int) -> Int[Tensor, "*N"]:
    """The level from which a box is read: 4 for an area of 224², one more for each doubling of its side, within
    `first` … `last`. Lin et al., "Feature Pyramid Networks", 2017, equation 1."""
    sides = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1).sqrt()
    level = (torch.log2(sides.float() / _CANONICAL)).floor() + _CANONICAL_LEVEL
    return level.clamp(first, last).long()
