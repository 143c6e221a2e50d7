"""CLIP's configuration, and its spelling in the released files of transformers and open_clip."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rebus.backbones.released_configs import (
    Act,
    mlp_ratio,
    read_clip_vision,
    read_encoder,
    read_open_clip_kwargs,
    write_open_clip_kwargs,
    write_text,
    write_vision,
)
from rebus.backbones.text.encoder import TextConfig
from rebus.backbones.vision.vit import ViTConfig
from rebus.core.errors import BadConfig
from rebus.core.limits import check
from rebus.core.released_config import Released
from rebus.models.contrastive.clip_resnet import CLIPResNetConfig

log = logging.getLogger("rebus")


def clip_vit(**fields: Any) -> ViTConfig:
    """CLIP's vision transformer: B/32 where nothing else is said."""
    return ViTConfig(class_token=True, eps=1e-5, **{"act": "quick_gelu", "patch_size": 32, **fields})


@dataclass(frozen=True, kw_only=True)
class CLIPConfig:
    image: ViTConfig | CLIPResNetConfig = field(default_factory=clip_vit)
    text: TextConfig = field(default_factory=TextConfig)
    embed: int = 512
    end_id: int | None = None  # the first of these ends a text; None: the largest id does (OpenAI's rule)
    logit_bias: bool = False  # open_clip: the bias of the sigmoid loss, where a CLIP was trained by that

    def __post_init__(self) -> None:
        if self.end_id is not None and not 0 <= self.end_id < self.text.vocab_size:
            raise BadConfig(
                f"the end token {self.end_id} (eos_token_id) is outside the {self.text.vocab_size:,} tokens of the "
                "text encoder: no text could be read"
            )


def _encoder(top: Released, name: str) -> Released:
    """An encoder's configuration. Files of early versions repeat it in a second field, which the reference then reads
    with that field's defaults in place of the first."""
    first, second = top.part(name), top.part(f"{name}_dict")
    return first if top.data.get(f"{name}_dict") is None else second


def read_transformers(data: Mapping[str, Any]) -> CLIPConfig:
    """`config.json` of a `CLIPModel`."""
    top = Released(data)
    text, image = _encoder(top, "text_config"), _encoder(top, "vision_config")
    top.skip("logit_scale_init_value")
    text.skip("projection_dim", "bos_token_id", "pad_token_id")
    end, vocab = text.take("eos_token_id", int, 49_407), text.take("vocab_size", int, 49_408)
    if end == 2 and vocab > 49_408:
        log.warning(
            "eos_token_id 2 stands for the largest token of a text, as in the reference: of the %s tokens, those from "
            "49,408 on would be taken for the end of a text. Set it to 49407 if they are words",
            f"{vocab:,}",
        )
    cfg = CLIPConfig(
        image=read_clip_vision(image),
        text=TextConfig(
            vocab_size=vocab,
            context=text.size("max_position_embeddings", 77),
            **read_encoder(text, width=512, heads=8, mlp=2048, act="quick_gelu", eps=1e-5),
        ),
        embed=top.size("projection_dim", 512),
        end_id=None if end == 2 else end,  # 2 stands in OpenAI's files and means "the largest id", as trained
    )
    for part in (top, text, image):
        part.finish()
    return cfg


def write_transformers(cfg: CLIPConfig) -> dict[str, Any]:
    """The `config.json` from which a `CLIPModel` builds the same network."""
    image, text = cfg.image, cfg.text
    if not isinstance(image, ViTConfig):
        raise BadConfig('the transformers layout has no ResNet encoders; save with layout="open_clip"')
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": cfg.embed,
        "vision_config": {"model_type": "clip_vision_model", **write_vision(image), "projection_dim": cfg.embed},
        "text_config": {
            "model_type": "clip_text_model",
            **write_text(text),
            "projection_dim": cfg.embed,
            "eos_token_id": 2 if cfg.end_id is None else cfg.end_id,
        },
    }


