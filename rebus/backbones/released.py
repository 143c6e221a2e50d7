"""The part of a released `config.json` that every transformer tower of CLIP and SigLIP spells alike."""

from typing import Any

from rebus.backbones.text.encoder import TextConfig
from rebus.backbones.vision.vit import ViTConfig
from rebus.core.released import ACT_TO_RELEASED, Released, read_act


def read_tower(part: Released, *, width: int, heads: int, mlp: int, act: str, eps: float) -> dict[str, Any]:
    """Fields of our configuration; the arguments are the reference library's defaults for absent ones."""
    return {
        "width": part.take("hidden_size", int, width),
        "num_layers": part.take("num_hidden_layers", int, 12),
        "num_heads": part.take("num_attention_heads", int, heads),
        "mlp_width": part.take("intermediate_size", int, mlp),
        "act": read_act(part, "hidden_act", act),
        "eps": part.take("layer_norm_eps", float, eps),
    }


def read_siglip_vision(part: Released) -> ViTConfig:
    """The vision tower of SigLIP, alone or inside PaliGemma. `num_patches` stands for a NaFlex position table."""
    part.demand("num_channels", 3)
    part.skip("projection_dim")
    fields = read_tower(part, width=768, heads=12, mlp=3072, act="gelu_pytorch_tanh", eps=1e-6)
    patch = part.take("patch_size", int, 16)
    patches = part.take("num_patches", int, None)
    size = part.take("image_size", int, 224) if patches is None else round(patches**0.5) * patch
    return ViTConfig(patch_size=patch, image_size=size, flat_patches=patches is not None, **fields)


def write_tower(cfg: ViTConfig | TextConfig) -> dict[str, Any]:
    """The reverse of `read_tower`."""
    return {
        "hidden_size": cfg.width,
        "num_hidden_layers": cfg.num_layers,
        "num_attention_heads": cfg.num_heads,
        "intermediate_size": cfg.mlp_width,
        "hidden_act": ACT_TO_RELEASED[cfg.act],
        "layer_norm_eps": cfg.eps,
    }


def write_vision(cfg: ViTConfig) -> dict[str, Any]:
    """The same with patch and picture size."""
    rows, cols = cfg.grid
    size = {"num_patches": rows * cols} if cfg.flat_patches else {"image_size": cfg.image_size}
    return {**write_tower(cfg), "patch_size": cfg.patch_size, **size}


def write_text(cfg: TextConfig) -> dict[str, Any]:
    """The same with vocabulary and context."""
    return {**write_tower(cfg), "vocab_size": cfg.vocab_size, "max_position_embeddings": cfg.context}
