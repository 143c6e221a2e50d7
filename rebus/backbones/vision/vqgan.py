"""VQ-GAN: an image as a grid of words of a codebook, and back, so that a text model can read and write it.

Esser et al., "Taming Transformers for High-Resolution Image Synthesis", 2021; the shape is that of Chameleon's image
tokenizer (Gafni et al., "Make-A-Scene", 2022): 512 × 512 pixels become 32 × 32 codes of 8,192.

    pixels ──encoder──▶ features ──nearest words──▶ codes        halved at each level but the last
    codes ──words──▶ vectors ──decoder──▶ pixels                 doubled again

The modules are named as in the released file.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from rebus.core.config import from_dict, to_dict
from rebus.core.errors import BadCheckpoint, BadConfig, UsageError
from rebus.core.outputs import Quantised
from rebus.core.released_config import HARMLESS
from rebus.core.specs import ImageSpec
from rebus.core.system import Layout, System
from rebus.nn.attention import attend
from rebus.weights.key_sides import Row
from rebus.weights.keymap import KeyMap, OwnNames

_GROUPS = 32  # of the norms


@dataclass(frozen=True, kw_only=True)
class VQGANConfig:
    width: int = 128  # channels at the full size
    multiples: tuple[int, ...] = (1, 1, 2, 2, 4)  # of them at each level
    num_blocks: int = 2  # at each level of the encoder; the decoder has one more
    latent_width: int = 256
    code_width: int = 256
    num_codes: int = 8192
    image_size: int = 512

    def __post_init__(self) -> None:
        if not self.multiples or self.width % _GROUPS or min(self.multiples) < 1 or self.num_blocks < 1:
            raise BadConfig(
                f"a VQ-GAN expects levels of blocks whose width is a multiple of {_GROUPS}; got width {self.width}, "
                f"multiples {self.multiples}, num_blocks {self.num_blocks}"
            )
        if self.image_size % self.halvings or self.image_size < self.halvings:
            raise BadConfig(f"images of a VQ-GAN of this depth are multiples of {self.halvings} pixels wide")

    @property
    def halvings(self) -> int:
        """Pixels of a code, either way."""
        return 2 ** (len(self.multiples) - 1)

    @property
    def grid(self) -> tuple[int, int]:
        """Codes of an image: rows, columns."""
        side = self.image_size // self.halvings
        return side, side


class VQGAN(nn.Module):
    """Images ⇄ codes, row by row. `decoder=False`: only to codes."""

    keeps_float32 = True  # also where it is frozen in a training under autocast: see `encode`

    def __init__(self, cfg: VQGANConfig, decoder: bool = True):
        super().__init__()
        self.cfg = cfg
        self.encoder = Encoder(cfg)
        self.quant_conv = nn.Conv2d(cfg.latent_width, cfg.code_width, 1)
        self.quantize = nn.Module()
        self.quantize.embedding = nn.Embedding(cfg.num_codes, cfg.code_width)
        self.post_quant_conv = nn.Conv2d(cfg.code_width, cfg.latent_width, 1)
        self.decoder = Decoder(cfg) if decoder else None
        nn.init.uniform_(self.codebook, -1 / cfg.num_codes, 1 / cfg.num_codes)

    @property
    def codebook(self) -> Tensor:
        """(codes, E): the words."""
        table: Tensor = self.quantize.embedding.weight  # type: ignore[union-attr, assignment]
        return table

    def features(self, pixels: Float[Tensor, "B 3 Y X"]) -> Float[Tensor, "B P E"]:
        """What the encoder makes of images in [−1, 1], before words are chosen."""
        return self.quant_conv(self.encoder(pixels)).flatten(2).mT

    def nearest(self, features: Float[Tensor, "B P E"]) -> Int[Tensor, "B P"]:
        """The word at the least squared distance, in float32."""
        words, features = self.codebook.float(), features.float()
        return (words.square().sum(dim=-1) - 2 * features @ words.T).argmin(dim=-1)

    @torch.no_grad()
    def encode(self, pixels: Float[Tensor, "B 3 Y X"]) -> Int[Tensor, "B P"]:
        """Images in [−1, 1] → codes. Computed in float32 whatever the weights are: near the border of two words the
        rounding of bfloat16 decides which one is taken."""
        if self.codebook.dtype != torch.float32:
            weights = {f"of.{n}": p.float() for n, p in self.named_parameters() if not n.startswith("decoder.")}
            codes: Tensor = functional_call(_Codes(self), weights, (pixels.float(),))
            return codes
        with torch.autocast(pixels.device.type, enabled=False):
            return self.nearest(self.features(pixels.float()))

    def decode(self, codes: Int[Tensor, "B P"]) -> Float[Tensor, "B 3 Y X"]:
        """Codes → images, around [−1, 1]."""
        return self.draw(F.embedding(codes, self.codebook))

    def draw(self, vectors: Float[Tensor, "B P E"]) -> Float[Tensor, "B 3 Y X"]:
        """The decoder alone. Raises `UsageError` where there is none."""
        if self.decoder is None:
            raise UsageError("this VQ-GAN has no decoder: it turns images into codes, and no codes into images")
        side = round(vectors.shape[1] ** 0.5)  # images are squares
        pixels: Tensor = self.decoder(self.post_quant_conv(vectors.mT.unflatten(2, (side, side))))
        return pixels

    def draw_images(self, codes: Int[Tensor, "B P"]) -> Float[Tensor, "B 3 Y X"]:
        """Codes → images in [0, 1] (`rebus.core.capabilities.DrawsImages`)."""
        return (self.decode(codes).clamp(-1, 1) + 1) / 2

    def forward(self, pixels: Float[Tensor, "B 3 Y X"]) -> Quantised:
        """For training: the gradient of the output passes straight through the choice of words to the features."""
        features = self.features(pixels)
        codes = self.nearest(features)
        vectors = F.embedding(codes, self.codebook)
        return Quantised(self.draw(features + (vectors - features).detach()), features, vectors, codes)

    @torch.no_grad()
    def seed_codebook(self, pixels: Float[Tensor, "B 3 Y X"], generator: torch.Generator | None = None) -> None:
        """Set the words to features of these images, drawn at random. Before training, or most are never chosen."""
        found = self.features(pixels).flatten(0, 1)
        picked = torch.randint(len(found), (self.cfg.num_codes,), generator=generator)
        self.codebook.copy_(found[picked.to(found.device)])


class _Codes(nn.Module):
    """`VQGAN.encode` as a module of its own, for `functional_call`."""

    def __init__(self, of: VQGAN):
        super().__init__()
        self.of = of

    def forward(self, pixels: Tensor) -> Tensor:
        return self.of.nearest(self.of.features(pixels))


class Encoder(nn.Module):
    def __init__(self, cfg: VQGANConfig):
        super().__init__()
        self.conv_in = nn.Conv2d(3, cfg.width, 3, padding=1)
        self.down = nn.ModuleList()
        width = cfg.width
        for level, multiple in enumerate(cfg.multiples):
            down = nn.Module()
            down.block = nn.Sequential()
            for _ in range(cfg.num_blocks):
                down.block.append(ResidualBlock(width, cfg.width * multiple))
                width = cfg.width * multiple
            down.downsample = Downsample(width) if level + 1 < len(cfg.multiples) else nn.Identity()
            self.down.append(down)
        self.mid = Middle(width)
        self.norm_out = _norm(width)
        self.conv_out = nn.Conv2d(width, cfg.latent_width, 3, padding=1)

    def forward(self, pixels: Float[Tensor, "B 3 Y X"]) -> Float[Tensor, "B C R Q"]:
        x = self.conv_in(pixels)
        for level in self.down:
            x = level.downsample(level.block(x))  # type: ignore[operator]
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    def __init__(self, cfg: VQGANConfig):
        super().__init__()
        width = cfg.width * cfg.multiples[-1]
        self.conv_in = nn.Conv2d(cfg.latent_width, width, 3, padding=1)
        self.mid = Middle(width)
        ups = []
        for level in reversed(range(len(cfg.multiples))):
            up = nn.Module()
            up.block = nn.Sequential()
            for _ in range(cfg.num_blocks + 1):
                up.block.append(ResidualBlock(width, cfg.width * cfg.multiples[level]))
                width = cfg.width * cfg.multiples[level]
            up.upsample = Upsample(width) if level else nn.Identity()
            ups.append(up)
        self.up = nn.ModuleList(reversed(ups))  # the first is that of the full size, and comes last
        self.norm_out = _norm(width)
        self.conv_out = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x: Float[Tensor, "B C R Q"]) -> Float[Tensor, "B 3 Y X"]:
        x = self.mid(self.conv_in(x))
        for level in reversed(self.up):
            x = level.upsample(level.block(x))  # type: ignore[operator]
        return self.conv_out(F.silu(self.norm_out(x)))


class Middle(nn.Module):
    """Two residual blocks round the only attention."""

    def __init__(self, width: int):
        super().__init__()
        self.block_1 = ResidualBlock(width, width)
        self.attn_1 = GridAttention(width)
        self.block_2 = ResidualBlock(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class ResidualBlock(nn.Module):
    def __init__(self, before: int, after: int):
        super().__init__()
        self.norm1, self.conv1 = _norm(before), nn.Conv2d(before, after, 3, padding=1)
        self.norm2, self.conv2 = _norm(after), nn.Conv2d(after, after, 3, padding=1)
        self.nin_shortcut = nn.Identity() if before == after else nn.Conv2d(before, after, 1)

    def forward(self, x: Float[Tensor, "B C Y X"]) -> Float[Tensor, "B D Y X"]:
        y = self.conv1(F.silu(self.norm1(x)))
        return self.nin_shortcut(x) + self.conv2(F.silu(self.norm2(y)))


class GridAttention(nn.Module):
    """Each place of the grid looks at all of them, with one head."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = _norm(width)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(width, width, 1) for _ in range(4))

    def forward(self, x: Float[Tensor, "B C Y X"]) -> Float[Tensor, "B C Y X"]:
        y = self.norm(x)
        q, k, v = (part(y).flatten(2).mT[:, None] for part in (self.q, self.k, self.v))  # B 1 P C
        return x + self.proj_out(attend(q, k, v)[:, 0].mT.unflatten(2, x.shape[2:]))


