"""Learned position tables over a grid of patches, and how they are resized to another grid."""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def resize_grid(
    table: Float[Tensor, "P D"],
    old: tuple[int, int],
    new: tuple[int, int],
    *,
    mode: str = "bicubic",
    antialias: bool,
    align_corners: bool = False,
) -> Float[Tensor, "Q D"]:
    """A (rows · cols, D) table of `old` = (rows, cols), interpolated to `new`. `mode` is "bicubic" or "bilinear".

    Reference implementations differ: transformers resizes CLIP and SigLIP bicubic without antialias, open_clip with;
    OpenAI's 336 px model was bilinear; NaFlex is bilinear with antialias; big_vision, where training continues at
    another size, bilinear from corner to corner (`align_corners`).
    """
    if old == new:
        return table
    grid = table.float().unflatten(0, old).permute(2, 0, 1)[None]  # 1 D Y X
    grid = F.interpolate(grid, new, mode=mode, antialias=antialias, align_corners=align_corners)
    return grid[0].permute(1, 2, 0).flatten(0, 1).to(table.dtype)
