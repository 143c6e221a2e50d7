"""Llama in released files: configuration and names of transformers and of GGUF."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from rebus.backbones.text.llama import Llama, LlamaConfig
from rebus.core.errors import BadConfig
from rebus.core.released_config import Released
from rebus.core.specs import TextSpec
from rebus.core.system import Layout, System
from rebus.weights.key_sides import Row, rotary_pairs
from rebus.weights.keymap import KeyMap

_SMOL = LlamaConfig(vocab_size=49_152, context=8192, head_width=64, rope_base=1e5, tied=True)
PRESETS = {
    "tiny": LlamaConfig(
        width=24, num_layers=2, num_heads=4, num_kv_heads=2, head_width=6, mlp_width=48, vocab_size=96, context=64
    ),
    "smollm2_135m": replace(_SMOL, width=576, num_layers=30, num_heads=9, num_kv_heads=3, mlp_width=1536),
    "smollm2_360m": replace(_SMOL, width=960, num_layers=32, num_heads=15, num_kv_heads=5, mlp_width=2560),
    "smollm2_1b7": replace(_SMOL, width=2048, num_layers=24, mlp_width=8192, rope_base=1.3e5),
    "tinyllama_1b1": LlamaConfig(
        width=2048, num_layers=22, num_kv_heads=4, head_width=64, mlp_width=5632, context=2048
    ),
    "llama2_7b": LlamaConfig(),
    "llama2_13b": LlamaConfig(width=5120, num_layers=40, num_heads=40, num_kv_heads=40, mlp_width=13_824),
    "llama3_8b": LlamaConfig(num_kv_heads=8, mlp_width=14_336, vocab_size=128_256, context=8192, rope_base=5e5),
}


def llama_rows(cfg: LlamaConfig, theirs: str, ours: str) -> list[Row]:
    """`{theirs}layers.{i}.…` ⇄ `{ours}blocks.{i}.…`, without the head."""
    layer, block = theirs + "layers.{i}.", ours + "blocks.{i}."
    return [
        (theirs + "embed_tokens.weight", ours + "tokens.weight"),
        (theirs + "norm.weight", ours + "norm.weight"),
        (layer + "input_layernorm.weight", block + "norm1.weight"),
        *((layer + f"self_attn.{n}_proj.weight", block + f"attn.{n}.weight") for n in "qkv"),
        *((layer + f"self_attn.{n}_norm.{{p}}", block + f"attn.{n}_norm.{{p}}") for n in "qk" if cfg.qk_norm),
        (layer + "self_attn.o_proj.weight", block + "attn.out.weight"),
        (layer + "post_attention_layernorm.weight", block + "norm2.weight"),
        *((layer + f"mlp.{n}_proj.weight", block + f"mlp.{n}.weight") for n in ("gate", "up", "down")),
    ]


def keys(cfg: LlamaConfig) -> KeyMap:
    """The names of a `LlamaForCausalLM`. A tied head is the embeddings again, and old files hold rotary tables."""
    head: list[Row] = [] if cfg.tied else [("lm_head.weight", "head.weight")]
    ignore = ["*.rotary_emb.inv_freq", *(["lm_head.weight"] if cfg.tied else [])]
    return KeyMap([*llama_rows(cfg, "model.", ""), *head], ignore=ignore)


def read_transformers(data: Mapping[str, Any]) -> LlamaConfig:
    """`config.json` of a `LlamaForCausalLM`; absent fields mean that library's defaults."""
    fields = Released(data)
    fields.demand("hidden_act", "silu")
    fields.demand("attention_bias", False)
    fields.demand("mlp_bias", False)
    fields.demand("rope_scaling", None)
    fields.skip("pad_token_id", "bos_token_id", "eos_token_id", "pretraining_tp", "is_llama_config", "rope_interleaved")
    fields.skip("transformers.js_config")
    rope = fields.part("rope_parameters")
    rope.demand("rope_type", "default")
    base = fields.positive("rope_theta", rope.positive("rope_theta", 10_000.0))
    rope.finish()
    width, heads = fields.size("hidden_size", 4096), fields.size("num_attention_heads", 32)
    cfg = LlamaConfig(
        width=width,
        num_layers=fields.layers("num_hidden_layers", 32),
        num_heads=heads,
        num_kv_heads=fields.size("num_key_value_heads", heads),
        head_width=fields.size("head_dim", max(width // heads, 1)),
        mlp_width=fields.size("intermediate_size", 11_008),
        vocab_size=fields.size("vocab_size", 32_000),
        context=fields.size("max_position_embeddings", 2048),
        rope_base=base,
        eps=fields.positive("rms_norm_eps", 1e-6),
        tied=fields.take("tie_word_embeddings", bool, False),
    )
    fields.finish()
    return _checked(cfg, fields.where)


def write_transformers(cfg: LlamaConfig) -> dict[str, Any]:
    """The `config.json` from which the reference class builds the same network."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
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
        "hidden_act": "silu",
        "tie_word_embeddings": cfg.tied,
    }


def gguf_keys(cfg: LlamaConfig) -> KeyMap:
    """The names of llama.cpp, which turns neighbouring rows of a head together and stores queries and keys so."""
    layer, block = "blk.{i}.", "blocks.{i}."
    head: list[Row] = [] if cfg.tied else [("output.weight", "head.weight")]
    return KeyMap(
        [
            ("token_embd.weight", "tokens.weight"),
            ("output_norm.weight", "norm.weight"),
            (layer + "attn_norm.weight", block + "norm1.weight"),
            (rotary_pairs(layer + "attn_q.weight", cfg.num_heads), block + "attn.q.weight"),
            (rotary_pairs(layer + "attn_k.weight", cfg.num_kv_heads), block + "attn.k.weight"),
            (layer + "attn_v.weight", block + "attn.v.weight"),
            (layer + "attn_output.weight", block + "attn.out.weight"),
            (layer + "ffn_norm.weight", block + "norm2.weight"),
            *((layer + f"ffn_{n}.weight", block + f"mlp.{n}.weight") for n in ("gate", "up", "down")),
            *head,
        ]
    )


def read_gguf(metadata: Mapping[str, Any], names: Collection[str]) -> LlamaConfig:
    """The fields `llama.…` of a GGUF file; the head is tied where the file has none (`output.weight`)."""
    own = {name.removeprefix("llama."): value for name, value in metadata.items() if name.startswith("llama.")}
    fields = Released(own, "llama")
    fields.demand("rope.scaling.type", "none")
    fields.demand("expert_count", 0)
    fields.demand("expert_used_count", 0)
    width, heads = fields.size("embedding_length"), fields.size("attention.head_count")
    head_width = fields.size("attention.key_length", max(width // heads, 1))
    for name in ("attention.value_length", "rope.dimension_count"):
        fields.demand(name, head_width)
    cfg = LlamaConfig(
        width=width,
        num_layers=fields.layers("block_count"),
        num_heads=heads,
        num_kv_heads=fields.size("attention.head_count_kv", heads),
        head_width=head_width,
        mlp_width=fields.size("feed_forward_length"),
        vocab_size=fields.size("vocab_size", len(metadata.get("tokenizer.ggml.tokens") or [0])),
        context=fields.size("context_length"),
        rope_base=_short(fields.positive("rope.freq_base", 10_000.0)),
        eps=_short(fields.positive("attention.layer_norm_rms_epsilon")),
        tied="output.weight" not in names,
    )
    fields.finish()
    return _checked(cfg, "llama")


def _short(value: float) -> float:
    """A number as it was written before it became a float32."""
    return float(f"{value:.7g}")


def _checked(cfg: LlamaConfig, where: str) -> LlamaConfig:
    if cfg.num_heads % cfg.num_kv_heads:
        raise BadConfig(f"{where}: {cfg.num_heads} heads of queries cannot share {cfg.num_kv_heads} of keys")
    if cfg.head_width % 2:
        raise BadConfig(f"{where}: rotary positions need heads of an even width; got {cfg.head_width}")
    return cfg


def text_spec(cfg: LlamaConfig) -> TextSpec:
    """<s> and text; </s> ends what is generated. The ids of Llama 2; a tokenizer's own settings go before them."""
    return TextSpec(context=cfg.context, generates=True, vocab_size=cfg.vocab_size, pad_id=0, bos_id=1, eos_id=2)


SYSTEM = System(
    name="llama",
    network=Llama,
    config=LlamaConfig,
    presets=PRESETS,
    layouts={
        "transformers": Layout(
            name="transformers", keys=keys, read_config=read_transformers, write_config=write_transformers
        ),
        "gguf": Layout(
            name="gguf",
            keys=gguf_keys,
            config_file=None,
            recognises=lambda metadata: metadata.get("general.architecture") == "llama",
            read_metadata=read_gguf,
        ),
    },
    text_spec=text_spec,
    objective="next token",
)
