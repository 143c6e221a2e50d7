"""DaViT: attention among the places of a window, then attention among the channels of the whole image, in turn.

Ding et al., "DaViT: Dual Attention Vision Transformers", 2022, as Florence-2 has it (Xiao et al. 2024): a depthwise
convolution before each attention and each MLP, no norm and no head at the end.

    channel attention: a group's channels are the tokens and all places of the image their features, so that every
    score looks at the whole image at a cost that grows with its size, not with the square of it
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from rebus.core.errors import BadConfig
from rebus.core.released_config import Released
from rebus.core.specs import ImageSpec
from rebus.core.system import Layout, System
from rebus.nn.attention import Attention
from rebus.nn.drop_path import DropPath
from rebus.nn.mlp import MLP
from rebus.nn.norms import LayerNorm
from rebus.weights.key_sides import Row
from rebus.weights.keymap import KeyMap

EPS = 1e-5


@dataclass(frozen=True, kw_only=True)
class DaViTConfig:
    """One number a stage in each tuple."""

    widths: tuple[int, ...] = (128, 256, 512, 1024)
    depths: tuple[int, ...] = (1, 1, 9, 1)  # pairs of a spatial and a channel block
    num_heads: tuple[int, ...] = (4, 8, 16, 32)
    num_groups: tuple[int, ...] = (4, 8, 16, 32)
    patch_sizes: tuple[int, ...] = (7, 3, 3, 3)
    strides: tuple[int, ...] = (4, 2, 2, 2)
    paddings: tuple[int, ...] = (3, 1, 1, 1)
    window: int = 12
    mlp_ratio: float = 4.0
    drop_path: float = 0.1  # of the last block in training; it grows from 0 with depth
    image_size: int = 768

    def __post_init__(self) -> None:
        for name in ("depths", "num_heads", "num_groups", "patch_sizes", "strides", "paddings"):
            if len(getattr(self, name)) != len(self.widths):
                raise BadConfig(f"{name}: expected {len(self.widths)} numbers, one a stage; got {getattr(self, name)}")
        for name in ("num_heads", "num_groups"):
            if any(parts < 1 or width % parts for width, parts in zip(self.widths, getattr(self, name), strict=True)):
                raise BadConfig(f"{name} {getattr(self, name)} do not divide the widths {self.widths}")
        if not 0 <= self.drop_path < 1:
            raise BadConfig(f"drop_path: expected a share below 1; got {self.drop_path}")

    @property
    def width(self) -> int:
        """Of what comes out."""
        return self.widths[-1]

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of what comes out of an image of `image_size`."""
        side = self.image_size
        for size, stride, padding in zip(self.patch_sizes, self.strides, self.paddings, strict=True):
            side = (side + 2 * padding - size) // stride + 1
        return side, side


_LARGE = {"widths": (256, 512, 1024, 2048), "num_heads": (8, 16, 32, 64), "num_groups": (8, 16, 32, 64)}
PRESETS = {
    "tiny": DaViTConfig(
        widths=(16, 24),
        depths=(1, 2),
        num_heads=(2, 3),
        num_groups=(2, 4),
        patch_sizes=(7, 3),
        strides=(4, 2),
        paddings=(3, 1),
        window=3,
        mlp_ratio=2.0,
        drop_path=0.0,
        image_size=32,
    ),
    "base": DaViTConfig(),
    "large": DaViTConfig(**_LARGE),  # type: ignore[arg-type]
}


