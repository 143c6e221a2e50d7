"""Regions of interest: features of a box, cut out of a pyramid at one size, and the heads that read them.

He et al., "Mask R-CNN", 2017. As in the TensorFlow reference of ViLD: four convolutions and two linear layers with
BatchNorm, one box and one mask whatever the class.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.ops import roi_align

from rebus.backbones.vision.fpn import FIRST, LAST, STRIDES, batch_norm1d, batch_norm2d
from rebus.nn.boxes import pyramid_level
from rebus.nn.only_shapes import only_shapes

BOX_SIDE, MASK_SIDE = 7, 14  # cells of a side of what the heads read
NUM_CONVS = 4


def region_maps(
    maps: list[Float[Tensor, "B C _ _"]], boxes: Sequence[Float[Tensor, "_ 4"]], side: int
) -> Float[Tensor, "R C S S"]:
    """The features of boxes, in pixels of the network's image, of all images one after another (RoIAlign).

    A box is cut into `side` × `side` parts, each read bilinearly at its centre from the map of the box's level.
    """
    rows = [torch.cat([b.new_full((len(b), 1), i), b], dim=1) for i, b in enumerate(boxes)]
    # Half precision cannot state a place among a thousand pixels; what is not a number is no place in memory.
    rois = torch.cat(rows).float().nan_to_num(0.0)
    # Without its half cell "aligned" is the older convention, but boxes of less than a cell are not widened to one.
    halves = rois.new_tensor([[0.0, 0.5, 0.5, 0.5, 0.5]])

    def read(one: Tensor, rois: Tensor, stride: int) -> Tensor:
        rois = rois + halves * stride
        return roi_align(one.float(), rois, side, 1 / stride, sampling_ratio=1, aligned=True).to(one.dtype)

    if only_shapes(rois):  # which level each box is on depends on values; the work does not
        return read(maps[0], rois, STRIDES[0])
    levels = pyramid_level(rois[:, 1:], FIRST, LAST)
    parts, places = [], []
    for level, (one, stride) in enumerate(zip(maps, STRIDES, strict=True), FIRST):
        at = (levels == level).nonzero().squeeze(1)
        parts.append(read(one, rois[at], stride))
        places.append(at)
    return torch.cat(parts)[torch.cat(places).argsort()]


class BoxHead(nn.Module):
    """Features of a box (7 × 7) → a vector."""

    def __init__(self, width: int, mlp_width: int):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(NUM_CONVS))
        self.conv_norms = nn.ModuleList(batch_norm2d(width) for _ in range(NUM_CONVS))
        widths = (width * BOX_SIDE**2, mlp_width, mlp_width)
        self.linears = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.linear_norms = nn.ModuleList(batch_norm1d(mlp_width) for _ in range(2))
        init_heads(self)

    def forward(self, x: Float[Tensor, "R C 7 7"]) -> Float[Tensor, "R F"]:
        for conv, norm in zip(self.convs, self.conv_norms, strict=True):
            x = norm(conv(x)).relu()
        x = x.flatten(1)
        for linear, norm in zip(self.linears, self.linear_norms, strict=True):
            x = norm(linear(x)).relu()
        return x


class MaskHead(nn.Module):
    """Features of a box (14 × 14) → logits of its pixels (28 × 28)."""

    def __init__(self, width: int):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(NUM_CONVS))
        self.up = nn.ConvTranspose2d(width, width, 2, stride=2)
        self.norms = nn.ModuleList(batch_norm2d(width) for _ in range(NUM_CONVS + 1))
        self.logits = nn.Conv2d(width, 1, 1)
        init_heads(self)

    def forward(self, x: Float[Tensor, "R C 14 14"]) -> Float[Tensor, "R 28 28"]:
        for layer, norm in zip([*self.convs, self.up], self.norms, strict=True):
            x = norm(layer(x)).relu()
        return self.logits(x).squeeze(1)


def init_heads(module: nn.Module) -> None:
    """Normal initial values of variance 2 / fan out, zeros for biases: those of the reference's heads."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
