"""NFNet: a residual network without normalisation, whose weights are standardised and whose branches are scaled.

Brock et al., "High-Performance Large-Scale Image Recognition Without Normalization", 2021. F6 is the image encoder of
DeepMind's Flamingo, which reads the grid of its last stage. The network is timm's, in the variant of the released
weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from jaxtyping import Float
from timm.models.nfnet import NfCfg, NormFreeNet
from torch import Tensor, nn

from rebus.backbones.released_configs import timm_architecture
from rebus.core.config import from_dict, to_dict
from rebus.core.errors import BadConfig, unknown
from rebus.core.released_config import Released
from rebus.core.specs import ImageSpec
from rebus.core.system import Layout, System
from rebus.weights.keymap import OwnNames

MOST = 65_536  # of any size
_DEPTHS = (1, 2, 6, 3)  # of F0; F1 has twice as many, F2 three times
# size of training and share of a test image that is looked at, F0 to F6
_SIZES = ((192, 0.9), (224, 0.91), (256, 0.92), (320, 0.94), (384, 0.951), (416, 0.954), (448, 0.956))
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class NFNetConfig:
    depths: tuple[int, int, int, int] = _DEPTHS
    widths: tuple[int, int, int, int] = (256, 512, 1536, 1536)
    stem_width: int = 128
    group_width: int = 128  # channels of a group of the 3x3 convolutions
    num_classes: int = 1000  # 0: no classifier
    image_size: int = 192  # pixels of a side in training; the convolutions take others
    crop: float = 0.9  # share of a side that is seen, of an image that is resized whatever its shape

    def __post_init__(self) -> None:
        numbers = (*self.depths, *self.widths, self.stem_width, self.group_width, self.image_size)
        if min(numbers) < 1 or max(numbers) > MOST or not 0 < self.crop <= 1 or self.num_classes < 0:
            raise BadConfig(f"nfnet: expected sizes from 1 to {MOST:,} and a crop up to 1; got {self}")


class NFNet(nn.Module):
    """Pixels → the grid of the last stage, or class scores."""

    def __init__(self, cfg: NFNetConfig):
        super().__init__()
        self.cfg = cfg
        self.width = cfg.widths[-1]
        self.net = cast(Any, NormFreeNet(_timm_config(cfg), num_classes=cfg.num_classes))

    @property
    def blocks(self) -> list[nn.Module]:
        """The blocks of all stages, in order (`rebus.nn.blocks`)."""
        return [block for stage in self.net.stages for block in stage]

    def feature_map(self, pixels: Float[Tensor, "B 3 Y X"]) -> Float[Tensor, "B D H W"]:
        """The grid of the last stage, a 32nd of the image's size."""
        return self.net.stages(self.net.stem(pixels))

    def features(self, pixels: Float[Tensor, "B 3 Y X"]) -> Float[Tensor, "B F"]:
        """What the classifier reads: the mean of the grid after the last, wider convolution."""
        grid = self.net.final_act(self.net.final_conv(self.feature_map(pixels)))
        return self.net.head.global_pool(grid)

    def forward(self, pixels: Float[Tensor, "B 3 Y X"]) -> Float[Tensor, "B V"]:
        return self.net.head.fc(self.features(pixels))


def _timm_config(cfg: NFNetConfig) -> NfCfg:
    return NfCfg(
        depths=cfg.depths,
        channels=cfg.widths,
        stem_type="deep_quad",
        stem_chs=cfg.stem_width,
        group_size=cfg.group_width,
        extra_conv=True,
        gamma_in_act=True,
        same_padding=True,
        skipinit=True,
        num_features=2 * cfg.widths[-1],
        act_layer="gelu",
        attn_layer="se",
        attn_kwargs={"rd_ratio": 0.5},
    )


def _preset(number: int) -> NFNetConfig:
    size, crop = _SIZES[number]
    depths = cast("tuple[int, int, int, int]", tuple((number + 1) * depth for depth in _DEPTHS))
    return NFNetConfig(depths=depths, image_size=size, crop=crop)


PRESETS = {
    "tiny": NFNetConfig(
        depths=(1, 1, 1, 1), widths=(16, 16, 32, 32), stem_width=16, group_width=8, num_classes=11, image_size=32
    ),
    **{f"f{number}": _preset(number) for number in range(len(_SIZES))},
}
_ARGS = {"depths": "depths", "channels": "widths", "stem_chs": "stem_width", "group_size": "group_width"}
_NAMES = {f"dm_nfnet_{name}": cfg for name, cfg in PRESETS.items() if name != "tiny"}


def image_spec(cfg: NFNetConfig) -> ImageSpec:
    """As timm's: resized whatever its shape, the centre cut out."""
    size = cfg.image_size
    return ImageSpec(size=(size, size), side=int(size / cfg.crop), mean=_MEAN, std=_STD)


def read_timm(data: Mapping[str, Any]) -> NFNetConfig:
    """`config.json` of a timm repository; `model_args` are what it changes of a published network."""
    name = timm_architecture(data)
    if name not in _NAMES:
        raise unknown("NFNet", name, _NAMES)
    fields = Released(data)
    args, shown = fields.part("model_args"), fields.part("pretrained_cfg")
    own = {ours: args.take(theirs, list | int, None) for theirs, ours in _ARGS.items()}
    args.skip("num_features")
    args.finish()
    own |= {"num_classes": data.get("num_classes"), "crop": shown.take("crop_pct", float, None)}
    own["image_size"] = shown.take("input_size", list, [None])[-1]
    given = {field: value for field, value in own.items() if value is not None}
    return from_dict(NFNetConfig, {**to_dict(_NAMES[name]), **given}, "config.json")


def write_timm(cfg: NFNetConfig) -> dict[str, Any]:
    """The `config.json` from which timm builds the same network."""
    for name in _NAMES:
        data: dict[str, Any] = {"architecture": name, "num_classes": cfg.num_classes}
        if read_timm(data) == cfg:
            return data
    args = {theirs: to_dict(cfg)[ours] for theirs, ours in _ARGS.items()}
    shown = {"input_size": [3, cfg.image_size, cfg.image_size], "crop_pct": cfg.crop}
    return {
        "architecture": "dm_nfnet_f0",
        "num_classes": cfg.num_classes,
        "model_args": {**args, "num_features": 2 * cfg.widths[-1]},
        "pretrained_cfg": shown,
    }


SYSTEM = System(
    name="nfnet",
    network=NFNet,
    config=NFNetConfig,
    presets=PRESETS,
    layouts={
        "timm": Layout(
            name="timm",
            keys=lambda cfg: OwnNames("net."),
            recognises=lambda data: timm_architecture(data) in _NAMES,
            read_config=read_timm,
            write_config=write_timm,
        )
    },
    image_spec=image_spec,
    any_image_size=True,
)
