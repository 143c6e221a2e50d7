"""EfficientNet: depth, width and resolution grown together; the convolutional encoder of ALIGN and of the starter.

Tan & Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", 2019. Lite: without squeeze and
excitation, ReLU6 in place of swish. Padding is as the released weights were trained with (at stride 2, more on the
right and the bottom), and the BatchNorm constants are TensorFlow's. Layers have timm's names.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from rebus.backbones.released_configs import timm_architecture
from rebus.core.errors import BadConfig, unknown
from rebus.core.released_config import Released
from rebus.core.specs import ImageSpec
from rebus.core.system import Layout, System
from rebus.nn.same_padding import pad_same
from rebus.weights.key_sides import Row
from rebus.weights.keymap import KeyMap, OwnNames

# variant: width multiplier, depth multiplier, image size of the release
SIZES = {
    "lite0": (1.0, 1.0, 224),
    "lite1": (1.0, 1.1, 240),
    "lite2": (1.1, 1.2, 260),
    "lite3": (1.2, 1.4, 280),
    "lite4": (1.4, 1.8, 300),
    "b0": (1.0, 1.0, 224),
    "b1": (1.0, 1.1, 240),
    "b2": (1.1, 1.2, 260),
    "b3": (1.2, 1.4, 300),
    "b4": (1.4, 1.8, 380),
    "b5": (1.6, 2.2, 456),
    "b6": (1.8, 2.6, 528),
    "b7": (2.0, 3.1, 600),
    "l2": (4.3, 5.3, 800),
}
Variant = Literal[
    "b0", "b1", "b2", "b3", "b4", "b5", "b6", "b7", "l2", "lite0", "lite1", "lite2", "lite3", "lite4"
]  # fmt: skip
_LAYERS = (1, 2, 2, 3, 3, 4, 1)  # of B0, Table 1
_WIDTHS = (16, 24, 40, 80, 112, 192, 320)
_KERNELS = (3, 3, 5, 3, 5, 5, 3)
_STRIDES = (1, 2, 2, 2, 1, 2, 1)
_STEM, _HEAD = 32, 1280
_EPS, _MOMENTUM = 1e-3, 0.01  # of BatchNorm; TensorFlow states 1 − momentum, 0.99


@dataclass(frozen=True, kw_only=True)
class EfficientNetConfig:
    variant: Variant = "b0"
    scales: tuple[float, float] | None = None  # multipliers of width and depth in place of the variant's
    num_classes: int = 1000  # 0: no classifier
    head: bool = True  # the last 1x1 convolution
    # of convolutions of stride 2: "same" depends on the size, as TensorFlow does where it is known; "fixed" does not
    padding: Literal["same", "fixed"] = "same"
    image_size: int = 224  # pixels of a side in training; the convolutions take others
    # a batch's share of BatchNorm's running statistics; a run of some hundred steps, over which the weights move far
    # in a hundred, wants more
    momentum: float = _MOMENTUM

    @property
    def lite(self) -> bool:
        """Without squeeze and excitation, made for small devices."""
        return self.variant.startswith("lite")

    @property
    def multipliers(self) -> tuple[float, float]:
        """Of width and depth."""
        return self.scales or SIZES[self.variant][:2]

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels after each of the seven stages."""
        return tuple(round_width(n, self.multipliers[0]) for n in _WIDTHS)

    @property
    def depths(self) -> tuple[int, ...]:
        """Blocks of each of the seven stages; the lite networks keep the first and the last at one."""
        grown = [ceil(n * self.multipliers[1]) for n in _LAYERS]
        if self.lite:
            grown[0], grown[-1] = 1, 1
        return tuple(grown)


def round_width(width: int, multiplier: float) -> int:
    """Channels as the TensorFlow release rounds them: to multiples of 8, and up where more than 10% would be lost."""
    wanted = width * multiplier
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * wanted else rounded


class PaddedConv(nn.Conv2d):
    """A convolution without bias that keeps the size at stride 1 and halves it at stride 2, with the padding's larger
    half on the right and the bottom: as the size demands ("same"), or always ⌊k/2⌋ − 1 and ⌊k/2⌋ zeros ("fixed")."""

    def __init__(self, width: int, out: int, kernel: int = 1, stride: int = 1, groups: int = 1, same: bool = True):
        super().__init__(
            width, out, kernel, stride, padding=kernel // 2 if stride == 1 else 0, groups=groups, bias=False
        )
        self.same = same

    def forward(self, x: Float[Tensor, "B C Y X"]) -> Float[Tensor, "B D H W"]:
        if self.stride[0] == 1:
            return super().forward(x)
        kernel = self.kernel_size[0]
        if self.same:
            return super().forward(pad_same(x, kernel))
        after = kernel // 2
        return super().forward(F.pad(x, (after - 1, after, after - 1, after)))


