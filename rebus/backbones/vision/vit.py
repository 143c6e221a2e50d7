"""ViT: cut the image into patches, treat each as a word, read them with a transformer.

Dosovitskiy et al., "An Image is Worth 16x16 Words", 2020.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rebus.core.outputs import RegionFeatures
from rebus.nn.attention import Attention
from rebus.nn.block import Block
from rebus.nn.linear import xavier
from rebus.nn.norms import LayerNorm
from rebus.nn.patches import PatchProjection
from rebus.nn.positions import resize_grid
from rebus.nn.region_grid import grid_regions


@dataclass(frozen=True, kw_only=True)
class ViTConfig:
    width: int = 768
    num_layers: int = 12
    num_heads: int = 12
    mlp_width: int = 3072
    patch_size: int = 16
    image_size: int = 224
    act: Literal["gelu", "gelu_tanh", "quick_gelu"] = "gelu_tanh"
    eps: float = 1e-6
    num_channels: int = 3
    class_token: bool = False  # CLIP: a learned token in front; it also brings a norm before the blocks and a patch
    # projection without bias, which were published together
    flat_patches: bool = False  # NaFlex: patches arrive already cut, the projection is a linear layer

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches; what a patch does not fill at the right and the bottom is not seen."""
        return (self.image_size // self.patch_size,) * 2


class ViT(nn.Module):
    """Pixels → one vector a patch. `features` before the last norm, `forward` after it.

    `antialias`: how positions are resized to other image sizes, open_clip's way or transformers'.
    """

    antialias = False

    def __init__(self, cfg: ViTConfig):
        super().__init__()
        self.cfg = cfg
        rows, cols = cfg.grid
        patch_inputs = cfg.num_channels * cfg.patch_size**2
        if cfg.flat_patches:
            self.patch: nn.Module = nn.Linear(patch_inputs, cfg.width)
        else:
            self.patch = PatchProjection(cfg.num_channels, cfg.width, cfg.patch_size, bias=not cfg.class_token)
        self.class_token = nn.Parameter(torch.zeros(cfg.width)) if cfg.class_token else None
        self.positions = nn.Parameter(torch.zeros(rows * cols + cfg.class_token, cfg.width))
        self.norm_pre = LayerNorm(cfg.width, cfg.eps) if cfg.class_token else nn.Identity()
        self.blocks = nn.ModuleList(
            Block(cfg.width, cfg.num_heads, cfg.mlp_width, act=cfg.act, eps=cfg.eps) for _ in range(cfg.num_layers)
        )
        self.norm = LayerNorm(cfg.width, cfg.eps)
        self.init_weights()

    def init_weights(self) -> None:
        """The initial values of the reference runs: Xavier for linear layers, positions with std 1/√width."""
        xavier(self)
        std = self.cfg.width**-0.5
        nn.init.normal_(self.positions, std=std)
        if self.class_token is not None:
            nn.init.normal_(self.class_token, std=std)

    def resized_positions(self, table: Float[Tensor, "Q D"]) -> Float[Tensor, "P D"]:
        """Positions of a network for square images of another size, as training at this one's begins with: bilinear
        from corner to corner (the loading of big_vision's `vit.py`)."""
        lead = int(self.cfg.class_token)
        side = math.isqrt(len(table) - lead)
        grid = resize_grid(
            table[lead:], (side, side), self.cfg.grid, mode="bilinear", antialias=False, align_corners=True
        )
        return torch.cat([table[:lead], grid])

    def embed(self, pixels: Float[Tensor, "B C Y X"]) -> Float[Tensor, "B P D"]:
        """Patches with their positions, class token in front; the table is resized to other image sizes."""
        rows, cols = (side // self.cfg.patch_size for side in pixels.shape[-2:])
        x = self.patch(pixels)
        table: Tensor = self.positions
        if self.class_token is not None:
            x = torch.cat([self.class_token.to(x.dtype).expand(len(x), 1, -1), x], dim=1)
            spatial = resize_grid(table[1:], self.cfg.grid, (rows, cols), antialias=self.antialias)
            table = torch.cat([table[:1], spatial])
        else:
            table = resize_grid(table, self.cfg.grid, (rows, cols), antialias=self.antialias)
        return self.norm_pre(x + table)

    def embed_patches(self, patches: Float[Tensor, "B P F"], grid: Int[Tensor, "B 2"]) -> Float[Tensor, "B P D"]:
        """NaFlex: patches of images of any shape, `grid` = rows and columns of each; the rest of P is padding."""
        x = self.patch(patches)
        positions = torch.zeros_like(x)
        for i, (rows, cols) in enumerate(grid.tolist()):
            table = resize_grid(self.positions, self.cfg.grid, (rows, cols), mode="bilinear", antialias=True)
            positions[i, : rows * cols] = table
            positions[i, rows * cols :] = table[0]  # masked padding; the value is the reference's
        return x + positions

    def features(
        self, x: Float[Tensor, "B P D"], mask: Bool[Tensor, "B 1 1 P"] | None = None
    ) -> Float[Tensor, "B P D"]:
        """Embedded patches through the blocks, before the last norm."""
        for block in self.blocks:
            x = block(x, mask)
        return x

    def forward(self, pixels: Float[Tensor, "B C Y X"]) -> Float[Tensor, "B P D"]:
        return self.norm(self.features(self.embed(pixels)))

    def pooled(self, pixels: Float[Tensor, "B C Y X"]) -> Float[Tensor, "B D"]:
        """One vector an image: the class token, or the mean of the patches where there is none."""
        x = self(pixels)
        return x.mean(dim=1) if self.class_token is None else x[:, 0]

    def region_features(
        self, pixels: Float[Tensor, "B C Y X"], num_regions: int | None = None, merge: int = 1
    ) -> list[RegionFeatures]:
        """All patches as regions, `merge` × `merge` of them in one."""
        x = self(pixels)[:, self.cfg.class_token :]
        rows, cols = (side // self.cfg.patch_size for side in pixels.shape[-2:])
        return grid_regions(x.mT.unflatten(2, (rows, cols)), merge)


def init_like_clip(blocks: nn.ModuleList, width: int) -> None:
    """Initial values of CLIP's transformers: they shrink with the depth so that residual sums keep their scale.

    Source: the released training code; spec §3.
    """
    attn_std = width**-0.5
    out_std = attn_std * (2 * len(blocks)) ** -0.5
    for block in blocks:
        assert isinstance(block, Block)
        attn: Attention = block.attn
        for layer, std in (
            (attn.q, attn_std),
            (attn.k, attn_std),
            (attn.v, attn_std),
            (attn.out, out_std),
            (block.mlp.up, (2 * width) ** -0.5),
            (block.mlp.down, out_std),
        ):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)
