"""T5, mT5, umT5, Flan-T5 and UL2 in released files."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rebus.backbones.text.t5 import T5, T5Config
from rebus.core.errors import BadConfig
from rebus.core.released_config import Released
from rebus.core.specs import TextSpec
from rebus.core.system import Layout, System
from rebus.weights.key_sides import Row
from rebus.weights.keymap import KeyMap

_T5 = T5Config(mlp="relu", tied=True)
_MT5 = T5Config(vocab_size=250_112, context=1024)


def _sized(cfg: T5Config, width: int, layers: int, heads: int, mlp: int, head_width: int = 64) -> T5Config:
    return replace(
        cfg,
        width=width,
        num_layers=layers,
        num_decoder_layers=layers,
        num_heads=heads,
        mlp_width=mlp,
        head_width=head_width,
    )


_TINY = T5Config(
    width=24, num_layers=2, num_decoder_layers=3, num_heads=3, head_width=6, mlp_width=40, vocab_size=96, num_buckets=8
)
PRESETS = {
    "tiny": replace(_TINY, tied=True, mlp="relu"),
    "tiny_gated": _TINY,
    "small": _sized(_T5, 512, 6, 8, 2048),
    "base": _sized(_T5, 768, 12, 12, 3072),
    "large": _sized(_T5, 1024, 24, 16, 4096),
    "3b": _sized(_T5, 1024, 24, 32, 16_384, head_width=128),
    "11b": _sized(_T5, 1024, 24, 128, 65_536, head_width=128),
    "v1_1_small": _sized(T5Config(), 512, 8, 6, 1024),  # and Flan-T5
    "v1_1_base": T5Config(),
    "v1_1_large": _sized(T5Config(), 1024, 24, 16, 2816),
    "v1_1_xl": _sized(T5Config(), 2048, 24, 32, 5120),
    "v1_1_xxl": _sized(T5Config(), 4096, 24, 64, 10_240),
    "mt5_small": _sized(_MT5, 512, 8, 6, 1024),
    "mt5_base": _MT5,
    "mt5_xl": _sized(_MT5, 2048, 24, 32, 5120),
    "ul2_20b": _sized(T5Config(mlp="gated silu"), 4096, 32, 16, 16_384, head_width=256),  # and Flan-UL2
}


def t5_rows(cfg: T5Config) -> list[Row]:
    """The names of a `T5ForConditionalGeneration` ⇄ ours."""
    rows: list[Row] = [("shared.weight", "tokens.weight")]
    if not cfg.tied:
        rows.append(("lm_head.weight", "head.weight"))
    for stack, last in (("encoder", 1), ("decoder", 2)):
        layer, block = f"{stack}.block.{{i}}.layer.", f"{stack}.blocks.{{i}}."
        parts = [("0.SelfAttention", "0.layer_norm", "attn", "norm1")]
        if stack == "decoder":
            parts.append(("1.EncDecAttention", "1.layer_norm", "cross", "norm2"))
        for attention, norm, ours, ours_norm in parts:
            rows += [(f"{layer}{attention}.{n}.weight", f"{block}{ours}.{n}.weight") for n in "qkv"]
            rows.append((f"{layer}{attention}.o.weight", f"{block}{ours}.out.weight"))
            rows.append((f"{layer}{norm}.weight", f"{block}{ours_norm}.weight"))
        ups = [("wi", "up")] if cfg.mlp == "relu" else [("wi_0", "gate"), ("wi_1", "up")]
        mlp = f"{layer}{last}.DenseReluDense."
        rows += [
            *((f"{mlp}{theirs}.weight", f"{block}mlp.{ours}.weight") for theirs, ours in (*ups, ("wo", "down"))),
            (f"{layer}{last}.layer_norm.weight", f"{block}norm3.weight"),
            (f"{layer}0.SelfAttention.relative_attention_bias.weight", f"{stack}.relative.{{i}}.weight"),
            (f"{stack}.final_layer_norm.weight", f"{stack}.norm.weight"),
        ]
    return rows


# Copies of the embeddings, and a table that the first releases hold and nobody reads.
T5_IGNORED = (
    "encoder.embed_tokens.weight",
    "decoder.embed_tokens.weight",
    "*.EncDecAttention.relative_attention_bias.*",
)


def keys(cfg: T5Config) -> KeyMap:
    """The names of a `T5ForConditionalGeneration`; a tied head is the embeddings again."""
    return KeyMap(t5_rows(cfg), ignore=[*T5_IGNORED, *(["lm_head.weight"] if cfg.tied else [])])


def with_head(arrays: Mapping[str, Any]) -> Mapping[str, Any]:
    """A file without a head, as the reference library writes one that is tied, means the embeddings."""
    if "lm_head.weight" in arrays or "shared.weight" not in arrays:
        return arrays
    return {**arrays, "lm_head.weight": arrays["shared.weight"]}


_MLPS = {"relu": "relu", "gated-gelu": "gated gelu", "gated-silu": "gated silu"}


def read_t5(fields: Released) -> T5Config:
    """The fields of a `T5Config`, `MT5Config` or `UMT5Config`; absent ones mean that library's defaults.

    Whether scores are divided by √width is what the flag for a tied head says in released files. The reference library
    since version 5 ties always and keeps the flag under another name; a head that was tied so is a copy here.
    """
    kind = fields.take("model_type", str, "t5")
    spelled = fields.take("feed_forward_proj", str, "relu" if kind == "t5" else "gated-gelu")
    if spelled not in _MLPS:
        raise BadConfig(f"{fields.where}.feed_forward_proj: expected one of {', '.join(_MLPS)}; got {spelled!r}")
    fields.demand("is_encoder_decoder", True)
    fields.demand("pad_token_id", 0)
    fields.demand("eos_token_id", 1)
    fields.skip("dense_act_fn", "is_gated_act", "dropout_rate", "classifier_dropout", "bos_token_id", "output_past")
    tied = fields.take("tie_word_embeddings", bool, True) and fields.take("scale_decoder_outputs", bool, True)
    layers = fields.layers("num_layers", 6 if kind == "t5" else 8)
    cfg = T5Config(
        width=fields.size("d_model", 512),
        num_layers=layers,
        num_decoder_layers=fields.layers("num_decoder_layers", layers),
        num_heads=fields.size("num_heads", 8 if kind == "t5" else 6),
        head_width=fields.size("d_kv", 64),
        mlp_width=fields.size("d_ff", 2048 if kind == "t5" else 1024),
        mlp=_MLPS[spelled],  # type: ignore[arg-type]
        vocab_size=fields.size("vocab_size", 32_128 if kind == "t5" else 250_112),
        context=fields.size("n_positions", 512),
        tied=tied and kind == "t5",
        num_buckets=fields.size("relative_attention_num_buckets", 32),
        max_distance=fields.size("relative_attention_max_distance", 128),
        own_positions=kind == "umt5",
        eps=fields.positive("layer_norm_epsilon", 1e-6),
        start_id=fields.take("decoder_start_token_id", int, 0),
    )
    if cfg.num_buckets < 4 or cfg.num_buckets % 4 or cfg.max_distance <= cfg.num_buckets // 2:
        raise BadConfig(
            f"{fields.where}: {cfg.num_buckets} buckets for distances to {cfg.max_distance}; they are a multiple of 4, "
            "and fewer than twice the distances"
        )
    return cfg


def read_transformers(data: Mapping[str, Any]) -> T5Config:
    """`config.json` of a `T5ForConditionalGeneration` or one of its kin. Raises `BadConfig`."""
    fields = Released(data)
    cfg = read_t5(fields)
    fields.finish()
    return cfg


def write_t5(cfg: T5Config) -> dict[str, Any]:
    """The fields from which the reference class builds the same network, and its `model_type`."""
    return {
        "model_type": "umt5" if cfg.own_positions else "t5",
        "d_model": cfg.width,
        "d_kv": cfg.head_width,
        "d_ff": cfg.mlp_width,
        "num_layers": cfg.num_layers,
        "num_decoder_layers": cfg.num_decoder_layers,
        "num_heads": cfg.num_heads,
        "vocab_size": cfg.vocab_size,
        "n_positions": cfg.context,
        "feed_forward_proj": next(theirs for theirs, ours in _MLPS.items() if ours == cfg.mlp),
        "tie_word_embeddings": cfg.tied,
        "relative_attention_num_buckets": cfg.num_buckets,
        "relative_attention_max_distance": cfg.max_distance,
        "layer_norm_epsilon": cfg.eps,
        "is_encoder_decoder": True,
        "decoder_start_token_id": cfg.start_id,
        "pad_token_id": 0,
        "eos_token_id": 1,
    }


def write_transformers(cfg: T5Config) -> dict[str, Any]:
    """The `config.json` from which the reference class builds the same network."""
    fields = write_t5(cfg)
    return {"architectures": [f"{'UMT5' if cfg.own_positions else 'T5'}ForConditionalGeneration"], **fields}


def text_spec(cfg: T5Config) -> TextSpec:
    """Prompts and answers end with </s>; the decoder adds its own start token. The sentinels of masked spans come after
    the sentencepiece file of the first vocabulary, <extra_id_0> last; later files hold their own."""
    sentinels = tuple(f"<extra_id_{i}>" for i in reversed(range(100)))
    return TextSpec(
        context=cfg.context,
        generates=True,
        vocab_size=cfg.vocab_size,
        pad_id=0,
        eos_id=1,
        eos_after_prompt=True,
        added_tokens=sentinels if cfg.vocab_size == 32_128 else (),
    )


SYSTEM = System(
    name="t5",
    network=T5,
    config=T5Config,
    presets=PRESETS,
    layouts={
        "transformers": Layout(
            name="transformers",
            keys=keys,
            read_config=read_transformers,
            write_config=write_transformers,
            prepare=with_head,
        )
    },
    text_spec=text_spec,
    objective="next token",
)
