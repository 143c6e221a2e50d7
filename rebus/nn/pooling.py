"""Many tokens → one vector."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rebus.core.errors import BadText
from rebus.nn.attention import Attention
from rebus.nn.mlp import MLP
from rebus.nn.norms import LayerNorm
from rebus.nn.only_shapes import only_shapes


def first_id(x: Float[Tensor, "B L D"], tokens: Int[Tensor, "B L"], token_id: int) -> Float[Tensor, "B D"]:
    """The state at the first `token_id` of each row. Raises `BadText` for a row without one."""
    found = tokens == token_id
    if not (torch.compiler.is_compiling() or only_shapes(tokens)):
        lacking = (~found.any(-1)).nonzero().flatten().tolist()
        if lacking:
            raise BadText(
                f"text {lacking[0]} has no token {token_id}, at which the network reads it ({len(lacking)} of "
                f"{len(tokens)} texts have none). Texts end with it when the model's processor makes their tokens"
            )
    return x[torch.arange(len(x), device=x.device), found.int().argmax(-1)]


def largest_id(x: Float[Tensor, "B L D"], tokens: Int[Tensor, "B L"]) -> Float[Tensor, "B D"]:
    """The state at the largest id of each row: end-of-text, as long as no id is above it (OpenAI's CLIP)."""
    return x[torch.arange(len(x), device=x.device), tokens.argmax(-1)]


def masked_mean(x: Float[Tensor, "B L D"], mask: Bool[Tensor, "B L"] | None) -> Float[Tensor, "B D"]:
    """The mean over real tokens; a row without any gives zeros."""
    if mask is None:
        return x.mean(1)
    weights = mask[..., None].to(x.dtype)
    return (x * weights).sum(1) / weights.sum(1).clamp(min=1)


class ProbePool(nn.Module):
    """A learned query looks at all tokens, then an MLP: multi-head attention pooling (MAP). Zhai et al. 2022."""

    def __init__(self, width: int, num_heads: int, mlp_width: int, *, act: str = "gelu_tanh", eps: float = 1e-6):
        super().__init__()
        self.probe = nn.Parameter(torch.zeros(1, 1, width))
        self.attn = Attention(width, num_heads)
        self.norm = LayerNorm(width, eps)
        self.mlp = MLP(width, mlp_width, act)

    def forward(self, x: Float[Tensor, "B P D"], mask: Bool[Tensor, "B 1 1 P"] | None = None) -> Float[Tensor, "B D"]:
        pooled = self.attn(self.probe, x, mask=mask)  # projected once: in bfloat16 one row is rounded unlike many
        return (pooled + self.mlp(self.norm(pooled)))[:, 0]
