"""A grid of features as regions: each cell is a place with a box.

Jiang et al., "In Defense of Grid Features for Visual Question Answering", 2020.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from rebus.core.errors import BadConfig
from rebus.core.outputs import RegionFeatures


def grid_regions(grid: Float[Tensor, "B D rows cols"], merge: int = 1) -> list[RegionFeatures]:
    """The cells of each image row by row, with their shares of the image as boxes; no cell is likelier than another.

    `merge`: `merge` × `merge` neighbouring cells are one region, whose features stand one after another: nothing is
    lost, and a network that reads the regions has that many fewer of them. Raises `BadConfig` where they do not divide.
    """
    rows, cols = grid.shape[-2:]
    if rows % merge or cols % merge:
        raise BadConfig(f"merge={merge} does not divide a grid of {rows} × {cols} cells")
    grid = functional.pixel_unshuffle(grid, merge) if merge > 1 else grid
    rows, cols = grid.shape[-2:]
    top = torch.arange(rows, device=grid.device, dtype=grid.dtype).repeat_interleave(cols) / rows
    left = torch.arange(cols, device=grid.device, dtype=grid.dtype).repeat(rows) / cols
    boxes = torch.stack([left, top, left + 1 / cols, top + 1 / rows], dim=-1)
    return [RegionFeatures(boxes, cells.flatten(1).mT, torch.ones_like(top)) for cells in grid]
