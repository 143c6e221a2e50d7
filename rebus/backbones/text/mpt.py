"""MPT: a decoder without biases whose heads look back less and less far (ALiBi) instead of knowing positions.

MosaicML, "Introducing MPT-7B", 2023; Press et al., "Train Short, Test Long", 2022. MPT-1B also normalises queries and
keys, over all heads together (Dehghani et al., "Scaling Vision Transformers to 22 Billion Parameters", 2023).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rebus.backbones.text.causal import Decoder, Layers, Places
from rebus.core.errors import BadConfig
from rebus.core.released_config import Released
from rebus.core.specs import TextSpec
from rebus.core.system import Layout, System
from rebus.nn.attention import Attention, Remember
from rebus.nn.cache import Cache
from rebus.nn.embedding import TokenEmbedding
from rebus.nn.mlp import MLP
from rebus.weights.key_sides import Row
from rebus.weights.keymap import KeyMap


@dataclass(frozen=True, kw_only=True)
class MPTConfig:
    width: int = 4096
    num_layers: int = 32
    num_heads: int = 32
    mlp_ratio: int = 4
    vocab_size: int = 50_432
    context: int = 2048
    bias_max: int = 8  # the steepest slope of ALiBi is 2^(−bias_max / heads), the flattest 2^−bias_max
    qk_norm: bool = False
    eps: float = 1e-5


PRESETS = {
    "tiny": MPTConfig(width=24, num_layers=2, num_heads=3, mlp_ratio=2, vocab_size=96, context=64),
    "tiny_qk_norm": MPTConfig(width=24, num_layers=2, num_heads=4, vocab_size=96, context=64, qk_norm=True),
    "1b": MPTConfig(width=2048, num_layers=24, num_heads=16, qk_norm=True),
    "7b": MPTConfig(),
}


def alibi_slopes(num_heads: int, bias_max: int = 8) -> Float[Tensor, "H"]:
    """2^(−bias_max · i / n) from i = 1, n being the next power of two; where that is not H, every other one first."""
    power = 2 ** math.ceil(math.log2(num_heads))
    slopes = 2.0 ** (-torch.arange(1, power + 1) * (bias_max / power))
    return slopes if power == num_heads else torch.cat([slopes[1::2], slopes[::2]])[:num_heads]


class NormOverHeads(nn.Module):
    """One LayerNorm, without bias, over the channels of all heads together."""

    def __init__(self, num_heads: int, head_width: int, eps: float):
        super().__init__()
        self.norm = nn.LayerNorm(num_heads * head_width, eps, bias=False)

    def forward(self, x: Float[Tensor, "B H S K"]) -> Float[Tensor, "B H S K"]:
        heads = x.shape[1:2]
        return self.norm(x.transpose(1, 2).flatten(2)).unflatten(2, (*heads, -1)).transpose(1, 2)


class MPTBlock(nn.Module):
    """x + attn(norm1(x)), then x + mlp(norm2(x))."""

    split_parts = ("attn", "mlp")

    def __init__(self, cfg: MPTConfig):
        super().__init__()
        norm = partial(NormOverHeads, cfg.num_heads, eps=cfg.eps)
        self.norm1 = nn.LayerNorm(cfg.width, cfg.eps, bias=False)
        self.attn = Attention(cfg.width, cfg.num_heads, bias=False, qk_norm=norm if cfg.qk_norm else None)
        self.norm2 = nn.LayerNorm(cfg.width, cfg.eps, bias=False)
        self.mlp = MLP(cfg.width, cfg.mlp_ratio * cfg.width, bias=False)

    def join_products(self) -> None:
        """For inference: one product for queries, keys and values."""
        self.attn.join_qkv()

    def forward(
        self,
        x: Float[Tensor, "B S D"],
        mask: Bool[Tensor, "#B 1 #S N"],
        bias: Float[Tensor, "B H 1 N"],
        remember: Remember | None = None,
    ) -> Float[Tensor, "B S D"]:
        x = x + self.attn(self.norm1(x), mask=mask, bias=bias, remember=remember)
        return x + self.mlp(self.norm2(x))


class MPT(Decoder):
    """Tokens → scores of the next one. The head is the embedding itself."""

    def __init__(self, cfg: MPTConfig):
        super().__init__()
        self.cfg = cfg
        self.tokens = TokenEmbedding(cfg.vocab_size, cfg.width)
        self.blocks = nn.ModuleList(MPTBlock(cfg) for _ in range(cfg.num_layers))
        self.norm = nn.LayerNorm(cfg.width, cfg.eps, bias=False)
        self.init_weights()

    def init_weights(self) -> None:
        """N(0, 0.02) for embeddings and linear layers."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)

    def embed(self, tokens: Int[Tensor, "B S"]) -> Float[Tensor, "B S D"]:
        """The tokens' vectors."""
        return self.tokens(tokens)

    def lay_out(self, x: Float[Tensor, "B S D"], real: Bool[Tensor, "B S"], cache: Cache | None = None) -> Layers:
        """Masks, ALiBi and cache tied to the blocks.

        A score falls by the slope for each token between key and query. Counted from the newest token instead, which
        shifts all scores of a query alike, one row of biases does for all queries.
        """
        places = Places.of(real, cache)
        slopes = alibi_slopes(self.cfg.num_heads, self.cfg.bias_max).to(x.device)
        ago = (places.keys - places.positions.amax(dim=1, keepdim=True))[:, None, None]
        bias = slopes[:, None, None] * ago
        blocks = [
            partial(block, mask=places.mask, bias=bias, remember=places.remember(i))
            for i, block in enumerate(self.blocks)
        ]
        return Layers(x, blocks, places.cache)

    def logits(self, hidden: Float[Tensor, "*B D"]) -> Float[Tensor, "*B V"]:
        """Scores over the vocabulary."""
        return self.tokens.scores(hidden)


