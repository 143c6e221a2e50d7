"""IDEFICS in the transformers layout: Llama, a CLIP encoder, and Flamingo's blocks with Llama's norms and MLPs.

Laurençon et al., "OBELICS: An Open Web-Scale Filtered Dataset of Interleaved Image-Text Documents", 2023.
"""

from collections.abc import Mapping
from typing import Any

from rebus.backbones.block_keys import clip_vision
from rebus.backbones.text.llama import LlamaConfig
from rebus.backbones.text.llama_layouts import llama_rows
from rebus.backbones.vision.vit import ViTConfig
from rebus.core.config import from_dict
from rebus.core.errors import BadConfig
from rebus.core.released_config import ACT_TO_RELEASED, Released, read_act
from rebus.models.frozen_lm.bridge import CrossConfig, ResamplerConfig
from rebus.models.frozen_lm.flamingo_config import IMAGE, FlamingoConfig, part
from rebus.weights.key_sides import Name, Reshaped, Row, nested
from rebus.weights.keymap import KeyMap

AROUND = "<fake_token_around_image>"
ADDED = (AROUND, IMAGE, "<end_of_utterance>")


def keys(cfg: FlamingoConfig) -> KeyMap:
    """The names of an `IdeficsForVisionText2Text`. Raises `BadConfig` for another host than Llama over a ViT."""
    text, _ = _parts(cfg)

    def gate(name: str) -> Name:
        return Reshaped(name, (1, 1, -1), (-1,)) if cfg.cross.gates == "each" else name

    cross, ours = "model.gated_cross_attn_layers.{i}.", "cross.{i}."
    layer, block = "model.perceiver_resampler.blocks.{i}.", "resampler.blocks.{i}."
    rows: list[Row] = [
        *nested(clip_vision(), theirs="model.", ours="image."),
        *llama_rows(text, "model.", "text."),
        ("model.embed_tokens.additional_embedding.weight", "added.weight"),
        *((cross + f"cross_attn.{n}_proj.weight", ours + f"attn.{n}.weight") for n in "qkv"),
        (cross + "cross_attn.o_proj.weight", ours + "attn.out.weight"),
        *((cross + f"cross_attn.{n}_layer_norm.weight", ours + f"attn.{n}_norm.weight") for n in "qk"),
        *((cross + f"mlp.{n}_proj.weight", ours + f"mlp.{n}.weight") for n in ("gate", "up", "down")),
        (cross + "input_layernorm.weight", ours + "norm1.weight"),
        (cross + "post_attention_layernorm.weight", ours + "norm2.weight"),
        (gate(cross + "alpha_cross_attn"), ours + "attn_gate"),
        (gate(cross + "alpha_dense"), ours + "mlp_gate"),
        ("model.perceiver_resampler.latents", "resampler.latents"),
        ("model.perceiver_resampler.layer_norm.{p}", "resampler.norm.{p}"),
        (layer + "0.context_layer_norm.{p}", block + "norm_media.{p}"),
        (layer + "0.latents_layer_norm.{p}", block + "norm1.{p}"),
        *((layer + f"0.{n}_proj.weight", block + f"attn.{n}.weight") for n in "qkv"),
        (layer + "0.output_proj.weight", block + "attn.out.weight"),
        *((layer + f"0.{n}_layer_norm.{{p}}", block + f"attn.{n}_norm.{{p}}") for n in "qk"),
        (layer + "1.ln.{p}", block + "norm2.{p}"),
        (layer + "1.fc.weight", block + "mlp.up.weight"),
        (layer + "1.c_proj.weight", block + "mlp.down.weight"),
    ]
    ignore = ["*.rotary_emb.inv_freq", "*.position_ids"]
    if text.tied:
        return KeyMap(rows, ignore=[*ignore, "lm_head.weight", "lm_head.additional_fc.weight"])
    rows += [("lm_head.weight", "text.head.weight"), ("lm_head.additional_fc.weight", "added_head.weight")]
    return KeyMap(rows, ignore=ignore)


