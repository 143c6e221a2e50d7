"""A grid of features as regions: each cell is a place with a box.

Jiang et al., "In Defense of Grid Features for Visual Question Answering", 2020.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from rebus.core.outputs import RegionFeatures


def grid_regions(grid: Float[Tensor, "B D rows cols"]) -> RegionFeatures:
    """The cells row by row, each with its share of the image as its box."""
    rows, cols = grid.shape[-2:]
    top = torch.arange(rows, device=grid.device, dtype=grid.dtype).repeat_interleave(cols) / rows
    left = torch.arange(cols, device=grid.device, dtype=grid.dtype).repeat(rows) / cols
    boxes = torch.stack([left, top, left + 1 / cols, top + 1 / rows], dim=-1).expand(len(grid), -1, -1)
    return RegionFeatures(grid.flatten(2).mT, boxes, torch.ones_like(boxes[..., 0], dtype=torch.bool))