def _rows(norms: tuple[str, str, str], mlp: str) -> list[Row]:
    layer, block = "transformer.blocks.{i}.", "blocks.{i}."
    qkv = tuple(f"{block}attn.{n}.weight" for n in "qkv")
    return [
        ("transformer.wte.weight", "tokens.weight"),
        (f"transformer.{norms[2]}.weight", "norm.weight"),
        (layer + norms[0] + ".weight", block + "norm1.weight"),
        (layer + "attn.Wqkv.weight", qkv),
        (layer + "attn.out_proj.weight", block + "attn.out.weight"),
        (layer + norms[1] + ".weight", block + "norm2.weight"),
        (layer + mlp.format("up") + ".weight", block + "mlp.up.weight"),
        (layer + mlp.format("down") + ".weight", block + "mlp.down.weight"),
    ]


def keys(cfg: MPTConfig) -> KeyMap:
    """The names of an `MptForCausalLM`. Raises `BadConfig` for normalised queries, which that class leaves out."""
    if cfg.qk_norm:
        raise BadConfig("queries and keys are normalised, which the mpt layout has no place for")
    return KeyMap(_rows(("norm_1", "norm_2", "norm_f"), "ffn.{}_proj"), ignore=["lm_head.weight"])


def mosaic_keys(cfg: MPTConfig) -> KeyMap:
    """The names of MPT-1B, an earlier layout."""
    rows = _rows(("ln_1", "ln_2", "ln_f"), "mlp.mlp_{}")
    if cfg.qk_norm:
        rows += [
            (f"transformer.blocks.{{i}}.attn.{n}_ln.weight", f"blocks.{{i}}.attn.{n}_norm.norm.weight") for n in "qk"
        ]
    return KeyMap(rows, ignore=["lm_head.weight"])


_UNUSED = "resid_pdrop emb_pdrop init_device embedding_fraction norm_type verbose".split()


def _read_sizes(fields: Released, ratio: str, **changes: Any) -> MPTConfig:
    fields.demand("no_bias", True)
    fields.demand("logit_scale", None)
    fields.skip(*_UNUSED, "bos_token_id", "eos_token_id", "pad_token_id")
    cfg = MPTConfig(
        width=fields.size("d_model", 2048),
        num_layers=fields.layers("n_layers", 24),
        num_heads=fields.size("n_heads", 16),
        mlp_ratio=fields.size(ratio, 4),
        vocab_size=fields.size("vocab_size", 50_368),
        context=fields.size("max_seq_len", 2048),
        eps=fields.positive("layer_norm_epsilon", 1e-5),
        **changes,
    )
    fields.finish()
    if cfg.width % cfg.num_heads:
        raise BadConfig(f"{fields.where}: {cfg.num_heads} heads do not divide a width of {cfg.width}")
    return cfg


