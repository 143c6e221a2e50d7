"""EfficientNet: depth, width and resolution grown together; the convolutional encoder of ALIGN and of the starter.

Tan & Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", 2019. Lite: without squeeze and
excitation, ReLU6 in place of swish. The network is built of timm's parts, as in its TensorFlow variants:
padding as the released weights were trained with (at stride 2, more on the right and the bottom), and the BatchNorm
constants of TensorFlow.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from timm.models import EfficientNet as TimmEfficientNet
from timm.models._efficientnet_builder import decode_arch_def, round_channels
from torch import Tensor, nn
from torch.nn import functional as F

from rebus.backbones.released_configs import timm_architecture
from rebus.core.errors import BadConfig, unknown
from rebus.core.released_config import Released
from rebus.core.specs import ImageSpec
from rebus.core.system import Layout, System
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
    return int(round_channels(width, multiplier))


class EfficientNet(nn.Module):
    """Pixels → a grid of features, its mean, and class scores. Every map is open to the models built on it."""

    def __init__(self, cfg: EfficientNetConfig):
        super().__init__()
        if cfg.variant not in SIZES:
            raise unknown("EfficientNet", cfg.variant, SIZES)
        self.cfg = cfg
        self.net = cast(Any, _build(cfg))
        self.width = int(self.net.num_features)

    @property
    def blocks(self) -> list[nn.Module]:
        """The blocks of all stages, in order (`rebus.nn.blocks`)."""
        return [block for stage in self.net.blocks for block in stage]

    @property
    def last_map(self) -> nn.Module:
        """What gives the last grid of features, after the blocks."""
        last: nn.Module = self.net.bn2
        return last

    def feature_map(self, pixels: Float[Tensor, "B 3 Y X"]) -> Float[Tensor, "B D H W"]:
        """The last grid of features, a 32nd of the image's size."""
        return self.net.forward_features(pixels.contiguous(memory_format=torch.channels_last))

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


def _build(cfg: EfficientNetConfig) -> nn.Module:
    """The network of timm's parts; `padding` is put in afterwards, since timm has no fixed one that is uneven."""
    squeeze = "" if cfg.lite else "_se0.25"
    stages = [
        [f"{'ir' if i else 'ds'}_r{n}_k{k}_s{s}_e{6 if i else 1}_c{c}{squeeze}"]
        for i, (n, k, s, c) in enumerate(zip(_LAYERS, _KERNELS, _STRIDES, _WIDTHS, strict=True))
    ]
    width, depth = cfg.multipliers
    head = (_HEAD if cfg.lite else round_width(_HEAD, width)) if cfg.head else 0
    network = TimmEfficientNet(
        decode_arch_def(stages, depth, fix_first_last=cfg.lite),
        num_classes=cfg.num_classes,
        num_features=head,
        stem_size=_STEM,
        fix_stem=cfg.lite,
        pad_type="same",
        act_layer=nn.ReLU6 if cfg.lite else nn.SiLU,
        norm_layer=partial(nn.BatchNorm2d, eps=_EPS, momentum=cfg.momentum),
        round_chs_fn=partial(round_channels, multiplier=width),
    )
    if cfg.padding == "fixed":
        for parent in list(network.modules()):
            for name, conv in parent.named_children():
                if isinstance(conv, nn.Conv2d) and conv.stride == (2, 2):
                    setattr(parent, name, FixedPad(conv))
    return cast(nn.Module, network)


class FixedPad(nn.Conv2d):
    """A convolution of stride 2 with ⌊k/2⌋ − 1 zeros on the left and above, ⌊k/2⌋ on the right and below."""

    def __init__(self, conv: nn.Conv2d):
        kernel = (conv.kernel_size[0], conv.kernel_size[1])
        super().__init__(
            conv.in_channels, conv.out_channels, kernel, 2, groups=conv.groups, bias=False, device="meta"
        )  # fmt: skip
        self.weight = conv.weight

    def forward(self, x: Float[Tensor, "B C Y X"]) -> Float[Tensor, "B D H W"]:
        after = self.kernel_size[0] // 2
        return super().forward(F.pad(x, (after - 1, after, after - 1, after)))


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
