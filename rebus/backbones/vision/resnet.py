"""ResNet: every block adds a correction to what came in, so a hundred layers train like ten.

He et al., "Deep Residual Learning for Image Recognition", 2015. Layers have torchvision's names.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple, cast, get_args

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from rebus.backbones.released_configs import timm_architecture
from rebus.core.errors import BadConfig, unknown
from rebus.core.outputs import RegionFeatures
from rebus.core.specs import ImageSpec
from rebus.core.system import Layout, System
from rebus.nn.region_grid import grid_regions
from rebus.nn.same_padding import pad_same
from rebus.weights.key_sides import Row
from rebus.weights.keymap import KeyMap

Variant = Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "wide_resnet50_2"]
VARIANTS = get_args(Variant)


@dataclass(frozen=True, kw_only=True)
class ResNetConfig:
    """A published variant; `depths` and `channels` make a smaller one of it, with the stem and blocks that it has."""

    variant: Variant = "resnet50"
    num_classes: int = 1000  # 0: no classifier
    depths: tuple[int, int, int, int] | None = None  # blocks of the four stages
    channels: tuple[int, int, int, int] | None = None  # of their 3 × 3 convolutions
    stages: Literal[2, 3, 4] = 4  # of the four, those that are there; only all of them have a classifier
    stride: Literal[8, 16, 32] = 32  # pixels between features; below 32 the last stages are dilated instead
    # of the first max pooling: one pixel on each side, or as TensorFlow's "SAME", on even sizes to the right and at
    # the bottom alone
    padding: Literal["both", "same"] = "both"
    # which convolution of a bottleneck takes the strides: the middle, 3 × 3 one, or the first, as in the paper, Caffe
    # and Keras
    strided: Literal["middle", "first"] = "middle"
    eps: float = 1e-5  # of BatchNorm
    momentum: float = 0.1  # of its running statistics; TensorFlow states 1 − momentum

    def __post_init__(self) -> None:
        for name in ("depths", "channels"):
            numbers = getattr(self, name)
            if numbers is not None and min(numbers) < 1:
                raise BadConfig(f"{name}: expected a number above 0 for each of the four stages; got {numbers}")
        if self.strided == "first" and (self.variant in ("resnet18", "resnet34") or self.stride < 32):
            raise BadConfig('strided="first": expected bottlenecks, ResNet-50 and above, and stride=32')

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
        self.net: Any = Layers(cfg)  # submodules by their released names, which no type knows
        self.widths = self.net.widths  # of `maps`
        self.width = self.widths[-1]

    @property
    def blocks(self) -> list[nn.Module]:
        """The residual blocks, in order (`rebus.nn.blocks`)."""
        return [block for i in range(1, self.cfg.stages + 1) for block in self.net.get_submodule(f"layer{i}")]

    def maps(self, pixels: Float[Tensor, "B 3 Y X"]) -> list[Float[Tensor, "B _ _ _"]]:
        """What the four stages give, C2 to C5: a 4th, an 8th, a 16th and a 32nd of the image's size."""
        net = self.net
        x = net.maxpool(F.relu(net.bn1(net.conv1(pixels))))
        found = []
        for i in range(1, self.cfg.stages + 1):
            x = net.get_submodule(f"layer{i}")(x)
            found.append(x)
        return found

    def feature_map(self, pixels: Float[Tensor, "B 3 Y X"]) -> Float[Tensor, "B D H W"]:
        """The last grid of features, a 32nd of the image's size (VirTex reads its 7 × 7 places as words)."""
        return self.maps(pixels)[-1]

    def features(self, pixels: Float[Tensor, "B 3 Y X"]) -> Float[Tensor, "B D"]:
        """Their mean over the image: what the classifier reads."""
        return self.feature_map(pixels).mean(dim=(2, 3))

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


