"""CLIP's ResNet: three stem convolutions, blurred strides, and attention instead of average pooling.

Radford et al. 2021, Sec. 2.4; the released code for the details.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from rebus.nn.attention import Attention
from rebus.nn.linear import Linear
from rebus.nn.positions import resize_grid
from rebus.weights.key_sides import Row


@dataclass(frozen=True, kw_only=True)
class CLIPResNetConfig:
    layers: tuple[int, int, int, int] = (3, 4, 6, 3)
    width: int = 64
    image_size: int = 224
    embed: int = 1024  # the attention pool projects to the shared space
    head_width: int = 64  # of the attention pool

    @property
    def patch_size(self) -> int:
        """Pixels either way that a place of the last grid stands for."""
        return 32

    @property
    def num_heads(self) -> int:
        return self.width * 32 // self.head_width


class Bottleneck(nn.Module):
    """1×1, 3×3, 1×1, with the stride as an average pool after the second convolution and before the shortcut."""

    def __init__(self, num_inputs: int, width: int, stride: int):
        super().__init__()
        num_outputs = 4 * width
        self.conv1 = nn.Conv2d(num_inputs, width, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.pool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.conv3 = nn.Conv2d(width, num_outputs, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(num_outputs)
        self.shortcut = nn.ModuleDict()
        if stride > 1 or num_inputs != num_outputs:
            self.shortcut["conv"] = nn.Conv2d(num_inputs, num_outputs, 1, bias=False)
            self.shortcut["norm"] = nn.BatchNorm2d(num_outputs)

    def forward(self, x: Float[Tensor, "B C Y X"]) -> Float[Tensor, "B O V W"]:
        y = F.relu(self.norm1(self.conv1(x)))
        y = F.relu(self.norm2(self.conv2(y)))
        y = self.norm3(self.conv3(self.pool(y)))
        if self.shortcut:
            x = self.shortcut["norm"](self.shortcut["conv"](self.pool(x)))
        return F.relu(y + x)


class CLIPResNet(nn.Module):
    """Pixels → (B, E), before it is made unit length. Images are seen at 1/32 of their size."""

    def __init__(self, cfg: CLIPResNetConfig):
        super().__init__()
        self.cfg = cfg
        w = cfg.width
        self.stem = nn.ModuleList(
            nn.ModuleDict(
                {
                    "conv": nn.Conv2d(a, b, 3, stride, padding=1, bias=False),
                    "norm": nn.BatchNorm2d(b),
                }
            )
            for a, b, stride in ((3, w // 2, 2), (w // 2, w // 2, 1), (w // 2, w, 1))
        )
        self.stages = nn.ModuleList()
        num_inputs = w
        for stage, depth in enumerate(cfg.layers):
            width = w * 2**stage
            blocks = []
            for i in range(depth):
                blocks.append(Bottleneck(num_inputs, width, stride=2 if stage and not i else 1))
                num_inputs = 4 * width
            self.stages.append(nn.Sequential(*blocks))
        side = cfg.image_size // cfg.patch_size
        self.positions = nn.Parameter(torch.zeros(side * side + 1, num_inputs))
        self.pool = Attention(num_inputs, cfg.num_heads)
        self.pool.out = Linear(num_inputs, cfg.embed)
        self.init_weights()

    def init_weights(self) -> None:
        """The last norm of each bottleneck starts at zero, so that a block starts as its shortcut."""
        std = self.positions.shape[1] ** -0.5
        nn.init.normal_(self.positions, std=std)
        for layer in (self.pool.q, self.pool.k, self.pool.v, self.pool.out):
            nn.init.normal_(layer.weight, std=std)
        for module in self.modules():
            if isinstance(module, Bottleneck):
                nn.init.zeros_(module.norm3.weight)

    @property
    def blocks(self) -> list[nn.Module]:
        """The bottlenecks of all stages, in order (`rebus.nn.blocks`)."""
        return [block for stage in self.stages for block in stage]  # type: ignore[attr-defined]

    def forward(self, pixels: Float[Tensor, "B 3 Y X"]) -> Float[Tensor, "B E"]:
        x = pixels
        for layer in self.stem:
            x = F.relu(layer["norm"](layer["conv"](x)))  # type: ignore[index]
        x = F.avg_pool2d(x, 2)
        for stage in self.stages:
            x = stage(x)
        grid = (x.shape[-2], x.shape[-1])
        x = x.flatten(2).mT  # B P D
        side = self.cfg.image_size // self.cfg.patch_size
        table = torch.cat([self.positions[:1], resize_grid(self.positions[1:], (side, side), grid, antialias=False)])
        x = torch.cat([x.mean(1, keepdim=True), x], dim=1) + table
        return self.pool(x[:, :1], x)[:, 0]


_NORM = "{p:weight|bias|running_mean|running_var|num_batches_tracked}"
KEYS: list[Row] = [
    *((f"visual.conv{n}.weight", f"image.stem.{n - 1}.conv.weight") for n in (1, 2, 3)),
    *((f"visual.bn{n}.{_NORM}", f"image.stem.{n - 1}.norm.{_NORM}") for n in (1, 2, 3)),
    *(
        row
        for s in (1, 2, 3, 4)
        for n in (1, 2, 3)
        for row in (
            (f"visual.layer{s}.{{i}}.conv{n}.weight", f"image.stages.{s - 1}.{{i}}.conv{n}.weight"),
            (f"visual.layer{s}.{{i}}.bn{n}.{_NORM}", f"image.stages.{s - 1}.{{i}}.norm{n}.{_NORM}"),
        )
    ),
    *(
        row
        for s in (1, 2, 3, 4)
        for row in (
            (f"visual.layer{s}.{{i}}.downsample.0.weight", f"image.stages.{s - 1}.{{i}}.shortcut.conv.weight"),
            (f"visual.layer{s}.{{i}}.downsample.1.{_NORM}", f"image.stages.{s - 1}.{{i}}.shortcut.norm.{_NORM}"),
        )
    ),
    ("visual.attnpool.positional_embedding", "image.positions"),
    ("visual.attnpool.q_proj.{p}", "image.pool.q.{p}"),
    ("visual.attnpool.k_proj.{p}", "image.pool.k.{p}"),
    ("visual.attnpool.v_proj.{p}", "image.pool.v.{p}"),
    ("visual.attnpool.c_proj.{p}", "image.pool.out.{p}"),
]
