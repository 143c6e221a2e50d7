"""ResNet: every block adds a correction to what came in, so a hundred layers train like ten.

He et al., "Deep Residual Learning for Image Recognition", 2015. The network is timm's, whose names are torchvision's.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import timm
from jaxtyping import Float
from torch import Tensor, nn

from rebus.backbones.released_configs import timm_architecture
from rebus.core.errors import BadConfig, unknown
from rebus.core.outputs import RegionFeatures
from rebus.core.specs import ImageSpec
from rebus.core.system import Layout, System
from rebus.nn.region_grid import grid_regions
from rebus.weights.key_sides import Row
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

    def region_features(
        self, pixels: Float[Tensor, "B 3 Y X"], num_regions: int | None = None, merge: int = 1
    ) -> list[RegionFeatures]:
        """All cells of the last grid as regions, `merge` × `merge` of them in one."""
        return grid_regions(self.feature_map(pixels), merge)

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
        resize="shorter",
        side=256,
        resample="bilinear",
        crop_offset="even",
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )


_NORM = "{p:weight|bias|running_mean|running_var|num_batches_tracked}"


def rows(cfg: ResNetConfig) -> list[Row]:
    """The names of torchvision and timm."""
    block = "layer{i}.{j}."
    found: list[Row] = [
        ("conv1.weight", "net.conv1.weight"),
        ("bn1." + _NORM, "net.bn1.{p}"),
        (block + "conv{k}.weight", f"net.{block}conv{{k}}.weight"),
        (block + "bn{k}." + _NORM, f"net.{block}bn{{k}}.{{p}}"),
        (block + "downsample.0.weight", f"net.{block}downsample.0.weight"),
        (block + "downsample.1." + _NORM, f"net.{block}downsample.1.{{p}}"),
    ]
    return [*found, ("fc.{p}", "net.fc.{p}")] if cfg.num_classes else found


def keys(cfg: ResNetConfig) -> KeyMap:
    """The layout of torchvision and timm; without a classifier of ours, theirs is dropped."""
    return KeyMap(rows(cfg), ignore=[] if cfg.num_classes else ["fc.*"], prefixes=["module."])


_DEPTHS = {  # blocks of the four stages, and whether they are bottlenecks → variant
    (2, 2, 2, 2, False): "resnet18",
    (3, 4, 6, 3, False): "resnet34",
    (3, 4, 6, 3, True): "resnet50",
    (3, 4, 23, 3, True): "resnet101",
    (3, 8, 36, 3, True): "resnet152",
}


def infer_config(shapes: Mapping[str, tuple[int, ...]]) -> ResNetConfig:
    """The network of an archive of weights alone, as torchvision releases them, by the blocks in it.

    Raises `BadConfig` for a network of other depths.
    """
    found = {name.removeprefix("module."): shape for name, shape in shapes.items()}
    depths = tuple(
        sum(re.fullmatch(rf"layer{i}\.\d+\.conv1\.weight", name) is not None for name in found) for i in range(1, 5)
    )
    variant = _DEPTHS.get((*depths, "layer1.0.conv3.weight" in found))  # type: ignore[arg-type]
    if variant is None or found["conv1.weight"][-1] != 7:
        raise BadConfig(f"a ResNet with {depths} blocks: wants one of {', '.join(VARIANTS)}")
    return ResNetConfig(variant=cast(Variant, variant), num_classes=found.get("fc.weight", (0,))[0])


_MARKS = {"layer4.0.conv1.weight", "bn1.bias"}  # names that tell a ResNet


def read_timm(data: Mapping[str, Any]) -> ResNetConfig:
    """`config.json` of a timm repository."""
    variant = cast(Variant, timm_architecture(data))
    return ResNetConfig(variant=variant, num_classes=int(data.get("num_classes", 1000)))


def write_timm(cfg: ResNetConfig) -> dict[str, Any]:
    """The `config.json` from which timm builds the same network."""
    return {"architecture": cfg.variant, "num_classes": cfg.num_classes}


SYSTEM = System(
    name="resnet",
    network=ResNet,
    config=ResNetConfig,
    presets={"tiny": ResNetConfig(variant="resnet18", num_classes=11)},
    layouts={
        "timm": Layout(
            name="timm",
            keys=keys,
            recognises=lambda data: timm_architecture(data) in VARIANTS,
            read_config=read_timm,
            write_config=write_timm,
        ),
        "torchvision": Layout(
            name="torchvision",
            keys=keys,
            config_file=None,
            recognises=lambda names: (
                {"layer4.0.conv1.weight", "bn1.bias"} <= {n.removeprefix("module.") for n in names}
            ),
            infer_config=infer_config,
        ),
    },
    image_spec=image_spec,
    any_image_size=True,
)