class Layers(nn.Module):
    """The layers of a ResNet by their released names."""

    def __init__(self, cfg: ResNetConfig):
        super().__init__()
        depths, block = _DESIGNS[cfg.variant]
        channels = cfg.channels or (64, 128, 256, 512)
        before = 64
        norm = partial(nn.BatchNorm2d, eps=cfg.eps, momentum=cfg.momentum)
        self.conv1 = nn.Conv2d(3, before, 7, stride=2, padding=3, bias=False)
        self.bn1 = norm(before)
        self.maxpool = SamePool() if cfg.padding == "same" else nn.MaxPool2d(3, stride=2, padding=1)
        widths, dilation, reached = [], 1, 4
        for i, (depth, width) in enumerate(zip(cfg.depths or depths, channels, strict=True)):
            if i == cfg.stages:
                break
            stride, first = min(i + 1, 2), dilation
            if reached >= cfg.stride:  # as fine as asked: what the stride would skip lies between the taps
                stride, dilation = 1, dilation * stride
            reached *= stride
            blocks: list[nn.Module] = []
            for steps in [(stride, first), *[(1, dilation)] * (depth - 1)]:
                blocks.append(block(cfg, Place(before, width, *steps, dilation), norm))
                before = width * block.expansion
            setattr(self, f"layer{i + 1}", nn.Sequential(*blocks))
            widths.append(before)
        self.widths = tuple(widths)
        self.fc = nn.Linear(before, cfg.num_classes) if cfg.num_classes else nn.Identity()
        self.init_weights()

    def init_weights(self) -> None:
        """Convolutions by their outputs (He et al., 2015); each block starts as what comes in, as timm has it (Goyal et
        al., "Accurate, Large Minibatch SGD", 2017, Sec. 5.1)."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if isinstance(module, Basic | Bottleneck):
                nn.init.zeros_(module.last_norm.weight)


class Place(NamedTuple):
    """Where a block stands: channels that come in, and of its 3 × 3 convolutions; stride and dilation of the first of
    these, dilation of others."""

    before: int
    width: int
    stride: int
    first_dilation: int
    dilation: int


class _Block(nn.Module):
    """A correction to what comes in, brought to its size by a 1 × 1 convolution where that differs."""

    expansion = 1
    downsample: nn.Module | None

    def add_downsample(self, before: int, after: int, stride: int, norm: Callable[[int], nn.Module]) -> None:
        same = stride == 1 and before == after
        self.downsample = (
            None if same else nn.Sequential(nn.Conv2d(before, after, 1, stride=stride, bias=False), norm(after))
        )

    def around(self, x: Tensor) -> Tensor:
        return x if self.downsample is None else self.downsample(x)


class Basic(_Block):
    """Two 3 × 3 convolutions."""

    def __init__(self, cfg: ResNetConfig, at: Place, norm: Callable[[int], nn.Module]):
        super().__init__()
        self.conv1 = _conv3(at.before, at.width, at.stride, at.first_dilation)
        self.bn1 = norm(at.width)
        self.conv2 = _conv3(at.width, at.width, 1, at.dilation)
        self.bn2 = norm(at.width)
        self.add_downsample(at.before, at.width, at.stride, norm)

    @property
    def last_norm(self) -> Any:
        return self.bn2

    def forward(self, x: Float[Tensor, "B C Y X"]) -> Float[Tensor, "B D H W"]:
        return F.relu(self.around(x) + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


class Bottleneck(_Block):
    """A 3 × 3 convolution between two of 1 × 1, which make it narrower and wide again."""

    expansion = 4

    def __init__(self, cfg: ResNetConfig, at: Place, norm: Callable[[int], nn.Module]):
        super().__init__()
        inner, after = at.width * (2 if cfg.variant.startswith("wide") else 1), at.width * self.expansion
        strides = (at.stride, 1) if cfg.strided == "first" else (1, at.stride)
        self.conv1 = nn.Conv2d(at.before, inner, 1, stride=strides[0], bias=False)
        self.bn1 = norm(inner)
        self.conv2 = _conv3(inner, inner, strides[1], at.first_dilation)
        self.bn2 = norm(inner)
        self.conv3 = nn.Conv2d(inner, after, 1, bias=False)
        self.bn3 = norm(after)
        self.add_downsample(at.before, after, at.stride, norm)

    @property
    def last_norm(self) -> Any:
        return self.bn3

    def forward(self, x: Float[Tensor, "B C Y X"]) -> Float[Tensor, "B D H W"]:
        inner = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        return F.relu(self.around(x) + self.bn3(self.conv3(inner)))


def _conv3(before: int, after: int, stride: int, dilation: int) -> nn.Conv2d:
    return nn.Conv2d(before, after, 3, stride=stride, padding=dilation, dilation=dilation, bias=False)


_DESIGNS: dict[Variant, tuple[tuple[int, int, int, int], type[Basic] | type[Bottleneck]]] = {
    "resnet18": ((2, 2, 2, 2), Basic),
    "resnet34": ((3, 4, 6, 3), Basic),
    "resnet50": ((3, 4, 6, 3), Bottleneck),
    "resnet101": ((3, 4, 23, 3), Bottleneck),
    "resnet152": ((3, 8, 36, 3), Bottleneck),
    "wide_resnet50_2": ((3, 4, 6, 3), Bottleneck),
}


class SamePool(nn.Module):
    """Max pooling, 3 × 3 at stride 2, padded as TensorFlow's "SAME"."""

    def forward(self, x: Float[Tensor, "B C Y X"]) -> Float[Tensor, "B C H W"]:
        return F.max_pool2d(pad_same(x, 3, value=-float("inf")), 3, 2)


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


