"""ResNet: every block adds a correction to what came in, so a hundred layers train like ten.

He et al., "Deep Residual Learning for Image Recognition", 2015. The network is timm's, whose names are torchvision's.
"""

from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import timm
from jaxtyping import Float
from torch import Tensor, nn

from rebus.core.errors import unknown
from rebus.core.specs import ImageSpec
from rebus.weights.keymap import KeyMap

Variant = Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "wide_resnet50_2"]
VARIANTS = get_args(Variant)


@dataclass(frozen=True, kw_only=True)
class ResNetConfig:
    variant: Variant = "resnet50"
    num_classes: int = 1000  # 0: no classifier

    @property
    def image_size(self) -> int:
        """Pixels of a side in the release; the convolutions take others."""
        return 224


class ResNet(nn.Module):
    """Pixels → a grid of features, its mean, and class scores."""

    def __init__(self, cfg: ResNetConfig):
        super().__init__()
        if cfg.variant not in VARIANTS:
            raise unknown("ResNet", cfg.variant, VARIANTS)
        self.cfg = cfg
        self.net = cast(Any, timm.create_model(cfg.variant, pretrained=False, num_classes=cfg.num_classes))
        self.width = int(self.net.num_features)

    @property
    def blocks(self) -> list[nn.Module]:
        """The residual blocks, in order (`rebus.nn.blocks`)."""
        return [block for i in range(1, 5) for block in self.net.get_submodule(f"layer{i}")]

    def feature_map(self, pixels: Float[Tensor, "B 3 Y X"]) -> Float[Tensor, "B D H W"]:
        """The last grid of features, a 32nd of the image's size (VirTex reads its 7 × 7 places as words)."""
        return self.net.forward_features(pixels)

    def features(self, pixels: Float[Tensor, "B 3 Y X"]) -> Float[Tensor, "B D"]:
        """Their mean over the image: what the classifier reads."""
        return self.net.global_pool(self.feature_map(pixels))

    @property
    def rows(self) -> tuple[Float[Tensor, "V D"], Float[Tensor, "V"]]:
        """The classifier: a row of weights and a bias for each class."""
        return self.net.fc.weight, self.net.fc.bias

    def forward(self, pixels: Float[Tensor, "B 3 Y X"]) -> Float[Tensor, "B V"]:
        return self.net.fc(self.features(pixels))


def image_spec(cfg: ResNetConfig) -> ImageSpec:
    """As torchvision's first release of the weights: shorter side 256, centre of 224, ImageNet's mean and deviation."""
    return ImageSpec(
        size=(cfg.image_size, cfg.image_size),
        fit="crop",
        shorter_side=256,
        resample="bilinear",
        crop_offset="even",
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )


_NORM = "{p:weight|bias|running_mean|running_var|num_batches_tracked}"


def keys(cfg: ResNetConfig) -> KeyMap:
    """The layout of torchvision and timm; without a classifier of ours, theirs is dropped."""
    block = "layer{i}.{j}."
    rows = [
        ("conv1.weight", "net.conv1.weight"),
        ("bn1." + _NORM, "net.bn1.{p}"),
        (block + "conv{k}.weight", f"net.{block}conv{{k}}.weight"),
        (block + "bn{k}." + _NORM, f"net.{block}bn{{k}}.{{p}}"),
        (block + "downsample.0.weight", f"net.{block}downsample.0.weight"),
        (block + "downsample.1." + _NORM, f"net.{block}downsample.1.{{p}}"),
        ("fc.{p}", "net.fc.{p}"),
    ]
    return KeyMap(
        rows if cfg.num_classes else rows[:-1], ignore=[] if cfg.num_classes else ["fc.*"], prefixes=["module."]
    )
