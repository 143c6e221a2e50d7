"""GPT-NeoX: a decoder with rotary positions on a part of each head, whose attention and MLP may work side by side.

Black et al., "GPT-NeoX-20B: An Open-Source Autoregressive Language Model", 2022. Pythia and RedPajama-INCITE have the
same architecture; the latter turns whole heads and works one after the other.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rebus.backbones.text.causal import Decoder, Layers, Places
from rebus.core.errors import BadConfig
from rebus.core.released_config import ACT_TO_RELEASED, Released, read_act
from rebus.core.specs import TextSpec
from rebus.core.system import Layout, System
from rebus.nn.attention import Attention, Remember, Rope
from rebus.nn.cache import Cache
from rebus.nn.embedding import TokenEmbedding
from rebus.nn.linear import Linear
from rebus.nn.mlp import MLP
from rebus.nn.norms import LayerNorm
from rebus.nn.rope import rope_table
from rebus.weights.key_sides import Row, interleaved_qkv
from rebus.weights.keymap import KeyMap


@dataclass(frozen=True, kw_only=True)
class GPTNeoXConfig:
    width: int = 6144
    num_layers: int = 44
    num_heads: int = 64
    mlp_width: int = 24_576
    vocab_size: int = 50_432
    context: int = 2048
    rope_share: float = 0.25  # of each head, that turns with the position
    rope_base: float = 10_000.0
    parallel: bool = True  # attention and MLP read the same states
    act: Literal["gelu", "gelu_tanh"] = "gelu"
    eps: float = 1e-5

    @property
    def rope_width(self) -> int:
        return int(self.width // self.num_heads * self.rope_share)


PRESETS = {
    "tiny": GPTNeoXConfig(width=24, num_layers=2, num_heads=3, mlp_width=40, vocab_size=96, context=64, rope_share=0.5),
    "pythia_410m": GPTNeoXConfig(width=1024, num_layers=24, num_heads=16, mlp_width=4096, vocab_size=50_304),
    "redpajama_3b": GPTNeoXConfig(
        width=2560, num_layers=32, num_heads=32, mlp_width=10_240, rope_share=1.0, parallel=False
    ),
    "20b": GPTNeoXConfig(),
}


class GPTNeoXBlock(nn.Module):
    """x + attn(norm1(x)) + mlp(norm2(x)); or one after the other."""

    split_parts = ("attn", "mlp")

    def __init__(self, cfg: GPTNeoXConfig):
        super().__init__()
        self.parallel = cfg.parallel
        self.norm1 = LayerNorm(cfg.width, cfg.eps)
        self.attn = Attention(cfg.width, cfg.num_heads)
        self.norm2 = LayerNorm(cfg.width, cfg.eps)
        self.mlp = MLP(cfg.width, cfg.mlp_width, cfg.act)

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
        attended = x + self.attn(self.norm1(x), mask=mask, rope=rope, remember=remember)
        return attended + self.mlp(self.norm2(x if self.parallel else attended))


class GPTNeoX(Decoder):
    """Tokens → scores of the next one, by a head of its own."""

    def __init__(self, cfg: GPTNeoXConfig):
        super().__init__()
        self.cfg = cfg
        self.tokens = TokenEmbedding(cfg.vocab_size, cfg.width)
        self.blocks = nn.ModuleList(GPTNeoXBlock(cfg) for _ in range(cfg.num_layers))
        self.norm = LayerNorm(cfg.width, cfg.eps)
        self.head = Linear(cfg.width, cfg.vocab_size, bias=False)
        self.init_weights()

    def init_weights(self) -> None:
        """N(0, 0.02) for embeddings and linear layers, whose biases begin at 0."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def embed(self, tokens: Int[Tensor, "B S"]) -> Float[Tensor, "B S D"]:
        """The tokens' vectors; where they stand is added by `lay_out`."""
        return self.tokens(tokens)

    def lay_out(self, x: Float[Tensor, "B S D"], real: Bool[Tensor, "B S"], cache: Cache | None = None) -> Layers:
        """Positions, masks and cache tied to the blocks."""
        places = Places.of(real, cache)
        rope = rope_table(places.positions, self.cfg.rope_width, self.cfg.rope_base, x.dtype)
        blocks = [
            partial(block, mask=places.mask, rope=rope, remember=places.remember(i))
            for i, block in enumerate(self.blocks)
        ]
        return Layers(x, blocks, places.cache)

    def logits(self, hidden: Float[Tensor, "*B D"]) -> Float[Tensor, "*B V"]:
        """Scores over the vocabulary."""
        return self.head(hidden)


