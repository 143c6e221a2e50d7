"""A decoder beside an encoder: each token looks at the tokens before it, then at what the encoder made of its input.

Vaswani et al., "Attention Is All You Need", 2017, Sec. 3.1.
"""

from collections.abc import Sequence

from jaxtyping import Bool, Float
from torch import Tensor, nn

from rebus.nn.attention import Attention, KeysValues, Remember
from rebus.nn.mlp import MLP
from rebus.nn.norms import LayerNorm


class Decoder(nn.Module):
    """A stack of blocks; `pre_norm` ones are followed by a norm."""

    def __init__(self, width: int, num_layers: int, num_heads: int, mlp_width: int, *, pre_norm: bool, eps: float):
        super().__init__()
        self.blocks = nn.ModuleList(
            DecoderBlock(width, num_heads, mlp_width, pre_norm=pre_norm, eps=eps) for _ in range(num_layers)
        )
        self.norm = LayerNorm(width, eps) if pre_norm else nn.Identity()

    def keys_values(self, seen: Float[Tensor, "B P D"]) -> tuple[KeysValues, ...]:
        """What the encoder made of its input, as each block reads it."""
        return tuple(block.cross.keys_values(seen) for block in self.blocks)  # type: ignore[operator, union-attr]

    def forward(
        self,
        x: Float[Tensor, "B S D"],
        seen: Sequence[KeysValues],
        mask: Bool[Tensor, "#B 1 S N"],
        *,
        seen_mask: Bool[Tensor, "C 1 1 P"] | None = None,
        remember: Sequence[Remember] | None = None,
    ) -> Float[Tensor, "B S D"]:
        for i, block in enumerate(self.blocks):
            x = block(x, seen[i], mask, seen_mask, None if remember is None else remember[i])
        return self.norm(x)


class DecoderBlock(nn.Module):
    """Normalised after each step as in the paper, or before it."""

    split_parts = ("attn", "cross", "mlp")

    def __init__(self, width: int, num_heads: int, mlp_width: int, *, pre_norm: bool, eps: float):
        super().__init__()
        self.pre_norm = pre_norm
        self.attn, self.norm1 = Attention(width, num_heads), LayerNorm(width, eps)
        self.cross, self.norm2 = Attention(width, num_heads), LayerNorm(width, eps)
        self.mlp, self.norm3 = MLP(width, mlp_width), LayerNorm(width, eps)

    def forward(
        self,
        x: Float[Tensor, "B S D"],
        seen: KeysValues,
        mask: Bool[Tensor, "#B 1 S N"],
        seen_mask: Bool[Tensor, "C 1 1 P"] | None,
        remember: Remember | None,
    ) -> Float[Tensor, "B S D"]:
        if self.pre_norm:
            x = x + self.attn(self.norm1(x), mask=mask, remember=remember)
            x = x + self.cross.look_up(self.norm2(x), seen, seen_mask)
            return x + self.mlp(self.norm3(x))
        x = self.norm1(x + self.attn(x, mask=mask, remember=remember))
        x = self.norm2(x + self.cross.look_up(x, seen, seen_mask))
        return self.norm3(x + self.mlp(x))