class DaViT(nn.Module):
    """Images → a map of features at a 32nd of their size."""

    channels_last = True  # of what its blocks give, and itself

    def __init__(self, cfg: DaViTConfig):
        super().__init__()
        self.cfg = cfg
        rates = torch.linspace(0, cfg.drop_path, 2 * sum(cfg.depths), device="cpu").tolist()
        self.stages = nn.ModuleList()
        for stage, depth in enumerate(cfg.depths):
            self.stages.append(Stage(cfg, stage, [(rates.pop(0), rates.pop(0)) for _ in range(depth)]))
        self.init_weights()

    def init_weights(self) -> None:
        """Linear layers truncated N(0, 0.02), convolutions N(0, 0.02), biases zero, as the release has it."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, pixels: Float[Tensor, "B 3 Y X"]) -> Float[Tensor, "B V U D"]:
        """The features of each place, rows first."""
        x = pixels.permute(0, 2, 3, 1)
        for stage in self.stages:
            x = stage(x)
        return x


class Stage(nn.Module):
    """A convolution that makes the map smaller, and blocks. The first stage normalises after it, the others before."""

    def __init__(self, cfg: DaViTConfig, stage: int, rates: list[tuple[float, float]]):
        super().__init__()
        width, before = cfg.widths[stage], cfg.widths[stage - 1] if stage else 3
        size, stride, padding = cfg.patch_sizes[stage], cfg.strides[stage], cfg.paddings[stage]
        self.patch = nn.Conv2d(before, width, size, stride, padding)
        self.norm_first = stage > 0
        self.norm = LayerNorm(before if self.norm_first else width, EPS)
        self.blocks = nn.ModuleList(
            DualBlock(
                HalfBlock(WindowAttention(width, cfg.num_heads[stage], cfg.window), width, cfg.mlp_ratio, spatial),
                HalfBlock(ChannelAttention(width, cfg.num_groups[stage]), width, cfg.mlp_ratio, channel),
            )
            for spatial, channel in rates
        )

    def forward(self, x: Float[Tensor, "B Y X C"]) -> Float[Tensor, "B V U D"]:
        x = convolve(self.patch, self.norm(x)) if self.norm_first else self.norm(convolve(self.patch, x))
        for block in self.blocks:
            x = block(x)
        return x


class DualBlock(nn.Module):
    split_parts = ("spatial.attn", "spatial.mlp", "channel.attn", "channel.mlp")

    def __init__(self, spatial: nn.Module, channel: nn.Module):
        super().__init__()
        self.spatial, self.channel = spatial, channel

    def forward(self, x: Float[Tensor, "B Y X D"]) -> Float[Tensor, "B Y X D"]:
        return self.channel(self.spatial(x))


class HalfBlock(nn.Module):
    """A transformer block of one kind of attention; the depthwise convolutions say where things are."""

    def __init__(self, attn: nn.Module, width: int, mlp_ratio: float, drop_path: float):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm1, self.attn = LayerNorm(width, EPS), attn
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm2, self.mlp = LayerNorm(width, EPS), MLP(width, int(width * mlp_ratio))
        self.drop = DropPath(drop_path)

    def forward(self, x: Float[Tensor, "B Y X D"]) -> Float[Tensor, "B Y X D"]:
        x = x + convolve(self.conv1, x)
        x = x + self.drop(self.attn(self.norm1(x)))
        x = x + convolve(self.conv2, x)
        return x + self.drop(self.mlp(self.norm2(x)))


class WindowAttention(Attention):
    """Places see those of their window. A map is filled up to whole windows with zeros, which are seen like places."""

    def __init__(self, width: int, num_heads: int, window: int):
        super().__init__(width, num_heads)
        self.window = window

    def forward(self, x: Float[Tensor, "B Y X D"]) -> Float[Tensor, "B Y X D"]:  # type: ignore[override]
        rows, columns, w = x.shape[1], x.shape[2], self.window
        x = F.pad(x, (0, 0, 0, -columns % w, 0, -rows % w))
        down, right = x.shape[1] // w, x.shape[2] // w
        x = x.unflatten(2, (right, w)).unflatten(1, (down, w)).transpose(2, 3)  # B down right w w D
        x = super().forward(x.reshape(-1, w * w, x.shape[-1]))
        x = x.reshape(-1, down, right, w, w, x.shape[-1]).transpose(2, 3)
        return x.flatten(3, 4).flatten(1, 2)[:, :rows, :columns]


class ChannelAttention(Attention):
    """Channels see those of their group (DaViT, Sec. 3.2). The scale is of the number of places, not of channels."""

    def forward(self, x: Float[Tensor, "B Y X D"]) -> Float[Tensor, "B Y X D"]:  # type: ignore[override]
        places = x.flatten(1, 2)
        q, k, v = (self._heads(part, self.num_heads).mT for part in self._project(places, places))  # B G K (Y X)
        scores = (q * places.shape[1] ** -0.5) @ k.mT
        out = scores.softmax(-1, dtype=torch.float32).to(v.dtype) @ v
        return self.out(out.flatten(1, 2).mT).unflatten(1, x.shape[1:3])


def convolve(conv: nn.Module, x: Float[Tensor, "B Y X C"]) -> Float[Tensor, "B V U D"]:
    """A convolution of a map whose channels come last, which is how memory lies best."""
    return conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def rows(original: bool = False) -> list[Row]:
    """Names of the image encoder in transformers, or of the code that was released with the weights."""
    patch = "proj" if original else "conv"
    table: list[Row] = [
        (f"convs.{{i}}.{patch}.{{p}}", "stages.{i}.patch.{p}"),
        ("convs.{i}.norm.{p}", "stages.{i}.norm.{p}"),
    ]
    for kind, attention in (("spatial", "window_attn"), ("channel", "channel_attn")):
        theirs, ours = f"blocks.{{i}}.{{j}}.{kind}_block.", f"stages.{{i}}.blocks.{{j}}.{kind}."
        conv, fn, mlp = (".fn.dw", ".fn", ".fn.net") if original else ("", "", "")
        norms = (f"{attention}.norm", "ffn.norm") if original else ("norm1", "norm2")
        table += [
            *((f"{theirs}conv{n}{conv}.{{p}}", f"{ours}conv{n}.{{p}}") for n in (1, 2)),
            *((f"{theirs}{name}.{{p}}", f"{ours}norm{n}.{{p}}") for n, name in enumerate(norms, 1)),
            (f"{theirs}{attention}{fn}.qkv.{{p}}", tuple(f"{ours}attn.{part}.{{p}}" for part in "qkv")),
            (f"{theirs}{attention}{fn}.proj.{{p}}", f"{ours}attn.out.{{p}}"),
            (f"{theirs}ffn{mlp}.fc1.{{p}}", f"{ours}mlp.up.{{p}}"),
            (f"{theirs}ffn{mlp}.fc2.{{p}}", f"{ours}mlp.down.{{p}}"),
        ]
    return table


def read_vision(part: Released) -> DaViTConfig:
    """The `vision_config` of a Florence-2, whichever library wrote it; absent fields mean the base model."""
    cfg = DaViTConfig()
    part.demand("in_channels", 3)
    part.demand("qkv_bias", True)
    part.demand("activation_function", "gelu")
    stages = {"depths": cfg.depths, "num_heads": cfg.num_heads, "num_groups": cfg.num_groups}
    stages |= {"patch_size": cfg.patch_sizes, "patch_stride": cfg.strides, "patch_padding": cfg.paddings}
    found = {name: part.take(name, tuple[int, ...], default) for name, default in stages.items()}
    widths = part.take("dim_embed", tuple[int, ...], part.take("embed_dim", tuple[int, ...], cfg.widths))
    part.demand("patch_prenorm", [stage > 0 for stage in range(len(widths))])
    return DaViTConfig(
        widths=widths,
        depths=found["depths"],
        num_heads=found["num_heads"],
        num_groups=found["num_groups"],
        patch_sizes=found["patch_size"],
        strides=found["patch_stride"],
        paddings=found["patch_padding"],
        window=part.size("window_size", cfg.window),
        mlp_ratio=part.positive("mlp_ratio", cfg.mlp_ratio),
        drop_path=part.take("drop_path_rate", float, cfg.drop_path),
        image_size=part.size("image_size", cfg.image_size),
    )


def write_vision(cfg: DaViTConfig, original: bool = False) -> dict[str, Any]:
    """The reverse of `read_vision`; `image_size` is ours alone, and others pass it over."""
    return {
        "model_type": "davit" if original else "florence_vision",
        "dim_embed" if original else "embed_dim": list(cfg.widths),
        "depths": list(cfg.depths),
        "num_heads": list(cfg.num_heads),
        "num_groups": list(cfg.num_groups),
        "patch_size": list(cfg.patch_sizes),
        "patch_stride": list(cfg.strides),
        "patch_padding": list(cfg.paddings),
        "patch_prenorm": [stage > 0 for stage in range(len(cfg.widths))],
        "window_size": cfg.window,
        "mlp_ratio": cfg.mlp_ratio,
        "drop_path_rate": cfg.drop_path,
        "image_size": cfg.image_size,
    }


def read_transformers(data: Mapping[str, Any]) -> DaViTConfig:
    """`config.json` of a `Florence2VisionBackbone`."""
    fields = Released(data)
    fields.skip("projection_dim", "max_position_embeddings", "max_temporal_embeddings")
    cfg = read_vision(fields)
    fields.finish()
    return cfg


def image_spec(cfg: DaViTConfig) -> ImageSpec:
    """The whole image squashed to a square, bicubic; ImageNet's mean and deviation."""
    return ImageSpec(size=(cfg.image_size, cfg.image_size), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


SYSTEM = System(
    name="davit",
    network=DaViT,
    config=DaViTConfig,
    presets=PRESETS,
    layouts={
        "transformers": Layout(
            name="transformers",
            keys=lambda cfg: KeyMap(rows()),
            read_config=read_transformers,
            write_config=lambda cfg: {"architectures": ["Florence2VisionBackbone"], **write_vision(cfg)},
        )
    },
    image_spec=image_spec,
    any_image_size=True,
)
