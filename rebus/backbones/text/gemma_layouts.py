"""Gemma 1 and 2 in released files: configuration and names in the transformers layout, alone or inside PaliGemma."""

from collections.abc import Mapping
from typing import Any

from rebus.backbones.text.gemma import Gemma, GemmaConfig
from rebus.core.errors import BadConfig
from rebus.core.released_config import Released
from rebus.core.specs import TextSpec
from rebus.core.system import Layout, System
from rebus.weights.key_sides import Row
from rebus.weights.keymap import KeyMap

_LAYER_TYPES = ("sliding_attention", "full_attention")  # of even and of odd layers


def gemma_rows(cfg: GemmaConfig, theirs: str, ours: str) -> list[Row]:
    """`{theirs}layers.{i}.…` ⇄ `{ours}blocks.{i}.…`; the scores of the next token are read by the embeddings."""
    layer, block = theirs + "layers.{i}.", ours + "blocks.{i}."
    if cfg.generation == 1:  # here "post_attention" is the norm before the MLP; in Gemma 2 it is what it says
        norms = [("post_attention_layernorm", "norm2")]
    else:
        norms = [
            ("post_attention_layernorm", "norm_attn"),
            ("pre_feedforward_layernorm", "norm2"),
            ("post_feedforward_layernorm", "norm_mlp"),
        ]
    return [
        (theirs + "embed_tokens.weight", ours + "tokens.weight"),
        (theirs + "norm.weight", ours + "norm.weight"),
        (layer + "input_layernorm.weight", block + "norm1.weight"),
        *((layer + f"self_attn.{n}_proj.weight", block + f"attn.{n}.weight") for n in "qkv"),
        (layer + "self_attn.o_proj.weight", block + "attn.out.weight"),
        *((layer + f"mlp.{n}_proj.weight", block + f"mlp.{n}.weight") for n in ("gate", "up", "down")),
        *((layer + f"{a}.weight", block + f"{b}.weight") for a, b in norms),
    ]


def read_gemma(text: Released) -> GemmaConfig:
    """The fields of a `GemmaForCausalLM` or `Gemma2ForCausalLM`; absent ones mean that library's defaults."""
    second = text.data.get("model_type", "gemma") == "gemma2"
    defaults = (2304, 26, 8, 4, 9216) if second else (3072, 28, 16, 16, 24_576)
    head_width = text.size("head_dim", 256)
    for name in ("hidden_act", "hidden_activation"):
        text.demand(name, "gelu_pytorch_tanh")
    text.demand("attention_bias", False)
    text.demand("rope_scaling", None)
    text.skip("num_image_tokens", "pad_token_id", "bos_token_id", "eos_token_id", "use_bidirectional_attention")
    text.skip("cache_implementation")
    rope = text.part("rope_parameters")
    rope.demand("rope_type", "default")
    base = text.positive("rope_theta", rope.positive("rope_theta", 10_000.0))
    window = text.take("sliding_window", int | None, 4096) if second else None
    num_layers = text.layers("num_hidden_layers", defaults[1])
    kinds = text.take("layer_types", tuple[str, ...], ())
    if set(kinds) <= {"full_attention"}:
        window = None if kinds else window
    elif not second or kinds != tuple(_LAYER_TYPES[i % 2] for i in range(num_layers)):
        raise BadConfig(f"{text.where}.layer_types: only sliding and full attention in turn is supported; got {kinds}")
    rope.finish()
    return GemmaConfig(
        generation=2 if second else 1,
        width=text.size("hidden_size", defaults[0]),
        num_layers=num_layers,
        num_heads=text.size("num_attention_heads", defaults[2]),
        num_kv_heads=text.size("num_key_value_heads", defaults[3]),
        mlp_width=text.size("intermediate_size", defaults[4]),
        head_width=head_width,
        vocab_size=text.size("vocab_size", 256_000),
        context=text.size("max_position_embeddings", 8192),
        rope_base=base,
        eps=text.positive("rms_norm_eps", 1e-6),
        query_scale=text.positive("query_pre_attn_scalar", 256.0) if second else None,
        score_cap=text.take("attn_logit_softcapping", float | None, 50.0) if second else None,
        logit_cap=text.take("final_logit_softcapping", float | None, 30.0) if second else None,
        # 4096 is what the released files say because their class wants a value; the runs that made the weights
        # attended fully in every layer (big_vision), which differs at 896 px only
        window=None if window == 4096 else window,
    )


def write_gemma(cfg: GemmaConfig) -> dict[str, Any]:
    """The fields from which the reference class builds the same network."""
    second = cfg.generation == 2
    scale = cfg.query_scale or cfg.head_width
    caps = {
        "query_pre_attn_scalar": int(scale) if scale == int(scale) else scale,  # the reference wants whole numbers
        "attn_logit_softcapping": cfg.score_cap,
        "final_logit_softcapping": cfg.logit_cap,
        "sliding_window": cfg.window or 4096,
    }
    return {
        "model_type": "gemma2" if second else "gemma",
        "hidden_size": cfg.width,
        "num_hidden_layers": cfg.num_layers,
        "num_attention_heads": cfg.num_heads,
        "num_key_value_heads": cfg.num_kv_heads,
        "head_dim": cfg.head_width,
        "intermediate_size": cfg.mlp_width,
        "vocab_size": cfg.vocab_size,
        "max_position_embeddings": cfg.context,
        "rope_theta": cfg.rope_base,
        "rms_norm_eps": cfg.eps,
        "hidden_activation": "gelu_pytorch_tanh",
        **(caps if second else {"hidden_act": "gelu_pytorch_tanh"}),
    }


def _read(data: Mapping[str, Any]) -> GemmaConfig:
    fields = Released(data)
    cfg = read_gemma(fields)
    fields.finish()
    return cfg


def _write(cfg: GemmaConfig) -> dict[str, Any]:
    return {"architectures": [f"Gemma{'2' if cfg.generation == 2 else ''}ForCausalLM"], **write_gemma(cfg)}


def text_spec(cfg: GemmaConfig) -> TextSpec:
    """BOS, text; EOS ends what is generated."""
    return TextSpec(context=cfg.context, generates=True, vocab_size=cfg.vocab_size, pad_id=0, bos_id=2, eos_id=1)


_TINY = {"width": 24, "num_layers": 2, "num_heads": 4, "num_kv_heads": 1, "head_width": 8, "mlp_width": 48}
SYSTEM = System(
    name="gemma",
    network=Gemma,
    config=GemmaConfig,
    presets={"tiny": GemmaConfig(vocab_size=96, **_TINY)},  # type: ignore[arg-type]
    layouts={
        "transformers": Layout(
            name="transformers",
            keys=lambda cfg: KeyMap(gemma_rows(cfg, "model.", ""), ignore=["lm_head.weight"]),
            read_config=_read,
            write_config=_write,
        )
    },
    text_spec=text_spec,
)
