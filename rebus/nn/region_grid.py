"""A grid of features as regions: each cell is a place with a box.

Jiang et al., "In Defense of Grid Features for Visual Question Answering", 2020.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from rebus.core.outputs import RegionFeatures


def grid_regions(grid: Float[Tensor, "B D rows cols"], merge: int = 1) -> RegionFeatures:
    """The cells row by row, each with its share of the image as its box.

    `merge`: `merge` × `merge` neighbouring cells are one region, whose features stand one after another:
    nothing is lost, and a network that reads the regions has that many fewer of them.
    """
    grid = functional.pixel_unshuffle(grid, merge) if merge > 1 else grid
    rows, cols = grid.shape[-2:]
    top = torch.arange(rows, device=grid.device, dtype=grid.dtype).repeat_interleave(cols) / rows
    left = torch.arange(cols, device=grid.device, dtype=grid.dtype).repeat(rows) / cols
    boxes = torch.stack([left, top, left + 1 / cols, top + 1 / rows], dim=-1).expand(len(grid), -1, -1)
    return RegionFeatures(grid.flatten(2).mT, boxes, torch.ones_like(boxes[..., 0], dtype=torch.bool))
