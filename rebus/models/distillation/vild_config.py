"""The configuration of ViLD, and its sizes as published."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from rebus.backbones.text.encoder import TextConfig
from rebus.backbones.vision.mask_rcnn import MaskRCNNConfig, detector_backbone
from rebus.core.config import from_dict, to_dict
from rebus.core.errors import BadConfig
from rebus.core.released_config import HARMLESS


@dataclass(frozen=True, kw_only=True)
class ViLDConfig:
    """`variant`: what regions are named by (Sec. 3). "text": an embedding trained against texts and a background that
    is learnt. "image": one trained to copy an image encoder, and no background. "vild": one embedding trained by both.
    "ensemble": two heads, one trained by each, both of which name every region."""

    image: MaskRCNNConfig = field(default_factory=MaskRCNNConfig)
    text: TextConfig | None = None  # CLIP's text encoder, frozen; None: it is handed to the network
    end_id: int | None = None  # the first of these ends a text; None: the largest id does
    embed: int = 512  # of the dual encoder that teaches
    variant: Literal["text", "image", "vild", "ensemble"] = "vild"
    temperature: float = 0.01
    base: tuple[str, ...] = ()  # labels with boxes in training; all others are novel
    text_share: float = 2 / 3  # ensemble: exponent of the text head for base labels; of the other head for novel ones
    max_overlap: float = 0.5  # of two boxes of one label
    num_detections: int = 300  # of an image, at most

    def __post_init__(self) -> None:
        for name in ("temperature", "embed", "num_detections"):
            if not getattr(self, name) > 0:
                raise BadConfig(f"{name}: expected a number above 0; got {getattr(self, name)}")
        for name in ("text_share", "max_overlap"):
            if not 0 <= getattr(self, name) <= 1:
                raise BadConfig(f"{name}: expected a number of 0 to 1; got {getattr(self, name)}")


_R152 = MaskRCNNConfig(backbone=detector_backbone(variant="resnet152"))
_TINY = ViLDConfig(
    image=MaskRCNNConfig(
        backbone=detector_backbone(variant="resnet18", depths=(1, 1, 1, 1), channels=(16, 24, 32, 48)),
        image_size=64,
        width=24,
        mlp_width=40,
        anchor_scale=4.0,
        num_proposals=24,
    ),
    text=TextConfig(width=24, num_layers=1, num_heads=2, mlp_width=48, vocab_size=64, context=12),
    embed=16,
    num_detections=12,
)
PRESETS = {
    "tiny": _TINY,
    "tiny_ensemble": replace(_TINY, variant="ensemble", base=("red circle",)),
    "tiny_image": replace(_TINY, variant="image"),
    "resnet50": ViLDConfig(),
    "resnet50_ensemble": ViLDConfig(variant="ensemble"),
    "resnet152": ViLDConfig(image=_R152),
    "resnet152_ensemble": ViLDConfig(image=_R152, variant="ensemble"),
}


def read_config(data: Mapping[str, Any]) -> ViLDConfig:
    """`config.json` as `write_config` wrote it; raises `BadConfig` naming unknown fields."""
    return from_dict(ViLDConfig, {name: value for name, value in data.items() if name not in HARMLESS}, "config.json")


def write_config(cfg: ViLDConfig) -> dict[str, Any]:
    """`config.json`: model_type "vild" and the fields of the configuration."""
    return {"model_type": "vild", "architectures": ["ViLD"], **to_dict(cfg)}
