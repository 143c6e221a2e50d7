"""What stands between a frozen image encoder and a frozen language model: the Perceiver Resampler and the gated
cross-attention blocks of Flamingo (Alayrac et al., 2022, Sec. 3.1 and 3.2), and what each token may look at.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from rebus.nn.attention import Attention, KeysValues
from rebus.nn.mlp import MLP, GatedMLP
from rebus.nn.norms import LayerNorm


@dataclass(frozen=True, kw_only=True)
class ResamplerConfig:
    num_layers: int = 6
    num_heads: int = 8
    head_width: int = 64
    num_latents: int = 64  # vectors that an image or a clip becomes
    width: int | None = None  # of these; None: that of the features, which are projected to another one first
    act: Literal["gelu", "relu", "squared_relu"] = "gelu"
    qk_norm: bool = False
    num_frames: int = 1  # of the clips that it was trained on; 1: images alone, without vectors of time


@dataclass(frozen=True, kw_only=True)
class CrossConfig:
    every: int = 1  # blocks of the language model
    first: int = 0  # the block that the first one stands before
    num_heads: int = 8
    head_width: int = 64
    mlp_width: int = 8192
    norm: Literal["layer", "rms"] = "layer"
    eps: float = 1e-5
    gated_mlp: bool = False  # Llama's, of IDEFICS
    qk_norm: bool = False
    gates: Literal["one", "each"] = "one"  # one a block, or one for each channel
    text_alone: bool = False  # whether tokens that look at no image pass as they came, and not through the MLP either

    def places(self, num_layers: int) -> list[int]:
        """The blocks of the language model that one of these stands before."""
        return list(range(self.first, num_layers, self.every))


class ResamplerLayer(nn.Module):
    """The latents look at the image and at each other, then each thinks for itself."""

    split_parts = ("attn", "mlp")

    def __init__(self, width: int, cfg: ResamplerConfig):
        super().__init__()
        norm = LayerNorm if cfg.qk_norm else None
        self.norm_media = LayerNorm(width)
        self.norm1 = LayerNorm(width)
        self.attn = Attention(width, cfg.num_heads, head_width=cfg.head_width, bias=False, qk_norm=norm)
        self.norm2 = LayerNorm(width)
        self.mlp = MLP(width, 4 * width, cfg.act, bias=False)

    def forward(self, latents: Float[Tensor, "M Q D"], media: Float[Tensor, "M P D"]) -> Float[Tensor, "M Q D"]:
        own = self.norm1(latents)
        latents = latents + self.attn(own, torch.cat([self.norm_media(media), own], dim=1))
        return latents + self.mlp(self.norm2(latents))


class Resampler(nn.Module):
    """Any number of features of an image, or of the frames of a clip → `num_latents` vectors of the same width, or of
    that of the configuration."""

    def __init__(self, features: int, cfg: ResamplerConfig):
        super().__init__()
        self.width = width = features if cfg.width is None else cfg.width
        self.project = nn.Identity() if width == features else nn.Linear(features, width)
        self.latents = nn.Parameter(torch.empty(cfg.num_latents, width))
        self.times = nn.Parameter(torch.empty(cfg.num_frames, width)) if cfg.num_frames > 1 else None
        self.blocks = nn.ModuleList(ResamplerLayer(width, cfg) for _ in range(cfg.num_layers))
        self.norm = LayerNorm(width)
        self.init_weights()

    def init_weights(self) -> None:
        """Standard normal vectors, as the released code; linear layers are as PyTorch makes them."""
        nn.init.normal_(self.latents)
        if self.times is not None:
            nn.init.normal_(self.times)

    def forward(self, features: Float[Tensor, "M F P D"]) -> Float[Tensor, "M Q E"]:
        """F frames of M images or clips. Beyond the frames of training, the vectors of time are interpolated."""
        features = self.project(features)
        if self.times is not None:
            features = features + self._times(features.shape[1])[:, None].to(features.dtype)
        media = features.flatten(1, 2)
        latents = self.latents.to(media.dtype).expand(len(media), -1, -1)
        for block in self.blocks:
            latents = block(latents, media)
        return self.norm(latents)

    def _times(self, frames: int) -> Float[Tensor, "F D"]:
        assert self.times is not None
        if frames <= len(self.times):
            return self.times[:frames]
        return F.interpolate(self.times.mT[None], frames, mode="linear", align_corners=True)[0].mT


class GainRMSNorm(nn.RMSNorm):
    """RMSNorm in the precision of its gain: autocast leaves keys and queries in bfloat16."""

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        return super().forward(x.to(self.weight.dtype)).to(x.dtype)


class GatedCrossAttention(nn.Module):
    """x + tanh(attn_gate) · attn(norm1(x), image), then x + tanh(mlp_gate) · mlp(norm2(x)): nothing, while both gates
    are closed."""

    split_parts = ("attn", "mlp")

    def __init__(self, width: int, media_width: int, cfg: CrossConfig):
        super().__init__()
        self.text_alone = cfg.text_alone

        def norm(width: int) -> nn.Module:
            return LayerNorm(width, cfg.eps) if cfg.norm == "layer" else GainRMSNorm(width, cfg.eps)

        self.norm1 = norm(width)
        self.attn = Attention(
            width,
            cfg.num_heads,
            head_width=cfg.head_width,
            context_width=media_width,
            bias=False,
            qk_norm=norm if cfg.qk_norm else None,
        )
        self.attn_gate = nn.Parameter(torch.zeros(1 if cfg.gates == "one" else width))
        self.norm2 = norm(width)
        self.mlp = GatedMLP(width, cfg.mlp_width, "silu") if cfg.gated_mlp else MLP(width, cfg.mlp_width, bias=False)
        self.mlp_gate = nn.Parameter(torch.zeros_like(self.attn_gate))

    def forward(
        self, x: Float[Tensor, "B S D"], seen: KeysValues | None, mask: Bool[Tensor, "B 1 S M"] | None
    ) -> Float[Tensor, "B S D"]:
        """`seen`: keys and values of the images, None where there is none at all. A token that may look at nothing
        gets nothing from the attention; its MLP works all the same, unless text is left alone."""
        if seen is None or mask is None:
            return x if self.text_alone else self._think(x)
        blind = ~mask.any(dim=-1, keepdim=True)
        attended = self.attn.look_up(self.norm1(x), seen, mask | blind)
        after = self._think(x + self.attn_gate.tanh() * attended.masked_fill(blind[:, 0], 0))
        return torch.where(blind[:, 0], x, after) if self.text_alone else after

    def _think(self, x: Float[Tensor, "B S D"]) -> Float[Tensor, "B S D"]:
        return x + self.mlp_gate.tanh() * self.mlp(self.norm2(x))


class Sight(NamedTuple):
    """The images of rows of text, as each cross-attention block reads them: `seen`, keys and values (B, H, N · Q, K),
    and `order` (B, N), the number of each image among those of its row; −1 where there is none.

    A token sees the image whose number is how many image tokens were read up to it, itself included. Of text that goes
    on after a cache, image 0 is the last one before.
    """

    seen: tuple[KeysValues, ...]
    order: Int[Tensor, "B N"]

    def mask(self, time: Int[Tensor, "B S"]) -> Bool[Tensor, "B 1 S M"]:
        """What each token may look at, `time` being how many images were begun up to it."""
        latents = self.seen[0][0].shape[2] // self.order.shape[1]
        return (time[:, :, None] == self.order[:, None]).repeat_interleave(latents, dim=2)[:, None]

    def last(self, time: Int[Tensor, "B"]) -> "Sight":
        """The image that is looked at by what comes next."""
        match = self.order == time[:, None]
        at = match.long().argmax(dim=1)
        rows = torch.arange(len(at), device=at.device)

        def of(x: Tensor) -> Tensor:  # B H (N Q) K
            return x.unflatten(2, (self.order.shape[1], -1))[rows, :, at]

        return Sight(tuple((of(k), of(v)) for k, v in self.seen), match.any(dim=1, keepdim=True).long() - 1)

    def select(self, rows: Int[Tensor, "R"]) -> "Sight":
        """The given rows, repeats allowed."""
        return Sight(tuple((k[rows], v[rows]) for k, v in self.seen), self.order[rows])

    def blind(self, rows: int) -> "Sight":
        """As many rows without an image."""
        seen = tuple((k.new_zeros(rows, *k.shape[1:]), v.new_zeros(rows, *v.shape[1:])) for k, v in self.seen)
        return Sight(seen, self.order.new_full((rows, self.order.shape[1]), -1))

    def put(self, rows: Int[Tensor, "J"], new: "Sight") -> "Sight":
        """The images that each row looks at (`last`), those of `new` in place of those of the given rows."""
        both = zip(self.seen, new.seen, strict=True)
        seen = tuple((k.index_copy(0, rows, n), v.index_copy(0, rows, m)) for (k, v), (n, m) in both)
        return Sight(seen, self.order.index_copy(0, rows, new.order))

    def then(self, new: "Sight") -> "Sight":
        """The images of both, side by side."""
        seen = zip(self.seen, new.seen, strict=True)
        both = tuple((torch.cat([k, n], dim=2), torch.cat([v, m], dim=2)) for (k, v), (n, m) in seen)
        return Sight(both, torch.cat([self.order, new.order], dim=1))