_BLOCK = "layer{i}.{j}."
ROWS: list[Row] = [  # without a classifier
    ("conv1.weight", "net.conv1.weight"),
    ("bn1." + _NORM, "net.bn1.{p}"),
    (_BLOCK + "conv{k}.weight", f"net.{_BLOCK}conv{{k}}.weight"),
    (_BLOCK + "bn{k}." + _NORM, f"net.{_BLOCK}bn{{k}}.{{p}}"),
    (_BLOCK + "downsample.0.weight", f"net.{_BLOCK}downsample.0.weight"),
    (_BLOCK + "downsample.1." + _NORM, f"net.{_BLOCK}downsample.1.{{p}}"),
]


def keys(cfg: ResNetConfig) -> KeyMap:
    """The layout of torchvision and timm; without a classifier of ours, theirs is dropped."""
    rows = [*ROWS, ("fc.{p}", "net.fc.{p}")] if cfg.num_classes else ROWS
    return KeyMap(rows, ignore=[] if cfg.num_classes else ["fc.*"], prefixes=["module."])


_DEPTHS = {  # blocks of the four stages, and channels out of the first of them → variant
    (2, 2, 2, 2, 64): "resnet18",
    (3, 4, 6, 3, 64): "resnet34",
    (3, 4, 6, 3, 256): "resnet50",
    (3, 4, 23, 3, 256): "resnet101",
    (3, 8, 36, 3, 256): "resnet152",
}


def infer_config(shapes: Mapping[str, tuple[int, ...]]) -> ResNetConfig:
    """The network of an archive of weights alone, as torchvision releases them, by the blocks in it.

    Raises `BadConfig` for a network of other depths.
    """
    found = {name.removeprefix("module."): shape for name, shape in shapes.items()}
    depths = tuple(
        sum(re.fullmatch(rf"layer{i}\.\d+\.conv1\.weight", name) is not None for name in found) for i in range(1, 5)
    )
    last = found.get("layer1.0.conv3.weight", found["layer1.0.conv2.weight"])
    variant = _DEPTHS.get((*depths, last[0]))  # type: ignore[arg-type]
    if variant == "resnet50" and found["layer1.0.conv1.weight"][0] == 128:
        variant = "wide_resnet50_2"
    if variant is None or found["conv1.weight"][-1] != 7:
        raise BadConfig(f"a ResNet with {depths} blocks: expected one of {', '.join(VARIANTS)}")
    return ResNetConfig(variant=cast(Variant, variant), num_classes=found.get("fc.weight", (0,))[0])


_MARKS = {"layer4.0.conv1.weight", "bn1.bias"}  # names that tell a ResNet


def read_timm(data: Mapping[str, Any]) -> ResNetConfig:
    """`config.json` of a timm repository."""
    variant = cast(Variant, timm_architecture(data))
    return ResNetConfig(variant=variant, num_classes=int(data.get("num_classes", 1000)))


def write_timm(cfg: ResNetConfig) -> dict[str, Any]:
    """The `config.json` from which timm builds the same network. Raises `BadConfig` for custom sizes."""
    if cfg != ResNetConfig(variant=cfg.variant, num_classes=cfg.num_classes):
        raise BadConfig("timm has no name for a ResNet of other depths, channels or stride")
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
            recognises=lambda names: {n.removeprefix("module.") for n in names} >= _MARKS,
            infer_config=infer_config,
        ),
    },
    image_spec=image_spec,
    any_image_size=True,
)
