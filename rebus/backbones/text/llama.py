"""Llama: a decoder with rotary positions, gated MLPs with SiLU, RMSNorm and, where grouped, shared keys and values.

Touvron et al., "LLaMA: Open and Efficient Foundation Language Models", 2023; "Llama 2", 2023. SmolLM2 and TinyLlama
have the same architecture in other sizes; Chameleon's adds norms on queries and keys, and in its large size normalises
what a layer gives, not what it reads (Swin v2).

The parts are open (`rebus.backbones.text.causal.Decoder`), so that a model which puts images into the sequence writes
its own forward over them.
"""

from dataclasses import dataclass
from functools import partial

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rebus.backbones.text.causal import Decoder, Layers, Places
from rebus.nn.attention import Attention, Remember, Rope
from rebus.nn.cache import Cache
from rebus.nn.embedding import TokenEmbedding
from rebus.nn.linear import Linear
from rebus.nn.mlp import GatedMLP
from rebus.nn.norms import HeadNorm
from rebus.nn.rope import rope_table


@dataclass(frozen=True, kw_only=True)
class LlamaConfig:
    width: int = 4096
    num_layers: int = 32
    num_heads: int = 32
    num_kv_heads: int = 32
    head_width: int = 128
    mlp_width: int = 11_008
    vocab_size: int = 32_000
    context: int = 4096
    rope_base: float = 10_000.0
    eps: float = 1e-5
    tied: bool = False  # whether the embeddings are the head too
    qk_norm: bool = False  # whether queries and keys are normalised, head by head
    norm_after: bool = False  # whether norms stand after attention and MLP, inside the residual, and not before them


class LlamaBlock(nn.Module):
    """x + attn(norm1(x)), then x + mlp(norm2(x)); with `norm_after`, x + norm1(attn(x)), then x + norm2(mlp(x))."""

    split_parts = ("attn", "mlp")

    def __init__(self, cfg: LlamaConfig):
        super().__init__()
        self.norm1 = nn.RMSNorm(cfg.width, cfg.eps)  # the gain as it is, where Gemma keeps its distance from one
        self.attn = Attention(
            cfg.width, cfg.num_heads, num_kv_heads=cfg.num_kv_heads, head_width=cfg.head_width, bias=False
        )
        if cfg.qk_norm:
            self.attn.q_norm = HeadNorm(cfg.num_heads, cfg.head_width)
            self.attn.k_norm = HeadNorm(cfg.num_kv_heads, cfg.head_width)
        self.norm2 = nn.RMSNorm(cfg.width, cfg.eps)
        self.mlp = GatedMLP(cfg.width, cfg.mlp_width, "silu")
        self.norm_after = cfg.norm_after

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
        if self.norm_after:  # of what autocast left in bfloat16, in the precision of x
            x = x + self.norm1(self.attn(x, mask=mask, rope=rope, remember=remember).to(x.dtype))
            return x + self.norm2(self.mlp(x).to(x.dtype))
        x = x + self.attn(self.norm1(x), mask=mask, rope=rope, remember=remember)
        return x + self.mlp(self.norm2(x))


class Llama(Decoder):
    """Tokens → scores of the next one."""

    def __init__(self, cfg: LlamaConfig):
        super().__init__()
        self.cfg = cfg
        self.tokens = TokenEmbedding(cfg.vocab_size, cfg.width)
        self.blocks = nn.ModuleList(LlamaBlock(cfg) for _ in range(cfg.num_layers))
        self.norm = nn.RMSNorm(cfg.width, cfg.eps)
        self.head = None if cfg.tied else Linear(cfg.width, cfg.vocab_size, bias=False)
        self.init_weights()

    def init_weights(self) -> None:
        """N(0, 0.02) for embeddings and linear layers."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)

    def embed(self, tokens: Int[Tensor, "B S"]) -> Float[Tensor, "B S D"]:
        """The tokens' vectors; where they stand is added by `lay_out`."""
        return self.tokens(tokens)

    def lay_out(self, x: Float[Tensor, "B S D"], real: Bool[Tensor, "B S"], cache: Cache | None = None) -> Layers:
        """Positions, masks and cache tied to the blocks."""
        places = Places.of(real, cache)
        rope = rope_table(places.positions, self.cfg.head_width, self.cfg.rope_base, x.dtype)
        blocks = [
            partial(block, mask=places.mask, rope=rope, remember=places.remember(i))
            for i, block in enumerate(self.blocks)
        ]
        return Layers(x, blocks, places.cache)

    def logits(self, hidden: Float[Tensor, "*B D"]) -> Float[Tensor, "*B V"]:
        """Scores over the vocabulary."""
        return self.tokens.scores(hidden) if self.head is None else self.head(hidden)

    def empty_cache(self, rows: int, slots: int) -> Cache:
        """Room for `slots` tokens, on the device and in the dtype of the weights."""
        shape = (rows, self.cfg.num_kv_heads, slots, self.cfg.head_width)
        return Cache.empty(self.cfg.num_layers, shape, self.norm.weight.device, self.norm.weight.dtype)