def read_transformers(data: Mapping[str, Any]) -> MPTConfig:
    """`config.json` of an `MptForCausalLM`. Queries and keys that it says are normalised are not, in that class."""
    fields = Released(data)
    attn = fields.part("attn_config")
    attn.demand("alibi", True)
    for name in ("clip_qkv", "softmax_scale"):
        attn.demand(name, None)
    for name in ("prefix_lm", "qk_ln", "attn_uses_sequence_id"):
        attn.demand(name, False)
    attn.demand("attn_type", "multihead_attention")
    attn.skip("attn_impl", "attn_pdrop", "alibi")
    bias_max = attn.size("alibi_bias_max", 8)
    attn.finish()
    fields.skip("learned_pos_emb", "init_config", "tokenizer_name")  # ALiBi stands in for learned positions
    return _read_sizes(fields, "expansion_ratio", bias_max=bias_max)


def read_mosaic(data: Mapping[str, Any]) -> MPTConfig:
    """The flat `config.json` of MPT-1B."""
    fields = Released(data)
    fields.demand("alibi", True)
    for name in ("attn_clip_qkv", "softmax_scale"):
        fields.demand(name, None)
    for name in ("prefix_lm", "attn_uses_sequence_id"):
        fields.demand(name, False)
    fields.skip("attn_impl", "attn_pdrop", "low_precision_layernorm", "auto_map", "learned_pos_emb")
    fields.skip(*(name for name in data if name.startswith(("init_", "param_init", "emb_init", "fan_mode"))))
    return _read_sizes(
        fields,
        "mlp_ratio",
        bias_max=fields.size("alibi_bias_max", 8),
        qk_norm=fields.take("attn_qk_ln", bool, False),
    )


def _sizes(cfg: MPTConfig) -> dict[str, Any]:
    return {
        "d_model": cfg.width,
        "n_layers": cfg.num_layers,
        "n_heads": cfg.num_heads,
        "vocab_size": cfg.vocab_size,
        "max_seq_len": cfg.context,
        "layer_norm_epsilon": cfg.eps,
        "no_bias": True,
    }


def write_transformers(cfg: MPTConfig) -> dict[str, Any]:
    """The `config.json` from which the reference class builds the same network. Raises `BadConfig` as `keys` does."""
    keys(cfg)
    attn = {"alibi": True, "alibi_bias_max": cfg.bias_max}
    about = {"architectures": ["MptForCausalLM"], "model_type": "mpt", "expansion_ratio": cfg.mlp_ratio}
    return {**about, **_sizes(cfg), "attn_config": attn}


def write_mosaic(cfg: MPTConfig) -> dict[str, Any]:
    """The reverse of `read_mosaic`."""
    about = {"architectures": ["MosaicGPT"], "model_type": "mosaic_gpt", "mlp_ratio": cfg.mlp_ratio}
    return {**about, **_sizes(cfg), "alibi": True, "alibi_bias_max": cfg.bias_max, "attn_qk_ln": cfg.qk_norm}


def text_spec(cfg: MPTConfig) -> TextSpec:
    """Text as it is; <|endoftext|>, id 0 of the GPT-NeoX tokenizer, ends it and pads."""
    return TextSpec(context=cfg.context, generates=True, vocab_size=cfg.vocab_size, pad_id=0, eos_id=0)


_MPT = Layout(name="transformers", keys=keys, read_config=read_transformers, write_config=write_transformers)
SYSTEM = System(
    name="mpt",
    network=MPT,
    config=MPTConfig,
    presets=PRESETS,
    layouts={
        "transformers": _MPT,
        "mosaic": replace(
            _MPT,
            name="mosaic",
            keys=mosaic_keys,
            read_config=read_mosaic,
            write_config=write_mosaic,
            recognises=lambda data: data.get("model_type") == "mosaic_gpt",
        ),
    },
    text_spec=text_spec,
    objective="next token",
)
