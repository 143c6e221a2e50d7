"""Rotary positions: each pair of channels turns by an angle that grows with the position. Su et al. 2021.

The dot product of two turned vectors depends only on the distance between them. Pairs are (i, i + K/2), the
"rotate-half" layout of Gemma and Llama.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def rope_table(
    positions: Int[Tensor, "B S"], head_width: int, base: float = 10_000.0, dtype: torch.dtype = torch.float32
) -> tuple[Float[Tensor, "B 1 S K"], Float[Tensor, "B 1 S K"]]:
    """Cosines and sines of the angles position · base^(−2i/K), for every head alike; computed in float32.

    The sines of the first half are negated: what `rotate` adds there is −sin · the other of the pair.
    """
    exponents = torch.arange(0, head_width, 2, device=positions.device, dtype=torch.float32) / head_width
    angles = positions[:, None, :, None].float() * base**-exponents
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([cos, cos], dim=-1).to(dtype), torch.cat([-sin, sin], dim=-1).to(dtype)


def rotate(
    x: Float[Tensor, "B H S K"], table: tuple[Float[Tensor, "B 1 S R"], Float[Tensor, "B 1 S R"]]
) -> Float[Tensor, "B H S K"]:
    """Turn queries or keys to their positions; of a narrower table, the first channels of each head alone."""
    cos, sin = table
    width = cos.shape[-1]
    if width < x.shape[-1]:
        return torch.cat([rotate(x[..., :width], table), x[..., width:]], dim=-1)
    return torch.addcmul(x * cos, x.roll(width // 2, -1), sin)
