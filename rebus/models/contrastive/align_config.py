"""The configuration of ALIGN, and the `config.json` of the reference library."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from rebus.backbones.text import bert
from rebus.backbones.text.bert import BERTConfig
from rebus.backbones.vision.efficientnet import SIZES, EfficientNetConfig, Variant, round_width
from rebus.core.errors import BadConfig
from rebus.core.released_config import Released


def align_image(
    *,
    variant: Variant = "b7",
    scales: tuple[float, float] | None = None,
    image_size: int = 289,
    momentum: float = 0.01,
) -> EfficientNetConfig:
    """ALIGN's image encoder: neither classes nor the last convolution. Padding is fixed since Kakao's network was built
    for images of unknown size."""
    return EfficientNetConfig(
        variant=variant,
        scales=scales,
        num_classes=0,
        head=False,
        padding="fixed",
        image_size=image_size,
        momentum=momentum,
    )


@dataclass(frozen=True, kw_only=True)
class ALIGNConfig:
    image: EfficientNetConfig = field(default_factory=align_image)
    text: BERTConfig = field(default_factory=lambda: bert.PRESETS["base"])
    embed: int = 640  # the width of the image encoder, unless its features are projected
    image_head: bool = False  # a linear layer after the image encoder: the paper's ablations have one (Sec. 6.1)
    temperature: float = 1.0  # at first


_FIXED: dict[str, Any] = {
    "num_channels": 3,
    "depth_divisor": 8,
    "kernel_sizes": [3, 3, 5, 3, 5, 5, 3],
    "in_channels": [32, 16, 24, 40, 80, 112, 192],
    "out_channels": [16, 24, 40, 80, 112, 192, 320],
    "strides": [1, 2, 2, 2, 1, 2, 1],
    "num_block_repeats": [1, 2, 2, 3, 3, 4, 1],
    "expand_ratios": [1, 6, 6, 6, 6, 6, 6],
    "squeeze_expansion_ratio": 0.25,
    "depthwise_padding": [],
    "hidden_act": "swish",
    "pooling_type": "mean",
    "batch_norm_eps": 0.001,
}


def read_transformers(data: Mapping[str, Any]) -> ALIGNConfig:
    """`config.json` of an `AlignModel`, and ours, which may hold `image_projection`.

    Raises `BadConfig` naming what is unknown or not supported.
    """
    fields = Released(data)
    vision = fields.part("vision_config")
    cfg = ALIGNConfig(
        image=_read_image(vision),
        text=bert.read_fields(fields.part("text_config"), pooler=True),
        embed=fields.size("projection_dim", 640),
        image_head=fields.take("image_projection", bool, False),
        temperature=fields.positive("temperature_init_value", 1.0),
    )
    fields.finish()
    width = cfg.image.widths[-1]
    if not cfg.image_head and cfg.embed != width:
        raise BadConfig(
            f"{fields.where}.projection_dim: texts are projected to the width of the image encoder, {width}; got "
            f"{cfg.embed}"
        )
    return cfg


def _read_image(fields: Released) -> EfficientNetConfig:
    scales = fields.positive("width_coefficient", 2.0), fields.positive("depth_coefficient", 3.1)
    for name, value in _FIXED.items():
        fields.demand(name, value)
    fields.skip("drop_connect_rate", "num_hidden_layers")  # stochastic depth, and what follows from the scales
    fields.size("hidden_dim", 2560)  # what pooling is done by: 640 in the released file
    size = fields.size("image_size", 600)
    kept = fields.take("batch_norm_momentum", float, 0.99)
    if not 0 < kept < 1:
        raise BadConfig(f"{fields.where}.batch_norm_momentum: expected a share between 0 and 1; got {kept}")
    fields.finish()
    if _keeps_width(scales[0]):
        raise BadConfig(f"{fields.where}.width_coefficient: {_RESIDUAL.format(scales[0])}")
    for variant, (*released, _) in SIZES.items():
        if tuple(released) == scales and not variant.startswith("lite"):
            return align_image(variant=cast(Variant, variant), image_size=size, momentum=_other_share(kept))
    return align_image(scales=scales, image_size=size, momentum=_other_share(kept))


def _other_share(momentum: float) -> float:
    """TensorFlow's momentum for PyTorch's and the reverse, with no trace of the subtraction left in the last digits."""
    return round(1 - momentum, 9)


# EfficientNet adds a block's input to its output wherever both have one shape; the reference class never does for the
# first block of a stage. At the released widths such a block always changes the number of channels.
_RESIDUAL = (
    "at a width multiplier of {} a stage of stride 1 begins with as many channels as it ends with, for which "
    "AlignModel and EfficientNet give different numbers; 0.5 or more does"
)


def _keeps_width(multiplier: float) -> bool:
    """Whether a stage of stride 1 (the first, the fifth, the seventh) has as many channels as what comes before."""
    widths = [round_width(n, multiplier) for n in (32, 16, 80, 112, 192, 320)]
    return any(before == after for before, after in zip(widths[::2], widths[1::2], strict=True))


def write_transformers(cfg: ALIGNConfig) -> dict[str, Any]:
    """The `config.json` from which the reference class builds the same network, where it has such a one.

    Raises `BadConfig` for encoders that the layout does not have.
    """
    image = cfg.image
    if not cfg.text.pooler or image != align_image(
        variant=image.variant, scales=image.scales, image_size=image.image_size, momentum=image.momentum
    ):
        raise BadConfig(
            "AlignModel has a text encoder with a pooler, and an image encoder with neither head nor classes"
        )
    wide, deep = image.multipliers
    if _keeps_width(wide):
        raise BadConfig(_RESIDUAL.format(wide))
    return {
        "architectures": ["AlignModel"],
        "model_type": "align",
        "projection_dim": cfg.embed,
        "temperature_init_value": cfg.temperature,
        "vision_config": {
            "model_type": "align_vision_model",
            "width_coefficient": wide,
            "depth_coefficient": deep,
            "hidden_dim": image.widths[-1],
            "image_size": image.image_size,
            "batch_norm_momentum": _other_share(image.momentum),
            **_FIXED,
        },
        "text_config": {**bert.write_transformers(cfg.text), "model_type": "align_text_model"},
        **({"image_projection": True} if cfg.image_head else {}),
    }
