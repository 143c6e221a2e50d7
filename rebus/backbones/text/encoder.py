"""Text encoders of CLIP and SigLIP: pre-LN blocks over learned positions, causal in CLIP, both ways in SigLIP."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rebus.core.errors import BadText
from rebus.nn.block import Block
from rebus.nn.linear import xavier
from rebus.nn.norms import LayerNorm


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    width: int = 512
    num_layers: int = 12
    num_heads: int = 8
    mlp_width: int = 2048
    vocab_size: int = 49_408
    context: int = 77
    causal: bool = True
    act: Literal["gelu", "gelu_tanh", "quick_gelu"] = "quick_gelu"
    eps: float = 1e-5


class TextEncoder(nn.Module):
    """Tokens → one vector each, after the last norm."""

    def __init__(self, cfg: TextConfig):
        super().__init__()
        self.cfg = cfg
        self.tokens = nn.Embedding(cfg.vocab_size, cfg.width)
        self.positions = nn.Parameter(torch.zeros(cfg.context, cfg.width))
        self.blocks = nn.ModuleList(
            Block(cfg.width, cfg.num_heads, cfg.mlp_width, act=cfg.act, eps=cfg.eps) for _ in range(cfg.num_layers)
        )
        self.norm = LayerNorm(cfg.width, cfg.eps)
        self.init_weights()

    def init_weights(self) -> None:
        """Token embeddings N(0, 0.02), positions N(0, 0.01), Xavier for linear layers."""
        xavier(self)
        nn.init.normal_(self.tokens.weight, std=0.02)
        nn.init.normal_(self.positions, std=0.01)

    def forward(
        self, tokens: Int[Tensor, "T L"], mask: Bool[Tensor, "T 1 #L L"] | None = None
    ) -> Float[Tensor, "T L D"]:
        """Texts are padded on the right; a causal encoder needs no mask then, since real tokens never see padding."""
        if tokens.shape[1] > self.cfg.context:
            raise BadText(f"text of {tokens.shape[1]} tokens is longer than the context of {self.cfg.context}")
        x = self.tokens(tokens) + self.positions[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x, mask, causal=self.cfg.causal)
        return self.norm(x)


def to_the_left(tokens: Int[Tensor, "T L"], mask: Bool[Tensor, "T L"]) -> Int[Tensor, "T L"]:
    """Rows padded on any side, moved so that their words begin at position 0, where training put them."""
    return tokens.gather(1, mask.int().argsort(dim=1, descending=True, stable=True))
