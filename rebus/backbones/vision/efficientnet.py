"""EfficientNet: depth, width and resolution grown together; the convolutional tower of ALIGN and of the starter.

Tan & Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", 2019. Lite: without squeeze and
excitation, ReLU6 in place of swish. The network is timm's, in its TensorFlow variant (padding as the released weights
were trained with: at stride 2, more on the right and the bottom).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any, Literal, cast

import timm
from jaxtyping import Float
from torch import Tensor, nn

from rebus.backbones.released_configs import timm_architecture
from rebus.core.errors import unknown
from rebus.core.specs import ImageSpec
from rebus.core.system import Layout, System
from rebus.weights.key_sides import Row
from rebus.weights.keymap import KeyMap, OwnNames

# variant: depth multiplier, image size of the release
_SIZES = {
    "lite0": (1.0, 224),
    "lite1": (1.1, 240),
    "lite2": (1.2, 260),
    "lite3": (1.4, 280),
    "lite4": (1.8, 300),
    "b0": (1.0, 224),
    "b1": (1.1, 240),
    "b2": (1.2, 260),
    "b3": (1.4, 300),
    "b4": (1.8, 380),
    "b5": (2.2, 456),
    "b6": (2.6, 528),
    "b7": (3.1, 600),
}
Variant = Literal[
    "b0", "b1", "b2", "b3", "b4", "b5", "b6", "b7", "lite0", "lite1", "lite2", "lite3", "lite4"
]  # fmt: skip
_LAYERS = (1, 2, 2, 3, 3, 4, 1)  # Table 1


@dataclass(frozen=True, kw_only=True)
class EfficientNetConfig:
    variant: Variant = "b0"
    num_classes: int = 1000  # 0: no classifier

    @property
    def image_size(self) -> int:
        """Pixels of a side in the release; the convolutions take others."""
        return _SIZES[self.variant][1]

    @property
    def depths(self) -> tuple[int, ...]:
        """Blocks of each of the seven stages; the lite networks keep the first and the last at one."""
        scale = _SIZES[self.variant][0]
        grown = [ceil(n * scale) for n in _LAYERS]
        if self.variant.startswith("lite"):
            grown[0], grown[-1] = 1, 1
        return tuple(grown)


class EfficientNet(nn.Module):
    """Pixels → a grid of features, its mean, and class scores. Every map is open to the models built on it."""

    def __init__(self, cfg: EfficientNetConfig):
        super().__init__()
        if cfg.variant not in _SIZES:
            raise unknown("EfficientNet", cfg.variant, _SIZES)
        self.cfg = cfg
        name = f"tf_efficientnet_{cfg.variant}"
        self.net = cast(Any, timm.create_model(name, pretrained=False, num_classes=cfg.num_classes))
        self.width = int(self.net.num_features)

    @property
    def blocks(self) -> list[nn.Module]:
        """The blocks of all stages, in order (`rebus.nn.blocks`)."""
        return [block for stage in self.net.blocks for block in stage]

    def feature_map(self, pixels: Float[Tensor, "B 3 Y X"]) -> Float[Tensor, "B D H W"]:
        """The last grid of features, a 32nd of the image's size."""
        return self.net.forward_features(pixels)

    def features(self, pixels: Float[Tensor, "B 3 Y X"]) -> Float[Tensor, "B D"]:
        """Their mean over the image: what the classifier reads."""
        return self.net.global_pool(self.feature_map(pixels))

    @property
    def rows(self) -> tuple[Float[Tensor, "V D"], Float[Tensor, "V"]]:
        """The classifier: a row of weights and a bias for each class."""
        return self.net.classifier.weight, self.net.classifier.bias

    def forward(self, pixels: Float[Tensor, "B 3 Y X"]) -> Float[Tensor, "B V"]:
        return self.net.classifier(self.features(pixels))


def image_spec(cfg: EfficientNetConfig) -> ImageSpec:
    """As the TensorFlow release: shorter side to size + 32, the centre cut out, (value − 127) / 128 of 0 … 255."""
    size = cfg.image_size
    return ImageSpec(
        size=(size, size),
        resize="shorter",
        side=size + 32,
        resample="bicubic",
        mean=(127 / 255,) * 3,
        std=(128 / 255,) * 3,
    )


def keys(cfg: EfficientNetConfig) -> KeyMap:
    """The layout of the PyTorch conversions of the TensorFlow weights: blocks numbered through, `_` in front."""
    rows: list[Row] = [
        ("_conv_stem.weight", "net.conv_stem.weight"),
        ("_conv_head.weight", "net.conv_head.weight"),
        ("_fc.{p}", "net.classifier.{p}"),
        *_norm("_bn0", "net.bn1"),
        *_norm("_bn1", "net.bn2"),
    ]
    number = 0
    for stage, depth in enumerate(cfg.depths):
        names = _SEPARABLE if stage == 0 else _INVERTED
        for index in range(depth):
            theirs, ours = f"_blocks.{number}.", f"net.blocks.{stage}.{index}."
            for a, b in names:
                norm = a.startswith("_bn")
                rows += _norm(theirs + a, ours + b) if norm else [(f"{theirs}{a}.{{p}}", f"{ours}{b}.{{p}}")]
            number += 1
    return KeyMap(rows, prefixes=["module."])


_SQUEEZE = [("_se_reduce", "se.conv_reduce"), ("_se_expand", "se.conv_expand")]
_SEPARABLE = [("_depthwise_conv", "conv_dw"), ("_bn1", "bn1"), *_SQUEEZE, ("_project_conv", "conv_pw"), ("_bn2", "bn2")]
_INVERTED = [
    ("_expand_conv", "conv_pw"),
    ("_bn0", "bn1"),
    ("_depthwise_conv", "conv_dw"),
    ("_bn1", "bn2"),
    *_SQUEEZE,
    ("_project_conv", "conv_pwl"),
    ("_bn2", "bn3"),
]


def _norm(theirs: str, ours: str) -> list[tuple[Any, Any]]:
    kinds = "weight|bias|running_mean|running_var|num_batches_tracked"
    return [(f"{theirs}.{{p:{kinds}}}", f"{ours}.{{p}}")]


def read_timm(data: Mapping[str, Any]) -> EfficientNetConfig:
    """`config.json` of a timm repository."""
    name = timm_architecture(data)
    variant = cast(Variant, name.removeprefix("tf_").removeprefix("efficientnet_"))
    return EfficientNetConfig(variant=variant, num_classes=int(data.get("num_classes", 1000)))


def write_timm(cfg: EfficientNetConfig) -> dict[str, Any]:
    """The `config.json` from which timm builds the same network."""
    return {"architecture": f"tf_efficientnet_{cfg.variant}", "num_classes": cfg.num_classes}


SYSTEM = System(
    name="efficientnet",
    network=EfficientNet,
    config=EfficientNetConfig,
    presets={"tiny": EfficientNetConfig(variant="lite0", num_classes=11)},
    layouts={
        "timm": Layout(
            name="timm",
            keys=lambda cfg: OwnNames("net."),
            recognises=lambda data: timm_architecture(data) in {f"tf_efficientnet_{v}" for v in _SIZES},
            read_config=read_timm,
            write_config=write_timm,
        )
    },
    image_spec=image_spec,
    any_image_size=True,
)
