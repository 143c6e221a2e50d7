"""Gemma 1 and Gemma 2: a decoder with rotary positions, gated MLPs, RMSNorm and shared keys and values.

Gemma team, "Gemma: Open Models", 2024; "Gemma 2: Improving Open Language Models at a Practical Size", 2024.

The parts are open: `embed`, `decode` and `logits` are public, so a model that puts images into the sequence writes
its own forward over them. Gemma knows no images.
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rebus.nn.attention import Attention, Remember, Rope
from rebus.nn.cache import Cache
from rebus.nn.embedding import TokenEmbedding
from rebus.nn.masks import attention_mask
from rebus.nn.mlp import GatedMLP
from rebus.nn.norms import RMSNorm
from rebus.nn.rope import rope_table


@dataclass(frozen=True, kw_only=True)
class GemmaConfig:
    generation: Literal[1, 2] = 1
    width: int = 2048
    num_layers: int = 18
    num_heads: int = 8
    num_kv_heads: int = 1
    head_width: int = 256
    mlp_width: int = 16_384
    vocab_size: int = 256_000
    context: int = 8192
    rope_base: float = 10_000.0
    eps: float = 1e-6
    query_scale: float | None = None  # the number whose −½ power scales the scores; head_width when None
    score_cap: float | None = None  # Gemma 2: 50
    logit_cap: float | None = None  # Gemma 2: 30
    window: int | None = None  # Gemma 2: 4096 in layers 0, 2, 4, …


class GemmaBlock(nn.Module):
    """Pre-norm attention and gated MLP; Gemma 2 normalises once more before each residual sum."""

    split_parts = ("attn", "mlp")

    def __init__(self, cfg: GemmaConfig):
        super().__init__()
        self.norm1 = RMSNorm(cfg.width, cfg.eps)
        self.attn = Attention(
            cfg.width,
            cfg.num_heads,
            num_kv_heads=cfg.num_kv_heads,
            head_width=cfg.head_width,
            bias=False,
            scale=(cfg.query_scale or cfg.head_width) ** -0.5,
            softcap=cfg.score_cap,
        )
        self.norm2 = RMSNorm(cfg.width, cfg.eps)
        self.mlp = GatedMLP(cfg.width, cfg.mlp_width)
        second = cfg.generation == 2
        self.norm_attn = RMSNorm(cfg.width, cfg.eps) if second else nn.Identity()
        self.norm_mlp = RMSNorm(cfg.width, cfg.eps) if second else nn.Identity()

    def join_products(self) -> None:
        """For inference: one product for queries, keys and values."""
        self.attn.join_qkv()

    def forward(
        self,
        x: Float[Tensor, "B S D"],
        mask: Bool[Tensor, "#B 1 #S N"],
        rope: Rope,
        remember: Remember | None = None,
    ) -> Float[Tensor, "B S D"]:
        x = x + self.norm_attn(self.attn(self.norm1(x), mask=mask, rope=rope, remember=remember))
        return x + self.norm_mlp(self.mlp(self.norm2(x)))


class Gemma(nn.Module):
    """Tokens → scores of the next one. The head is the embedding itself."""

    def __init__(self, cfg: GemmaConfig):
        super().__init__()
        self.cfg = cfg
        self.tokens = TokenEmbedding(cfg.vocab_size, cfg.width)
        self.blocks = nn.ModuleList(GemmaBlock(cfg) for _ in range(cfg.num_layers))
        self.norm = RMSNorm(cfg.width, cfg.eps)
        self.init_weights()

    def init_weights(self) -> None:
        """Linear layers N(0, 1/fan-in), embeddings so that √width · embedding has unit variance."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
        nn.init.normal_(self.tokens.weight, std=self.cfg.width**-0.5)

    def embed(self, tokens: Int[Tensor, "B S"]) -> Float[Tensor, "B S D"]:
        """Embeddings times √width. Only words are scaled; an image's vectors join the sequence as they are."""
        x = self.tokens(tokens)
        return x * torch.tensor(self.cfg.width**0.5, dtype=x.dtype)

    def decode(
        self,
        x: Float[Tensor, "B S D"],
        *,
        blocks: Int[Tensor, "B S"],
        real: Bool[Tensor, "B S"],
        positions: Int[Tensor, "B S"],
    ) -> Float[Tensor, "B S D"]:
        """A whole sequence at once. `blocks`: see `rebus.nn.masks`; `real` is False at padding."""
        wide = attention_mask(blocks, real)
        narrow = self._narrow(wide, blocks, real, positions)
        rope = rope_table(positions, self.cfg.head_width, self.cfg.rope_base, x.dtype)
        for i, block in enumerate(self.blocks):
            x = block(x, narrow if i % 2 == 0 else wide, rope)
        return self.norm(x)

    def decode_cached(
        self, x: Float[Tensor, "B S D"], real: Bool[Tensor, "B S"], cache: Cache, *, whole: bool
    ) -> tuple[Float[Tensor, "B S D"], Cache]:
        """The next S tokens after what the cache holds; they see all of it.

        `whole`: the S tokens also see each other (a prefix); otherwise S must be 1.
        """
        assert whole or x.shape[1] == 1, "tokens after the prefix are decoded one by one"
        cache, positions = cache.open(real)
        wide = cache.real[:, None, None, :]
        narrow = wide
        if self.cfg.window is not None and not whole:
            near = positions[:, None, :, None] - cache.positions[:, None, None, :] < self.cfg.window
            narrow = wide & near
        rope = rope_table(positions, self.cfg.head_width, self.cfg.rope_base, x.dtype)
        for i, block in enumerate(self.blocks):
            x = block(x, narrow if i % 2 == 0 else wide, rope, partial(cache.write, i))
        return self.norm(x), cache

    def logits(self, hidden: Float[Tensor, "*B D"]) -> Float[Tensor, "*B V"]:
        """Scores over the vocabulary, bent to ±logit_cap where the config has one."""
        scores = self.tokens.scores(hidden)
        cap = self.cfg.logit_cap
        return scores if cap is None else cap * torch.tanh(scores / cap)

    def empty_cache(self, rows: int, slots: int) -> Cache:
        """Room for `slots` tokens, on the device and in the dtype of the weights."""
        shape = (rows, self.cfg.num_kv_heads, slots, self.cfg.head_width)
        return Cache.empty(self.cfg.num_layers, shape, self.norm.weight.device, self.norm.weight.dtype)

    def forward(self, tokens: Int[Tensor, "B S"], mask: Bool[Tensor, "B S"] | None = None) -> Float[Tensor, "B S V"]:
        """Plain causal language modelling; `mask` is False at padding, on either side."""
        real = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        blocks = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
        positions = (real.long().cumsum(1) - 1).clamp(min=0)
        return self.logits(self.decode(self.embed(tokens), blocks=blocks, real=real, positions=positions))

    def _narrow(self, wide: Tensor, blocks: Tensor, real: Tensor, positions: Tensor) -> Tensor:
        if self.cfg.window is None:
            return wide
        return attention_mask(blocks, real, positions=positions, window=self.cfg.window)
