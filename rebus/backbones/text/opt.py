"""OPT: GPT-2's shape with ReLU, and positions that begin at 2.

Zhang et al., "OPT: Open Pre-trained Transformer Language Models", 2022. All sizes but 350m, which normalises after each
part and has narrower embeddings.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rebus.backbones.text.causal import Decoder, Layers, Places
from rebus.core.errors import BadConfig
from rebus.core.released_config import Released
from rebus.core.specs import TextSpec
from rebus.core.system import Layout, System
from rebus.nn.block import Block
from rebus.nn.cache import Cache
from rebus.nn.embedding import TokenEmbedding
from rebus.nn.norms import LayerNorm
from rebus.weights.key_sides import Row
from rebus.weights.keymap import KeyMap

EPS = 1e-5
FIRST_POSITION = 2  # the table has two rows that no text uses


@dataclass(frozen=True, kw_only=True)
class OPTConfig:
    width: int = 768
    num_layers: int = 12
    num_heads: int = 12
    mlp_width: int = 3072
    vocab_size: int = 50_272
    context: int = 2048


PRESETS = {
    "tiny": OPTConfig(width=24, num_layers=2, num_heads=3, mlp_width=40, vocab_size=96, context=64),
    "125m": OPTConfig(),
    "1b3": OPTConfig(width=2048, num_layers=24, num_heads=32, mlp_width=8192),
}


class OPT(Decoder):
    """Tokens → scores of the next one. The head is the embedding itself."""

    def __init__(self, cfg: OPTConfig):
        super().__init__()
        self.cfg = cfg
        self.tokens = TokenEmbedding(cfg.vocab_size, cfg.width)
        self.positions = nn.Embedding(cfg.context + FIRST_POSITION, cfg.width)
        self.blocks = nn.ModuleList(
            Block(cfg.width, cfg.num_heads, cfg.mlp_width, act="relu", eps=EPS) for _ in range(cfg.num_layers)
        )
        self.norm = LayerNorm(cfg.width, EPS)
        self.init_weights()

    def init_weights(self) -> None:
        """N(0, 0.006) for embeddings and linear layers (Sec. 2.2), whose biases begin at 0."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.006)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def embed(self, tokens: Int[Tensor, "B S"]) -> Float[Tensor, "B S D"]:
        """The tokens' vectors; those of their positions are added by `lay_out`."""
        return self.tokens(tokens)

    def lay_out(self, x: Float[Tensor, "B S D"], real: Bool[Tensor, "B S"], cache: Cache | None = None) -> Layers:
        """Positions put in, masks and cache tied to the blocks."""
        places = Places.of(real, cache)
        x = x + self.positions(places.positions + FIRST_POSITION)
        blocks = [partial(block, mask=places.mask, remember=places.remember(i)) for i, block in enumerate(self.blocks)]
        return Layers(x, blocks, places.cache)

    def logits(self, hidden: Float[Tensor, "*B D"]) -> Float[Tensor, "*B V"]:
        """Scores over the vocabulary."""
        return self.tokens.scores(hidden)


def keys(cfg: OPTConfig) -> KeyMap:
    """The names of an `OPTForCausalLM`; the first releases have them without `model.`."""
    layer, block = "model.decoder.layers.{i}.", "blocks.{i}."
    pairs = [
        ("self_attn_layer_norm", "norm1"),
        *((f"self_attn.{n}_proj", f"attn.{n}") for n in "qkv"),
        ("self_attn.out_proj", "attn.out"),
        ("final_layer_norm", "norm2"),
        ("fc1", "mlp.up"),
        ("fc2", "mlp.down"),
    ]
    rows: list[Row] = [
        ("model.decoder.embed_tokens.weight", "tokens.weight"),
        ("model.decoder.embed_positions.weight", "positions.weight"),
        ("model.decoder.final_layer_norm.{p}", "norm.{p}"),
        *((layer + theirs + ".{p}", block + ours + ".{p}") for theirs, ours in pairs),
    ]
    return KeyMap(rows, ignore=["lm_head.weight"], also=[("decoder.", "model.decoder.")])


def read_transformers(data: Mapping[str, Any]) -> OPTConfig:
    """`config.json` of an `OPTForCausalLM`; absent fields mean that library's defaults."""
    fields = Released(data)
    for name in ("do_layer_norm_before", "enable_bias", "layer_norm_elementwise_affine"):
        fields.demand(name, True)
    fields.demand("_remove_final_layer_norm", False)
    fields.demand("activation_function", "relu")
    fields.skip("layerdrop", "init_std", "prefix", "bos_token_id", "eos_token_id", "pad_token_id", "do_sample")
    cfg = OPTConfig(
        width=fields.size("hidden_size", 768),
        num_layers=fields.layers("num_hidden_layers", 12),
        num_heads=fields.size("num_attention_heads", 12),
        mlp_width=fields.size("ffn_dim", 3072),
        vocab_size=fields.size("vocab_size", 50_272),
        context=fields.size("max_position_embeddings", 2048),
    )
    fields.demand("word_embed_proj_dim", cfg.width)
    fields.finish()
    if cfg.width % cfg.num_heads:
        raise BadConfig(f"{fields.where}: {cfg.num_heads} heads do not divide a width of {cfg.width}")
    return cfg


def write_transformers(cfg: OPTConfig) -> dict[str, Any]:
    """The `config.json` from which the reference class builds the same network."""
    return {
        "architectures": ["OPTForCausalLM"],
        "model_type": "opt",
        "hidden_size": cfg.width,
        "num_hidden_layers": cfg.num_layers,
        "num_attention_heads": cfg.num_heads,
        "ffn_dim": cfg.mlp_width,
        "vocab_size": cfg.vocab_size,
        "max_position_embeddings": cfg.context,
        "word_embed_proj_dim": cfg.width,
    }


def text_spec(cfg: OPTConfig) -> TextSpec:
    """</s> before a text, and after it."""
    return TextSpec(context=cfg.context, generates=True, vocab_size=cfg.vocab_size, pad_id=1, bos_id=2, eos_id=2)


SYSTEM = System(
    name="opt",
    network=OPT,
    config=OPTConfig,
    presets=PRESETS,
    layouts={
        "transformers": Layout(
            name="transformers", keys=keys, read_config=read_transformers, write_config=write_transformers
        )
    },
    text_spec=text_spec,
    objective="next token",
)
