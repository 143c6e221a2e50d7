"""Chameleon in released files: transformers' form, with the decoder of images (Anole) or without (Meta)."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from rebus.backbones.text.llama import LlamaConfig
from rebus.backbones.text.llama_layouts import llama_rows
from rebus.backbones.vision.vqgan import ROWS, VQGANConfig
from rebus.core.errors import BadConfig
from rebus.core.released_config import Released
from rebus.models.early_fusion.chameleon_config import ChameleonConfig
from rebus.weights.key_sides import nested
from rebus.weights.keymap import KeyMap

_BEGIN, _END, _IMAGE = "<racm3:break>", "<eoss>", "<image>"
_SPECIAL = {
    "pad_id": "<pad>",
    "bos_id": "<s>",
    "eos_id": "</s>",
    "begin_id": _BEGIN,
    "end_id": _END,
    "image_id": _IMAGE,
}
_LETTERS = str.maketrans("0123456789", "ABCDEFGHIJ")


def code_name(code: int) -> str:
    """The token of a code: 53 → "IMGIMGFDZ"."""
    return f"IMGIMG{str(code).translate(_LETTERS)}Z"


def keys(cfg: ChameleonConfig) -> KeyMap:
    """The names of a `ChameleonForConditionalGeneration`; Anole's has the decoder beside the encoder."""
    return KeyMap(
        [
            *nested(ROWS, theirs="model.vqmodel.", ours="image."),
            *llama_rows(cfg.text, "model.", "text."),
            ("lm_head.weight", "text.head.weight"),
        ],
        ignore=["*.rotary_emb.inv_freq"],
    )


def with_decoder(cfg: ChameleonConfig, names: Collection[str]) -> ChameleonConfig:
    """Anole's configuration is Meta's, letter for letter: whether there is a decoder, its weights tell."""
    return replace(cfg, draws=any(name.startswith("model.vqmodel.decoder.") for name in names))


def read_transformers(data: Mapping[str, Any]) -> ChameleonConfig:
    """`config.json` of a `ChameleonForConditionalGeneration`; absent fields mean that library's defaults."""
    top = Released(data)
    top.demand("hidden_act", "silu")
    for name in ("attention_bias", "mlp_bias", "tie_word_embeddings"):
        top.demand(name, False)
    top.demand("rope_scaling", None)
    top.skip("model_parallel_size", "pad_token_id", "bos_token_id", "eos_token_id", "image_token_id")
    rope = top.part("rope_parameters")
    rope.demand("rope_type", "default")
    base = top.positive("rope_theta", rope.positive("rope_theta", 10_000.0))
    rope.finish()
    width, heads = top.size("hidden_size", 4096), top.size("num_attention_heads", 32)
    text = LlamaConfig(
        width=width,
        num_layers=top.layers("num_hidden_layers", 32),
        num_heads=heads,
        num_kv_heads=top.size("num_key_value_heads", 32),
        head_width=max(width // heads, 1),
        mlp_width=top.size("intermediate_size", 11_008),
        vocab_size=top.size("vocab_size", 65_536),
        context=top.size("max_position_embeddings", 4096),
        rope_base=base,
        eps=top.positive("rms_norm_eps", 1e-5),
        qk_norm=True,
        norm_after=top.take("swin_norm", bool, False),
    )
    if text.width % heads or text.num_heads % text.num_kv_heads or text.head_width % 2:
        raise BadConfig(
            f"config.json: {heads} heads of an even width are to share {text.num_kv_heads} of keys, {width} channels"
        )
    vq = top.part("vq_config")
    image, draws = _read_vq(vq)
    ids = read_ids(top.take("vocabulary_map", dict, None), image.num_codes)
    for part in (top, vq):
        part.finish()
    return ChameleonConfig(text=text, image=image, draws=draws, **ids)


def _read_vq(vq: Released) -> tuple[VQGANConfig, bool]:
    vq.demand("attn_type", "vanilla")
    vq.demand("double_latent", False)
    vq.demand("in_channels", 3)
    vq.demand("attn_resolutions", [])
    image = VQGANConfig(
        width=vq.size("base_channels", 128),
        multiples=vq.take("channel_multiplier", tuple[int, ...], (1, 1, 2, 2, 4)),
        num_blocks=vq.size("num_res_blocks", 2),
        latent_width=vq.size("latent_channels", 256),
        code_width=vq.size("embed_dim", 256),
        num_codes=vq.size("num_embeddings", 8192),
        image_size=vq.size("resolution", 512),
    )
    return image, vq.take("decoder", bool, False)


def read_ids(vocabulary: Mapping[str, Any] | None, num_codes: int) -> dict[str, int]:
    """Where images and control tokens stand in a vocabulary, which a configuration may hold whole."""
    if vocabulary is None:
        return {}
    names = {**_SPECIAL, "first_code": code_name(0)}
    if _IMAGE not in vocabulary:
        names["image_id"] = "<reserved08707>"  # as it is called before transformers renames it
    ids = {name: vocabulary[token] for name, token in names.items() if isinstance(vocabulary.get(token), int)}
    if lacking := [name for name in names if name not in ids]:
        raise BadConfig(f"vocabulary: no token for {', '.join(lacking)}")
    first = ids["first_code"]
    apart = [i for i in range(num_codes) if vocabulary.get(code_name(i)) != first + i]
    if apart:
        raise BadConfig(
            f"vocabulary: code {apart[0]} of images, {code_name(apart[0])}, must follow the one "
            f"before it; it is {vocabulary.get(code_name(apart[0]))}"
        )
    return ids


def write_transformers(cfg: ChameleonConfig) -> dict[str, Any]:
    """The `config.json` from which the reference class builds the same network. Of the vocabulary it names the tokens
    that the network needs; a decoder of images, which the reference lacks, is said in `vq_config`."""
    text, image = cfg.text, cfg.image
    codes = {code_name(i): cfg.first_code + i for i in range(image.num_codes)}
    return {
        "architectures": ["ChameleonForConditionalGeneration"],
        "model_type": "chameleon",
        "hidden_size": text.width,
        "num_hidden_layers": text.num_layers,
        "num_attention_heads": text.num_heads,
        "num_key_value_heads": text.num_kv_heads,
        "intermediate_size": text.mlp_width,
        "vocab_size": text.vocab_size,
        "max_position_embeddings": text.context,
        "rope_theta": text.rope_base,
        "rms_norm_eps": text.eps,
        "hidden_act": "silu",
        "swin_norm": text.norm_after,
        "tie_word_embeddings": False,
        "pad_token_id": cfg.pad_id,
        "bos_token_id": cfg.bos_id,
        "eos_token_id": cfg.eos_id,
        "vocabulary_map": {token: getattr(cfg, name) for name, token in _SPECIAL.items()} | codes,
        "vq_config": {
            "base_channels": image.width,
            "channel_multiplier": list(image.multiples),
            "num_res_blocks": image.num_blocks,
            "latent_channels": image.latent_width,
            "embed_dim": image.code_width,
            "num_embeddings": image.num_codes,
            "resolution": image.image_size,
            "attn_type": "vanilla",
            **({"decoder": True} if cfg.draws else {}),
        },
    }
