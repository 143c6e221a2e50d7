"""GPT-2: a decoder that normalises before attention and before the MLP, with a learned vector for each position.

Radford et al., "Language Models are Unsupervised Multitask Learners", 2019.

The parts are open (`rebus.backbones.text.causal.Decoder`), so that a model which puts images into the sequence writes
its own forward over them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rebus.backbones.text.causal import Decoder, Layers, Places
from rebus.core.released_config import Released, read_act
from rebus.core.specs import TextSpec
from rebus.core.system import Layout, System
from rebus.nn.block import Block
from rebus.nn.cache import Cache
from rebus.nn.embedding import TokenEmbedding
from rebus.nn.norms import LayerNorm
from rebus.weights.key_sides import Row, Transposed
from rebus.weights.keymap import KeyMap


@dataclass(frozen=True, kw_only=True)
class GPT2Config:
    width: int = 768
    num_layers: int = 12
    num_heads: int = 12
    mlp_width: int = 3072
    vocab_size: int = 50_257
    context: int = 1024
    act: Literal["gelu", "gelu_tanh"] = "gelu_tanh"
    eps: float = 1e-5


PRESETS = {
    "tiny": GPT2Config(width=24, num_layers=2, num_heads=3, mlp_width=40, vocab_size=96, context=64),
    "small": GPT2Config(),
    "medium": GPT2Config(width=1024, num_layers=24, num_heads=16, mlp_width=4096),
    "large": GPT2Config(width=1280, num_layers=36, num_heads=20, mlp_width=5120),
    "xl": GPT2Config(width=1600, num_layers=48, num_heads=25, mlp_width=6400),
}


class GPT2(Decoder):
    """Tokens → scores of the next one. The head is the embedding itself."""

    def __init__(self, cfg: GPT2Config):
        super().__init__()
        self.cfg = cfg
        self.tokens = TokenEmbedding(cfg.vocab_size, cfg.width)
        self.positions = nn.Embedding(cfg.context, cfg.width)
        self.blocks = nn.ModuleList(
            Block(cfg.width, cfg.num_heads, cfg.mlp_width, act=cfg.act, eps=cfg.eps) for _ in range(cfg.num_layers)
        )
        self.norm = LayerNorm(cfg.width, cfg.eps)
        self.init_weights()

    def init_weights(self) -> None:
        """N(0, 0.02), what is added to the residual path by 1/√(2 · layers) less (Sec. 2.3); positions N(0, 0.01)."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                added = name.endswith(("attn.out", "mlp.down"))
                nn.init.normal_(module.weight, std=0.02 * ((2 * self.cfg.num_layers) ** -0.5 if added else 1.0))
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.tokens.weight, std=0.02)
        nn.init.normal_(self.positions.weight, std=0.01)

    def embed(self, tokens: Int[Tensor, "B S"]) -> Float[Tensor, "B S D"]:
        """The tokens' vectors; those of their positions are added by `lay_out`."""
        return self.tokens(tokens)

    def lay_out(self, x: Float[Tensor, "B S D"], real: Bool[Tensor, "B S"], cache: Cache | None = None) -> Layers:
        """Positions put in, masks and cache tied to the blocks."""
        places = Places.of(real, cache)
        x = x + self.positions(places.positions)
        blocks = [partial(block, mask=places.mask, remember=places.remember(i)) for i, block in enumerate(self.blocks)]
        return Layers(x, blocks, places.cache)

    def logits(self, hidden: Float[Tensor, "*B D"]) -> Float[Tensor, "*B V"]:
        """Scores over the vocabulary."""
        return self.tokens.scores(hidden)


_LAYER, _BLOCK = "transformer.h.{i}.", "blocks.{i}."
_QKV = tuple(_BLOCK + f"attn.{n}" for n in "qkv")
ROWS: list[Row] = [
    ("transformer.wte.weight", "tokens.weight"),
    ("transformer.wpe.weight", "positions.weight"),
    ("transformer.ln_f.{p}", "norm.{p}"),
    (_LAYER + "ln_1.{p}", _BLOCK + "norm1.{p}"),
    (_LAYER + "ln_2.{p}", _BLOCK + "norm2.{p}"),
    (Transposed(_LAYER + "attn.c_attn.weight"), tuple(name + ".weight" for name in _QKV)),
    (_LAYER + "attn.c_attn.bias", tuple(name + ".bias" for name in _QKV)),
    *(
        row
        for theirs, ours in (("attn.c_proj", "attn.out"), ("mlp.c_fc", "mlp.up"), ("mlp.c_proj", "mlp.down"))
        for row in (
            (Transposed(_LAYER + theirs + ".weight"), _BLOCK + ours + ".weight"),
            (_LAYER + theirs + ".bias", _BLOCK + ours + ".bias"),
        )
    ),
]


def keys(cfg: GPT2Config) -> KeyMap:
    """The names of a `GPT2LMHeadModel`; the first releases have them without `transformer.` and hold causal masks."""
    return KeyMap(
        ROWS,
        ignore=["lm_head.weight", "*.attn.bias", "*.attn.masked_bias"],
        prefixes=["model."],
        also=[(part, "transformer." + part) for part in ("wte.", "wpe.", "h.", "ln_f.")],
    )


def read_transformers(data: Mapping[str, Any]) -> GPT2Config:
    """`config.json` of a `GPT2LMHeadModel`; absent fields mean that library's defaults."""
    fields = Released(data)
    fields.demand("scale_attn_weights", True)
    fields.demand("scale_attn_by_inverse_layer_idx", False)
    fields.skip("reorder_and_upcast_attn", "n_ctx", "resid_pdrop", "embd_pdrop", "attn_pdrop")
    fields.skip("bos_token_id", "eos_token_id", "pad_token_id")
    fields.skip(*(f"summary_{name}" for name in "type use_proj activation proj_to_labels first_dropout".split()))
    width = fields.size("n_embd", 768)
    cfg = GPT2Config(
        width=width,
        num_layers=fields.layers("n_layer", 12),
        num_heads=fields.size("n_head", 12),
        mlp_width=fields.size("n_inner", 4 * width),
        vocab_size=fields.size("vocab_size", 50_257),
        context=fields.size("n_positions", 1024),
        act=read_act(fields, "activation_function", "gelu_new"),  # type: ignore[arg-type]
        eps=fields.positive("layer_norm_epsilon", 1e-5),
    )
    fields.finish()
    return cfg


def write_transformers(cfg: GPT2Config) -> dict[str, Any]:
    """The `config.json` from which the reference class builds the same network."""
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "n_embd": cfg.width,
        "n_layer": cfg.num_layers,
        "n_head": cfg.num_heads,
        "n_inner": cfg.mlp_width,
        "vocab_size": cfg.vocab_size,
        "n_positions": cfg.context,
        "activation_function": "gelu_new" if cfg.act == "gelu_tanh" else cfg.act,
        "layer_norm_epsilon": cfg.eps,
    }


def text_spec(cfg: GPT2Config) -> TextSpec:
    """Text as it is; the last id of the first 50,257, <|endoftext|>, ends it and pads."""
    end = min(cfg.vocab_size, 50_257) - 1
    return TextSpec(context=cfg.context, generates=True, vocab_size=cfg.vocab_size, pad_id=end, eos_id=end)


SYSTEM = System(
    name="gpt2",
    network=GPT2,
    config=GPT2Config,
    presets=PRESETS,
    layouts={
        "transformers": Layout(
            name="transformers", keys=keys, read_config=read_transformers, write_config=write_transformers
        )
    },
    text_spec=text_spec,
    objective="next token",
)