class SqueezeExcite(nn.Module):
    """Each channel times a gate that all channels' means decide (Hu et al., 2018)."""

    def __init__(self, width: int, squeezed: int):
        super().__init__()
        self.conv_reduce = nn.Conv2d(width, squeezed, 1)
        self.conv_expand = nn.Conv2d(squeezed, width, 1)

    def forward(self, x: Float[Tensor, "B D H W"]) -> Float[Tensor, "B D H W"]:
        gate = F.silu(self.conv_reduce(x.mean((2, 3), keepdim=True)), inplace=True)
        return x * torch.sigmoid(self.conv_expand(gate))


class Separable(nn.Module):
    """A block of the first stage: one filter a channel, then a mixture of channels."""

    def __init__(self, cfg: EfficientNetConfig, width: int, out: int, kernel: int, stride: int):
        super().__init__()
        self.act, self.skip = _act(cfg), stride == 1 and width == out
        self.conv_dw = PaddedConv(width, width, kernel, stride, width, cfg.padding == "same")
        self.bn1 = _norm(cfg, width)
        self.se = nn.Identity() if cfg.lite else SqueezeExcite(width, round(width / 4))
        self.conv_pw = PaddedConv(width, out)
        self.bn2 = _norm(cfg, out)

    def forward(self, x: Float[Tensor, "B C Y X"]) -> Float[Tensor, "B D H W"]:
        y = self.se(self.act(self.bn1(self.conv_dw(x))))
        y = self.bn2(self.conv_pw(y))
        return y + x if self.skip else y


class Inverted(nn.Module):
    """A block of the others: six times as many channels between its first and its last convolution (MBConv)."""

    def __init__(self, cfg: EfficientNetConfig, width: int, out: int, kernel: int, stride: int):
        super().__init__()
        wide = 6 * width
        self.act, self.skip = _act(cfg), stride == 1 and width == out
        self.conv_pw = PaddedConv(width, wide)
        self.bn1 = _norm(cfg, wide)
        self.conv_dw = PaddedConv(wide, wide, kernel, stride, wide, cfg.padding == "same")
        self.bn2 = _norm(cfg, wide)
        self.se = nn.Identity() if cfg.lite else SqueezeExcite(wide, round(width / 4))
        self.conv_pwl = PaddedConv(wide, out)
        self.bn3 = _norm(cfg, out)

    def forward(self, x: Float[Tensor, "B C Y X"]) -> Float[Tensor, "B D H W"]:
        y = self.act(self.bn1(self.conv_pw(x)))
        y = self.se(self.act(self.bn2(self.conv_dw(y))))
        y = self.bn3(self.conv_pwl(y))
        return y + x if self.skip else y


class Layers(nn.Module):
    """Stem, seven stages, head and classifier, initialised as the TensorFlow release does."""

    def __init__(self, cfg: EfficientNetConfig):
        super().__init__()
        multiplier = cfg.multipliers[0]
        width = _STEM if cfg.lite else round_width(_STEM, multiplier)
        self.act = _act(cfg)
        self.conv_stem = PaddedConv(3, width, 3, 2, same=cfg.padding == "same")
        self.bn1 = _norm(cfg, width)
        stages: list[nn.Module] = []
        for i, (depth, out, kernel) in enumerate(zip(cfg.depths, cfg.widths, _KERNELS, strict=True)):
            block, blocks = Inverted if i else Separable, list[nn.Module]()
            for j in range(depth):
                blocks.append(block(cfg, width, out, kernel, 1 if j else _STRIDES[i]))
                width = out
            stages.append(nn.Sequential(*blocks))
        self.blocks = nn.Sequential(*stages)
        head = _HEAD if cfg.lite else round_width(_HEAD, multiplier)
        self.conv_head = PaddedConv(width, head) if cfg.head else None
        self.bn2 = _norm(cfg, head) if cfg.head else None
        self.width = head if cfg.head else width
        self.classifier: Any = nn.Linear(self.width, cfg.num_classes) if cfg.num_classes else nn.Identity()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                outputs = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
                nn.init.normal_(module.weight, 0.0, (2.0 / outputs) ** 0.5)
            elif isinstance(module, nn.Linear):
                bound = module.out_features**-0.5
                nn.init.uniform_(module.weight, -bound, bound)
            if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, x: Float[Tensor, "B 3 Y X"]) -> Float[Tensor, "B D H W"]:
        x = self.blocks(self.act(self.bn1(self.conv_stem(x))))
        if self.conv_head is None or self.bn2 is None:
            return x
        return self.act(self.bn2(self.conv_head(x)))