def read_config(data: Mapping[str, Any]) -> FlamingoConfig:
    """`config.json` of an `IdeficsForVisionText2Text`; absent fields mean that library's defaults."""
    fields = Released(data)
    fields.demand("hidden_act", "silu")
    fields.demand("cross_layer_activation_function", "swiglu")
    fields.demand("use_resampler", True, False)
    fields.demand("rope_scaling", None)
    fields.skip("alpha_initializer", "alphas_initializer_range", "pad_token_id", "bos_token_id", "eos_token_id")
    fields.skip("max_sequence_length", "max_new_tokens", "word_embed_proj_dim", "bos_token", "eos_token", "unk_token")
    fields.skip(*(name for name in data if name.startswith("freeze_")))
    rope = fields.part("rope_parameters")
    rope.demand("rope_type", "default")
    base = rope.positive("rope_theta", 10_000.0)
    rope.finish()
    width, heads = fields.size("hidden_size", 4096), fields.size("num_attention_heads", 32)
    mlp, eps = fields.size("intermediate_size", 11_008), fields.positive("rms_norm_eps", 1e-6)
    if width % heads or width // heads % 2:
        raise BadConfig(f"config.json: {heads} heads of an even width do not make a width of {width}")
    text = LlamaConfig(
        width=width,
        num_layers=fields.layers("num_hidden_layers", 32),
        num_heads=heads,
        num_kv_heads=heads,
        head_width=width // heads,
        mlp_width=mlp,
        vocab_size=fields.size("vocab_size", 32_000),
        context=fields.size("max_position_embeddings", 2048),
        rope_base=base,
        eps=eps,
        tied=fields.take("tie_word_embeddings", bool, False),
    )
    new = fields.size("additional_vocab_size")
    if not 2 <= new <= len(ADDED):
        raise BadConfig(f"config.json.additional_vocab_size: expected 2 or 3, {', '.join(ADDED)}; got {new}")
    cross = CrossConfig(
        every=fields.size("cross_layer_interval", 1),
        num_heads=heads,
        head_width=width // heads,
        mlp_width=mlp,
        norm="rms",
        eps=eps,
        gated_mlp=True,
        qk_norm=fields.take("qk_layer_norms", bool, False),
        gates="each" if fields.take("alpha_type", str, "float") == "vector" else "one",
    )
    image, resampler = _read_image(fields.part("vision_config")), _read_resampler(fields.part("perceiver_config"))
    fields.finish()
    return FlamingoConfig(
        text=part("llama", text),
        image=part("vit", image),
        resampler=resampler,
        cross=cross,
        class_token=True,
        added=ADDED[:new],
        mark=(AROUND, IMAGE, AROUND),
        end=None,
    )


def _read_image(fields: Released) -> ViTConfig:
    fields.demand("num_channels", 3)
    cfg = ViTConfig(
        width=fields.size("embed_dim", 768),
        num_layers=fields.layers("num_hidden_layers", 32),
        num_heads=fields.size("num_attention_heads", 16),
        mlp_width=fields.size("intermediate_size", 5120),
        patch_size=fields.size("patch_size", 14),
        image_size=fields.size("image_size", 224),
        act=read_act(fields, "hidden_act", "gelu"),  # type: ignore[arg-type]
        eps=fields.positive("layer_norm_eps", 1e-5),
        class_token=True,
    )
    fields.skip("vision_model_name")
    fields.finish()
    return cfg


def _read_resampler(fields: Released) -> ResamplerConfig:
    fields.skip("use_resampler")
    cfg = ResamplerConfig(
        num_layers=fields.layers("resampler_depth", 6),
        num_heads=fields.size("resampler_n_heads", 16),
        head_width=fields.size("resampler_head_dim", 96),
        num_latents=fields.size("resampler_n_latents", 64),
        act="relu",
        qk_norm=fields.take("qk_layer_norms_perceiver", bool, False),
    )
    fields.finish()
    return cfg


def _parts(cfg: FlamingoConfig) -> tuple[LlamaConfig, ViTConfig]:
    if cfg.text.system != "llama" or cfg.image.system != "vit" or cfg.mark != (AROUND, IMAGE, AROUND):
        raise BadConfig("idefics is Llama over a ViT, with its own tokens round an image")
    return from_dict(LlamaConfig, cfg.text.config), from_dict(ViTConfig, cfg.image.config)


def write_config(cfg: FlamingoConfig) -> dict[str, Any]:
    """The `config.json` from which the reference class builds the same network. Raises `BadConfig` for others."""
    text, image = _parts(cfg)
    cross, resampler = cfg.cross, cfg.resampler
    return {
        "architectures": ["IdeficsForVisionText2Text"],
        "model_type": "idefics",
        "hidden_size": text.width,
        "num_hidden_layers": text.num_layers,
        "num_attention_heads": text.num_heads,
        "intermediate_size": text.mlp_width,
        "vocab_size": text.vocab_size,
        "additional_vocab_size": len(cfg.added),
        "max_position_embeddings": text.context,
        "rope_parameters": {"rope_type": "default", "rope_theta": text.rope_base},
        "rms_norm_eps": text.eps,
        "tie_word_embeddings": text.tied,
        "cross_layer_interval": cross.every,
        "qk_layer_norms": cross.qk_norm,
        "alpha_type": "vector" if cross.gates == "each" else "float",
        "use_resampler": True,
        "vision_config": {
            "embed_dim": image.width,
            "num_hidden_layers": image.num_layers,
            "num_attention_heads": image.num_heads,
            "intermediate_size": image.mlp_width,
            "patch_size": image.patch_size,
            "image_size": image.image_size,
            "hidden_act": ACT_TO_RELEASED[image.act],
            "layer_norm_eps": image.eps,
        },
        "perceiver_config": {
            "use_resampler": True,
            "resampler_depth": resampler.num_layers,
            "resampler_n_heads": resampler.num_heads,
            "resampler_head_dim": resampler.head_width,
            "resampler_n_latents": resampler.num_latents,
            "qk_layer_norms_perceiver": resampler.qk_norm,
        },
    }
