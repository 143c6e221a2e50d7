"""Transformer blocks. `Block` normalises before attention and before the MLP (pre-LN): deep stacks train from scratch.
`PostNormBlock` normalises each sum, as the first transformers did (BERT, BART)."""

from collections.abc import Callable

from jaxtyping import Bool, Float
from torch import Tensor, nn

from rebus.nn.attention import Attention, Remember
from rebus.nn.mlp import MLP
from rebus.nn.norms import LayerNorm


class Block(nn.Module):
    """x + attn(norm1(x)), then x + mlp(norm2(x))."""

    split_parts = ("attn", "mlp")

    def __init__(self, width: int, num_heads: int, mlp_width: int, *, act: str = "gelu", eps: float = 1e-6):
        super().__init__()
        self.norm1 = LayerNorm(width, eps)
        self.attn = Attention(width, num_heads)
        self.norm2 = LayerNorm(width, eps)
        self.mlp = MLP(width, mlp_width, act)

    def join_products(self) -> None:
        """For inference: one product for queries, keys and values."""
        self.attn.join_qkv()

    def forward(
        self,
        x: Float[Tensor, "B S D"],
        mask: Bool[Tensor, "#B 1 #S N"] | None = None,
        causal: bool = False,
        remember: Remember | None = None,
        bias: Float[Tensor, "#B H S N"] | None = None,
        between: Callable[[Tensor], Tensor] | None = None,
    ) -> Float[Tensor, "B S D"]:
        """`between`: what is done to the states between the two halves."""
        x = x + self.attn(self.norm1(x), mask=mask, causal=causal, remember=remember, bias=bias)
        if between is not None:
            x = between(x)
        return x + self.mlp(self.norm2(x))


class PostNormBlock(nn.Module):
    """norm1(x + attn(x)), then norm2(x + mlp(x))."""

    split_parts = ("attn", "mlp")

    def __init__(self, width: int, num_heads: int, mlp_width: int, *, act: str = "gelu", eps: float = 1e-5):
        super().__init__()
        self.attn = Attention(width, num_heads)
        self.norm1 = LayerNorm(width, eps)
        self.mlp = MLP(width, mlp_width, act)
        self.norm2 = LayerNorm(width, eps)

    def join_products(self) -> None:
        """For inference: one product for queries, keys and values."""
        self.attn.join_qkv()

    def forward(
        self, x: Float[Tensor, "B S D"], mask: Bool[Tensor, "#B 1 #S S"] | None = None
    ) -> Float[Tensor, "B S D"]:
        x = self.norm1(x + self.attn(x, mask=mask))
        return self.norm2(x + self.mlp(x))
