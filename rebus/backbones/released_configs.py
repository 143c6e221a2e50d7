"""Configurations of encoders in released files: what every `config.json` spells alike, and what shapes tell."""

import math
import re
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from rebus.backbones.text.encoder import TextConfig
from rebus.backbones.vision.vit import ViTConfig
from rebus.core.errors import BadConfig
from rebus.core.released_config import ACT_TO_RELEASED, Released, read_act

Act: TypeAlias = Literal["gelu", "gelu_tanh", "quick_gelu"]


def read_encoder(part: Released, *, width: int, heads: int, mlp: int, act: str, eps: float) -> dict[str, Any]:
    """Fields of our configuration; the arguments are the reference library's defaults for absent ones."""
    return {
        "width": part.size("hidden_size", width),
        "num_layers": part.layers("num_hidden_layers", 12),
        "num_heads": part.size("num_attention_heads", heads),
        "mlp_width": part.size("intermediate_size", mlp),
        "act": read_act(part, "hidden_act", act),
        "eps": part.positive("layer_norm_eps", eps),
    }


def read_clip_vision(part: Released) -> ViTConfig:
    """The vision transformer of CLIP, alone or beside its text encoder."""
    part.skip("projection_dim", "bos_token_id", "pad_token_id", "eos_token_id")
    part.demand("num_channels", 3)
    return ViTConfig(
        class_token=True,
        patch_size=part.size("patch_size", 32),
        image_size=part.size("image_size", 224),
        **read_encoder(part, width=768, heads=12, mlp=3072, act="quick_gelu", eps=1e-5),
    )


def read_siglip_vision(part: Released) -> ViTConfig:
    """The vision encoder of SigLIP, alone or inside PaliGemma. `num_patches` stands for a NaFlex position table."""
    part.demand("num_channels", 3)
    part.skip("projection_dim")
    fields = read_encoder(part, width=768, heads=12, mlp=3072, act="gelu_pytorch_tanh", eps=1e-6)
    patch = part.size("patch_size", 16)
    patches = part.take("num_patches", int, None)
    size = part.size("image_size", 224) if patches is None else round(patches**0.5) * patch
    return ViTConfig(patch_size=patch, image_size=size, flat_patches=patches is not None, **fields)


def write_encoder(cfg: ViTConfig | TextConfig) -> dict[str, Any]:
    """The reverse of `read_encoder`."""
    return {
        "hidden_size": cfg.width,
        "num_hidden_layers": cfg.num_layers,
        "num_attention_heads": cfg.num_heads,
        "intermediate_size": cfg.mlp_width,
        "hidden_act": ACT_TO_RELEASED[cfg.act],
        "layer_norm_eps": cfg.eps,
    }


def write_vision(cfg: ViTConfig) -> dict[str, Any]:
    """The same with patch and image size."""
    rows, cols = cfg.grid
    size = {"num_patches": rows * cols} if cfg.flat_patches else {"image_size": cfg.image_size}
    return {**write_encoder(cfg), "patch_size": cfg.patch_size, **size}


def write_text(cfg: TextConfig) -> dict[str, Any]:
    """The same with vocabulary and context."""
    return {**write_encoder(cfg), "vocab_size": cfg.vocab_size, "max_position_embeddings": cfg.context}


def read_open_clip_kwargs(part: Released, act: Act) -> tuple[Act, float]:
    """The activation and the eps of an open_clip encoder: `act_kwargs` and `norm_kwargs` over PyTorch's defaults."""
    norm, kwargs = part.part("norm_kwargs"), part.part("act_kwargs")
    eps, approximate = norm.take("eps", float, 1e-5), kwargs.take("approximate", Literal["none", "tanh"], "none")
    if approximate == "tanh" and act == "quick_gelu":
        raise BadConfig(f"{kwargs.where}.approximate: quick_gelu has none")
    norm.finish()
    kwargs.finish()
    return "gelu_tanh" if approximate == "tanh" else act, eps


def write_open_clip_kwargs(cfg: ViTConfig | TextConfig) -> dict[str, Any]:
    """The reverse of `read_open_clip_kwargs`, with nothing for what is the default."""
    return {
        **({} if cfg.eps == 1e-5 else {"norm_kwargs": {"eps": cfg.eps}}),
        **({"act_kwargs": {"approximate": "tanh"}} if cfg.act == "gelu_tanh" else {}),
    }


def mlp_ratio(cfg: ViTConfig | TextConfig) -> float:
    """The ratio of which open_clip's int(width × ratio) gives the width of the MLP."""
    ratio = cfg.mlp_width / cfg.width
    return ratio if int(cfg.width * ratio) == cfg.mlp_width else (cfg.mlp_width + 0.5) / cfg.width


def timm_architecture(data: Mapping[str, Any]) -> str:
    """The architecture in the `config.json` of a timm repository, without the tag of its weights; else empty."""
    return str(data.get("architecture", "")).split(".")[0]


def timm_encoder(data: Mapping[str, Any]) -> str:
    """The image encoder's timm name in an `open_clip_config.json`; empty for open_clip's own encoders."""
    try:
        return str(data["model_cfg"]["vision_cfg"].get("timm_model_name", ""))
    except (KeyError, TypeError, AttributeError):
        return ""


class Shapes:
    """The shapes of a big_vision archive, from which its configuration is read; the archive carries none."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]):
        inside = {n.removeprefix("params/"): s for n, s in shapes.items() if n.startswith("params/")}
        self.shapes = inside or dict(shapes)

    def __contains__(self, name: str) -> bool:
        return any(name in known for known in self.shapes)

    def of(self, *parts: str) -> tuple[int, ...]:
        """The shape of the first array whose name holds all `parts`; raises `BadConfig` where there is none."""
        for name, shape in self.shapes.items():
            if all(part in name for part in parts):
                return shape
        raise BadConfig(f"no array {' … '.join(parts)}: not a checkpoint of this system")

    def encoder(self, prefix: str) -> dict[str, Any]:
        """Width, depth, heads and MLP width of the blocks under `prefix`, stacked in one array or apart."""
        query = self.of(prefix, "encoderblock", "query/kernel")  # ([layers,] width, heads, head width)
        if len(query) == 4:
            layers = query[0]
        else:
            numbers = {
                m[1] for n in self.shapes if n.startswith(prefix) and (m := re.search(r"encoderblock_(\d+)/", n))
            }
            layers = len(numbers)
        mlp = self.of(prefix, "encoderblock", "Dense_0/kernel")[-1]
        return {"width": query[-3], "num_layers": layers, "num_heads": query[-2], "mlp_width": mlp}

    def image(self) -> ViTConfig:
        """SigLIP's vision encoder; a NaFlex one has a linear patch projection."""
        kernel, positions = self.of("img/embedding/kernel"), self.of("img/pos_embedding")
        flat = len(kernel) == 2
        patch = math.isqrt(kernel[0] // 3) if flat else kernel[0]
        side = math.isqrt(math.prod(positions[:-1]))
        return ViTConfig(patch_size=patch, image_size=side * patch, flat_patches=flat, **self.encoder("img/"))
