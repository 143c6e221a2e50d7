"""One mask rule for every attention pattern.

Give each token a block number that never falls from left to right. A token may look at every token whose block number
is not above its own:

    one block                  0 0 0 0 0        everybody sees everybody (an encoder)
    a block a token            0 1 2 3 4        causal (a language model)
    a block, then a token each 0 0 0 1 2        prefix LM: image and prompt see each other, the answer is causal

Padding and a sliding window only take away. Masks are True where looking is allowed.
"""

import torch
from jaxtyping import Bool, Int
from torch import Tensor


def causal_blocks(num_prefix: int, length: int, device: torch.device | None = None) -> Int[Tensor, "S"]:
    """Block numbers of a sequence whose first `num_prefix` tokens are one block and the rest one block each."""
    return (torch.arange(length, device=device) - max(num_prefix - 1, 0)).clamp(min=0)


def attention_mask(
    blocks: Int[Tensor, "*B S"],
    real: Bool[Tensor, "B S"] | None = None,
    *,
    query_blocks: Int[Tensor, "*B Q"] | None = None,
    positions: Int[Tensor, "B S"] | None = None,
    window: int | None = None,
) -> Bool[Tensor, "B 1 Q S"]:
    """Who may look at whom: (B, 1, queries, keys), or (1, 1, …) when nothing depends on the row.

    `real` is False at padding, which nobody sees. `window` keeps the causal part within the last `window` positions;
    tokens of the same block stay visible, so a prefix remains complete.
    """
    query_blocks = blocks if query_blocks is None else query_blocks
    mask = query_blocks[..., :, None] >= blocks[..., None, :]
    if window is not None:
        at = torch.arange(blocks.shape[-1], device=blocks.device) if positions is None else positions
        near = at[..., :, None] - at[..., None, :] < window
        mask = mask & (near | (query_blocks[..., :, None] == blocks[..., None, :]))
    mask = mask if mask.ndim == 3 else mask[None]
    if real is not None:
        mask = mask & real[:, None, :]
    return mask[:, None]