class Downsample(nn.Module):
    """Halved; one pixel of zeros to the right and at the bottom."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Float[Tensor, "B C Y X"]) -> Float[Tensor, "B C R Q"]:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Doubled: each pixel four times, then mixed."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Float[Tensor, "B C R Q"]) -> Float[Tensor, "B C Y X"]:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


def _norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(_GROUPS, width, eps=1e-6)


_BLOCK = "{n:norm1|norm2|conv1|conv2|nin_shortcut}.{p}"
_NAMES = [
    "{s:encoder|decoder}.{n:conv_in|conv_out|norm_out}.{p}",
    "{s:encoder|decoder}.mid.{b:block_1|block_2}." + _BLOCK,
    "{s:encoder|decoder}.mid.attn_1.{n:norm|q|k|v|proj_out}.{p}",
    "encoder.down.{i}.block.{j}." + _BLOCK,
    "decoder.up.{i}.block.{j}." + _BLOCK,
    "encoder.down.{i}.downsample.conv.{p}",
    "decoder.up.{i}.upsample.conv.{p}",
    "quantize.embedding.weight",
    "{n:quant_conv|post_quant_conv}.{p}",
]
ROWS: list[Row] = [(name, name) for name in _NAMES]
"""The names of the release, which are ours, for models that hold a VQ-GAN."""

TINY = VQGANConfig(
    width=32, multiples=(1, 1, 2), num_blocks=1, latent_width=8, code_width=6, num_codes=16, image_size=12
)


PRESETS = {"tiny": TINY, "release": VQGANConfig()}


def infer_config(shapes: Mapping[str, tuple[int, ...]]) -> VQGANConfig:
    """The configuration that arrays of these shapes were made with, but for the size of images, which they do not say.

    Raises `BadCheckpoint` naming an array that is missing.
    """

    def count(name: str) -> int:
        return next(i for i in range(len(shapes) + 1) if name.format(i) not in shapes)

    try:
        width = shapes["encoder.conv_in.weight"][0]
        levels = range(count("encoder.down.{}.block.0.conv1.weight"))
        num_codes, code_width = shapes["quantize.embedding.weight"]
        return VQGANConfig(
            width=width,
            multiples=tuple(shapes[f"encoder.down.{i}.block.0.conv1.weight"][0] // width for i in levels),
            num_blocks=count("encoder.down.0.block.{}.conv1.weight"),
            latent_width=shapes["encoder.conv_out.weight"][0],
            code_width=code_width,
            num_codes=num_codes,
        )
    except (KeyError, ValueError, IndexError) as error:
        raise BadCheckpoint(f"VQ-GAN: no array {error} of the shape that it has in Chameleon's") from None


def _read_config(data: Mapping[str, Any]) -> VQGANConfig:
    return from_dict(VQGANConfig, {k: v for k, v in data.items() if k not in HARMLESS}, "config.json")


SYSTEM = System(
    name="vqgan",
    network=VQGAN,
    config=VQGANConfig,
    presets=PRESETS,
    layouts={
        "transformers": Layout(
            name="transformers",
            keys=lambda cfg: OwnNames(),
            read_config=_read_config,
            write_config=lambda cfg: {"model_type": "vqgan", **to_dict(cfg)},
        ),
        "taming": Layout(
            name="taming",
            keys=lambda cfg: KeyMap(ROWS, ignore=["loss.*"]),
            config_file=None,
            recognises=lambda names: {"quantize.embedding.weight", "post_quant_conv.weight"} <= set(names),
            infer_config=infer_config,
        ),
    },
    image_spec=lambda cfg: ImageSpec(
        size=(cfg.image_size, cfg.image_size), resize="shorter", resample="lanczos", rounding="even"
    ),
    objective="codebook",
)