def _norm(cfg: EfficientNetConfig, width: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(width, eps=_EPS, momentum=cfg.momentum)


def _act(cfg: EfficientNetConfig) -> nn.Module:
    return nn.ReLU6(inplace=True) if cfg.lite else nn.SiLU(inplace=True)


class EfficientNet(nn.Module):
    """Pixels → a grid of features, its mean, and class scores. Every map is open to the models built on it."""

    def __init__(self, cfg: EfficientNetConfig):
        super().__init__()
        if cfg.variant not in SIZES:
            raise unknown("EfficientNet", cfg.variant, SIZES)
        self.cfg = cfg
        self.net = Layers(cfg)
        self.width = self.net.width

    @property
    def blocks(self) -> list[nn.Module]:
        """The blocks of all stages, in order (`rebus.nn.blocks`)."""
        return [block for stage in self.net.blocks for block in stage.children()]

    @property
    def last_map(self) -> nn.Module:
        """What gives the last grid of features, after the blocks."""
        return self.net

    def feature_map(self, pixels: Float[Tensor, "B 3 Y X"]) -> Float[Tensor, "B D H W"]:
        """The last grid of features, a 32nd of the image's size."""
        return self.net(pixels.contiguous(memory_format=torch.channels_last))

    def features(self, pixels: Float[Tensor, "B 3 Y X"]) -> Float[Tensor, "B D"]:
        """Their mean over the image: what the classifier reads."""
        return F.adaptive_avg_pool2d(self.feature_map(pixels), 1).flatten(1)

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
        norm_row("_bn0", "net.bn1"),
        *block_rows(cfg, _BLOCK, theirs="_blocks"),
        ("_conv_head.weight", "net.conv_head.weight"),
        norm_row("_bn1", "net.bn2"),
        ("_fc.{p}", "net.classifier.{p}"),
    ]
    return KeyMap(rows, prefixes=["module."])


_BLOCK = {
    "expand": "_expand_conv",
    "expand_norm": "_bn0",
    "depthwise": "_depthwise_conv",
    "depthwise_norm": "_bn1",
    "squeeze": "_se_reduce",
    "excite": "_se_expand",
    "project": "_project_conv",
    "project_norm": "_bn2",
}
_SEPARABLE = {  # the first stage widens nothing
    "depthwise": "conv_dw",
    "depthwise_norm": "bn1",
    "squeeze": "se.conv_reduce",
    "excite": "se.conv_expand",
    "project": "conv_pw",
    "project_norm": "bn2",
}
_INVERTED = {
    **_SEPARABLE,
    "expand": "conv_pw",
    "expand_norm": "bn1",
    "depthwise_norm": "bn2",
    "project": "conv_pwl",
    "project_norm": "bn3",
}


def block_rows(cfg: EfficientNetConfig, names: Mapping[str, str], *, theirs: str) -> list[Row]:
    """Rows for files whose blocks are numbered through, `{theirs}.{number}.`; `names`: what they call the layers of a
    block ("expand", "depthwise", "squeeze", "excite", "project", and each "…_norm")."""
    rows: list[Row] = []
    number = 0
    for stage, depth in enumerate(cfg.depths):
        for index in range(depth):
            for layer, ours in (_INVERTED if stage else _SEPARABLE).items():
                row = norm_row if layer.endswith("_norm") else _layer_row
                rows.append(row(f"{theirs}.{number}.{names[layer]}", f"net.blocks.{stage}.{index}.{ours}"))
            number += 1
    return rows


def norm_row(theirs: str, ours: str) -> Row:
    """A BatchNorm layer with its statistics."""
    return f"{theirs}.{{p:weight|bias|running_mean|running_var|num_batches_tracked}}", f"{ours}.{{p}}"


def _layer_row(theirs: str, ours: str) -> Row:
    return f"{theirs}.{{p}}", f"{ours}.{{p}}"


def read_timm(data: Mapping[str, Any]) -> EfficientNetConfig:
    """`config.json` of a timm repository."""
    name = timm_architecture(data)
    variant = cast(Variant, name.removeprefix("tf_").removeprefix("efficientnet_"))
    if variant not in SIZES:
        raise unknown("EfficientNet", variant, SIZES)
    return EfficientNetConfig(
        variant=variant,
        num_classes=int(data.get("num_classes", 1000)),
        image_size=SIZES[variant][2],
        momentum=Released(data).part("model_args").positive("bn_momentum", _MOMENTUM),
    )


def write_timm(cfg: EfficientNetConfig) -> dict[str, Any]:
    """The `config.json` from which timm builds the same network. Raises `BadConfig` where timm has no such network."""
    data: dict[str, Any] = {"architecture": f"tf_efficientnet_{cfg.variant}", "num_classes": cfg.num_classes}
    if cfg.momentum != _MOMENTUM:
        data |= {"model_args": {"bn_momentum": cfg.momentum}, "pretrained_cfg": {}}  # timm reads neither without both
    if read_timm(data) != cfg:
        raise BadConfig(f"timm builds EfficientNets with their released scales, sizes, heads and padding; got {cfg}")
    return data


SYSTEM = System(
    name="efficientnet",
    network=EfficientNet,
    config=EfficientNetConfig,
    presets={"tiny": EfficientNetConfig(variant="lite0", num_classes=11)},
    layouts={
        "timm": Layout(
            name="timm",
            keys=lambda cfg: OwnNames("net."),
            recognises=lambda data: timm_architecture(data) in {f"tf_efficientnet_{v}" for v in SIZES},
            read_config=read_timm,
            write_config=write_timm,
        )
    },
    image_spec=image_spec,
    any_image_size=True,
)