def keys(cfg: GPTNeoXConfig) -> KeyMap:
    """The names of a `GPTNeoXForCausalLM`; old files hold causal masks and rotary tables too."""
    layer, block = "gpt_neox.layers.{i}.", "blocks.{i}."
    qkv = tuple(block + f"attn.{n}.{{p}}" for n in "qkv")
    rows: list[Row] = [
        ("gpt_neox.embed_in.weight", "tokens.weight"),
        ("gpt_neox.final_layer_norm.{p}", "norm.{p}"),
        ("embed_out.weight", "head.weight"),
        (layer + "input_layernorm.{p}", block + "norm1.{p}"),
        (layer + "post_attention_layernorm.{p}", block + "norm2.{p}"),
        (interleaved_qkv(layer + "attention.query_key_value.{p}", cfg.num_heads), qkv),
        (layer + "attention.dense.{p}", block + "attn.out.{p}"),
        (layer + "mlp.dense_h_to_4h.{p}", block + "mlp.up.{p}"),
        (layer + "mlp.dense_4h_to_h.{p}", block + "mlp.down.{p}"),
    ]
    ignore = ["*.attention.bias", "*.attention.masked_bias", "*.rotary_emb.inv_freq"]
    return KeyMap(rows, ignore=ignore, also=[("lm_head.", "embed_out.")])


def read_transformers(data: Mapping[str, Any]) -> GPTNeoXConfig:
    """`config.json` of a `GPTNeoXForCausalLM`; absent fields mean that library's defaults."""
    fields = Released(data)
    fields.demand("attention_bias", True)
    fields.demand("tie_word_embeddings", False)
    fields.demand("rope_scaling", None)
    fields.skip("hidden_dropout", "classifier_dropout", "bos_token_id", "eos_token_id", "pad_token_id")
    rope = fields.part("rope_parameters")
    rope.demand("rope_type", "default")
    base = fields.positive("rotary_emb_base", rope.positive("rope_theta", 10_000.0))
    share = fields.positive("rotary_pct", rope.positive("partial_rotary_factor", 0.25))
    rope.finish()
    cfg = GPTNeoXConfig(
        width=fields.size("hidden_size", 6144),
        num_layers=fields.layers("num_hidden_layers", 44),
        num_heads=fields.size("num_attention_heads", 64),
        mlp_width=fields.size("intermediate_size", 24_576),
        vocab_size=fields.size("vocab_size", 50_432),
        context=fields.size("max_position_embeddings", 2048),
        rope_share=share,
        rope_base=base,
        parallel=fields.take("use_parallel_residual", bool, True),
        act=read_act(fields, "hidden_act", "gelu"),  # type: ignore[arg-type]
        eps=fields.positive("layer_norm_eps", 1e-5),
    )
    fields.finish()
    if cfg.width % cfg.num_heads or cfg.rope_width % 2 or share > 1:
        raise BadConfig(
            f"{fields.where}: {cfg.num_heads} heads must divide a width of {cfg.width}, and an even share of each must "
            f"turn; got a share of {share:g}"
        )
    return cfg


def write_transformers(cfg: GPTNeoXConfig) -> dict[str, Any]:
    """The `config.json` from which the reference class builds the same network."""
    return {
        "architectures": ["GPTNeoXForCausalLM"],
        "model_type": "gpt_neox",
        "hidden_size": cfg.width,
        "num_hidden_layers": cfg.num_layers,
        "num_attention_heads": cfg.num_heads,
        "intermediate_size": cfg.mlp_width,
        "vocab_size": cfg.vocab_size,
        "max_position_embeddings": cfg.context,
        "rotary_pct": cfg.rope_share,
        "rotary_emb_base": cfg.rope_base,
        "use_parallel_residual": cfg.parallel,
        "hidden_act": ACT_TO_RELEASED[cfg.act],
        "layer_norm_eps": cfg.eps,
        "tie_word_embeddings": False,
    }


def text_spec(cfg: GPTNeoXConfig) -> TextSpec:
    """Text as it is; <|endoftext|>, id 0, ends it and pads."""
    return TextSpec(context=cfg.context, generates=True, vocab_size=cfg.vocab_size, pad_id=0, eos_id=0)


SYSTEM = System(
    name="gpt_neox",
    network=GPTNeoX,
    config=GPTNeoXConfig,
    presets=PRESETS,
    layouts={
        "transformers": Layout(
            name="transformers", keys=keys, read_config=read_transformers, write_config=write_transformers
        )
    },
    text_spec=text_spec,
    objective="next token",
)