def read_open_clip(data: Mapping[str, Any]) -> CLIPConfig:
    """`open_clip_config.json`: the encoders under `model_cfg`."""
    file = Released(data, "open_clip_config.json")
    file.skip("preprocess_cfg")
    top = file.part("model_cfg")
    image, text = top.part("vision_cfg"), top.part("text_cfg")
    embed = top.size("embed_dim")
    act: Act = "quick_gelu" if top.take("quick_gelu", bool, False) else "gelu"
    top.skip("custom_text", "init_logit_scale")
    size, width = image.size("image_size", 224), image.size("width", 768)
    head_width, ratio = image.size("head_width", 64), image.positive("mlp_ratio", 4.0)
    layers, patch = image.take("layers", tuple[int, int, int, int] | int, 12), image.size("patch_size", 16)
    widest = 32 * width if isinstance(layers, tuple) else width  # a ResNet's attention pools its last, widest stage
    if min(layers if isinstance(layers, tuple) else (layers,)) < 1 or widest < head_width:
        raise BadConfig(f"{image.where}: expected at least one layer and one head; got layers {layers}, width {width}")
    check("MAX_LAYERS", max(layers if isinstance(layers, tuple) else (layers,)), f"{image.where}.layers")
    if isinstance(layers, tuple):
        encoder: ViTConfig | CLIPResNetConfig = CLIPResNetConfig(
            layers=layers, width=width, image_size=size, embed=embed, head_width=head_width
        )
    else:
        image_act, image_eps = read_open_clip_kwargs(image, act)
        encoder = ViTConfig(
            class_token=True,
            width=width,
            num_layers=layers,
            num_heads=width // head_width,
            mlp_width=int(width * ratio),
            patch_size=patch,
            image_size=size,
            act=image_act,
            eps=image_eps,
        )
    text_width = text.size("width", 512)
    image.demand("pool_type", "tok")
    pool, end = text.take("pool_type", str, "argmax"), text.take("eos_id", int, 2)
    if pool not in ("argmax", "eos"):
        raise BadConfig(f"{text.where}.pool_type: only argmax and eos are supported; got {pool!r}")
    text_act, text_eps = read_open_clip_kwargs(text, act)
    cfg = CLIPConfig(
        image=encoder,
        text=TextConfig(
            width=text_width,
            num_layers=text.layers("layers", 12),
            num_heads=text.size("heads", 8),
            mlp_width=int(text_width * text.positive("mlp_ratio", 4.0)),
            vocab_size=text.size("vocab_size", 49_408),
            context=text.size("context_length", 77),
            causal=not text.take("no_causal_mask", bool, False),
            act=text_act,
            eps=text_eps,
        ),
        embed=embed,
        end_id=end if pool == "eos" else None,
        logit_bias=top.take("init_logit_bias", float | None, None) is not None,
    )
    for part in (file, top, image, text):
        part.finish()
    return cfg


def write_open_clip(cfg: CLIPConfig) -> dict[str, Any]:
    """The `model_cfg` of `open_clip_config.json`."""
    image, text = cfg.image, cfg.text
    if isinstance(image, ViTConfig):
        vision: dict[str, Any] = {
            "image_size": image.image_size,
            "layers": image.num_layers,
            "width": image.width,
            "patch_size": image.patch_size,
            "head_width": image.width // image.num_heads,
            "mlp_ratio": mlp_ratio(image),
            **write_open_clip_kwargs(image),
        }
    else:
        vision = {
            "image_size": image.image_size,
            "layers": list(image.layers),
            "width": image.width,
            "head_width": image.head_width,
            "patch_size": None,
        }
    return {
        "model_cfg": {
            "embed_dim": cfg.embed,
            "quick_gelu": text.act == "quick_gelu",
            **({"init_logit_bias": -10.0} if cfg.logit_bias else {}),
            "vision_cfg": vision,
            "text_cfg": {
                "context_length": text.context,
                "vocab_size": text.vocab_size,
                "width": text.width,
                "heads": text.num_heads,
                "layers": text.num_layers,
                "mlp_ratio": mlp_ratio(text),
                **write_open_clip_kwargs(text),
                **({} if text.causal else {"no_causal_mask": True}),
                **({} if cfg.end_id is None else {"pool_type": "eos", "eos_id": cfg.end_id}),
            },
        }
    }
