"""Vision transformers that were released alone: the vision models of CLIP and SigLIP in the transformers layout."""

from collections.abc import Mapping
from typing import Any

from rebus.backbones.block_keys import clip_vision, siglip_vision
from rebus.backbones.released_configs import read_clip_vision, read_siglip_vision, write_vision
from rebus.backbones.vision.vit import ViT, ViTConfig
from rebus.core.released_config import Released
from rebus.core.system import Layout, System
from rebus.weights.keymap import KeyMap


def _read(data: Mapping[str, Any]) -> ViTConfig:
    fields = Released(data)
    cfg = read_clip_vision(fields) if data.get("model_type") == "clip_vision_model" else read_siglip_vision(fields)
    fields.skip("vision_use_head")
    fields.finish()
    return cfg


def _write(cfg: ViTConfig) -> dict[str, Any]:
    if cfg.class_token:
        return {"architectures": ["CLIPVisionModel"], "model_type": "clip_vision_model", **write_vision(cfg)}
    siglip = {"architectures": ["SiglipVisionModel"], "model_type": "siglip_vision_model", "vision_use_head": False}
    return {**siglip, **write_vision(cfg)}


def _keys(cfg: ViTConfig) -> KeyMap:
    rows = clip_vision() if cfg.class_token else siglip_vision()
    return KeyMap(rows, ignore=["*.position_ids", "vision_model.head.*", "visual_projection.weight"])


SYSTEM = System(
    name="vit",
    network=ViT,
    config=ViTConfig,
    presets={"tiny": ViTConfig(width=32, num_layers=2, num_heads=4, mlp_width=56, patch_size=8, image_size=24)},
    layouts={"transformers": Layout(name="transformers", keys=_keys, read_config=_read, write_config=_write)},
)
