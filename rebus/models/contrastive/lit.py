"""LiT: a locked image encoder teaches a text encoder its space.

Zhai et al., "LiT: Zero-Shot Transfer with Locked-image text Tuning", 2022. An image network that was trained on labels
already sees well; captions only have to teach words to read it. Its weights and its running statistics never move, and
only the way from its features into the shared space is learned (Sec. 4.2), beside the text encoder.

The image side reads the encoder's features and, where it is a classifier, its opinion: softmax(logits / 2) over
the classes, whose rows in the shared space begin as the classes' names (`begin_with`). Before the first step an image
is thus the mean of the names it resembles (Norouzi et al., "Zero-Shot Learning by Convex Combination of Semantic
Embeddings", 2013), so that few captions are enough; the paper's heads begin at random.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from rebus.backbones.examples import dual_encoder_example
from rebus.backbones.starter_networks import starter_networks
from rebus.backbones.text import bert
from rebus.backbones.text.bert import BERT, BERTConfig
from rebus.backbones.vision import efficientnet
from rebus.backbones.vision.efficientnet import EfficientNet, EfficientNetConfig
from rebus.core.config import from_dict, to_dict
from rebus.core.outputs import Embeddings
from rebus.core.released_config import HARMLESS
from rebus.core.specs import ImageSpec, TextSpec
from rebus.core.system import Assembled, Layout, System
from rebus.weights.keymap import OwnNames
from rebus.weights.lazy_tensor import Tensors
from rebus.weights.load_weights import load_into

SOFTNESS = 2.0  # of the classifier's opinion; `asif/starter` compares images with classes by the same


@dataclass(frozen=True, kw_only=True)
class LiTConfig:
    image: EfficientNetConfig = field(default_factory=lambda: EfficientNetConfig(variant="lite0"))
    text: BERTConfig = field(default_factory=lambda: bert.PRESETS["minilm_l6"])
    embed: int = 384
    scale: float = 20.0  # by which similarities are multiplied at first; learned


PRESETS = {
    "tiny": LiTConfig(image=EfficientNetConfig(variant="lite0", num_classes=11), text=bert.PRESETS["tiny"], embed=24),
    "starter": LiTConfig(text=bert.BERTConfig(width=384, num_layers=6, mlp_width=1536)),
}


class LiT(nn.Module):
    def __init__(self, cfg: LiTConfig, *, sees: bool = True):
        """`sees=False` leaves out what only images need."""
        super().__init__()
        self.cfg = cfg
        if sees:
            self.image = EfficientNet(cfg.image).requires_grad_(False)
        self.text = BERT(cfg.text)
        if sees:
            self.image_head = ImageHead(self.image.width, cfg.image.num_classes, cfg.embed)
        self.text_head = nn.Linear(cfg.text.width, cfg.embed)
        self.log_scale = nn.Parameter(torch.tensor(math.log(cfg.scale)))
        self.init_weights()
        self.train(self.training)

    def init_weights(self) -> None:
        """Texts keep their place as far as the space is wide enough; the heads of images start themselves."""
        nn.init.eye_(self.text_head.weight)
        nn.init.zeros_(self.text_head.bias)

    def train(self, mode: bool = True) -> "LiT":
        """As any module, but the image encoder always works as it does after training: its statistics stay."""
        super().train(mode)
        if hasattr(self, "image"):
            self.image.eval()
        return self

    @property
    def scale(self) -> Tensor:
        """By which cosines are multiplied."""
        return self.log_scale.exp()

    @torch.no_grad()
    def limit_scale(self, most: float) -> None:
        """Put a scale that has left 1 … `most` back at the nearer end."""
        self.log_scale.clamp_(0, math.log(most))

    def embed_image(self, pixels: Float[Tensor, "B 3 Y X"]) -> Float[Tensor, "B E"]:
        """Images as unit vectors."""
        features = self.image.features(pixels)
        opinion = self.image.net.classifier(features) if self.cfg.image.num_classes else None
        return F.normalize(self.image_head(features, opinion), dim=-1)

    def embed_text(self, tokens: Int[Tensor, "T L"], mask: Bool[Tensor, "T L"] | None = None) -> Float[Tensor, "T E"]:
        """Texts as unit vectors; without a mask, pad tokens are padding."""
        if mask is None:
            mask = tokens != self.cfg.text.pad_id
        return F.normalize(self.text_head(self.text.embed_text(tokens, mask)), dim=-1)

    def forward(
        self,
        pixels: Float[Tensor, "B 3 Y X"],
        tokens: Int[Tensor, "T L"],
        mask: Bool[Tensor, "T L"] | None = None,
    ) -> Embeddings:
        return Embeddings(self.embed_image(pixels), self.embed_text(tokens, mask), self.scale)


class ImageHead(nn.Module):
    """Features (B, D) and class scores (B, V) → the shared space, each by one matrix; the sum is what counts."""

    def __init__(self, width: int, num_classes: int, embed: int):
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.features = nn.Linear(width, embed)
        self.names = nn.Linear(num_classes, embed, bias=False) if num_classes else None
        self.init_weights()

    def init_weights(self) -> None:
        """Random where there are no classes to begin with; otherwise features add nothing yet."""
        nn.init.normal_(self.features.weight, std=self.features.in_features**-0.5)
        nn.init.zeros_(self.features.bias)
        if self.names is not None:
            nn.init.zeros_(self.features.weight)
            nn.init.normal_(self.names.weight, std=self.names.out_features**-0.5)

    def forward(self, features: Float[Tensor, "B D"], opinion: Float[Tensor, "B V"] | None) -> Float[Tensor, "B E"]:
        x = self.features(F.normalize(self.norm(features), dim=-1))
        if self.names is not None and opinion is not None:
            x = x + self.names(F.normalize((opinion.float() / SOFTNESS).softmax(-1), dim=-1).to(x.dtype))
        return x


def begin_with(network: LiT, tensors: Tensors, names: Float[Tensor, "V D"]) -> LiT:
    """Put trained encoders (`image.*`, `text.*`) into a network, and what its classes are called, as the text encoder
    reads it, into the head of images. Raises `BadCheckpoint` where something does not fit."""
    with torch.no_grad():
        places = F.normalize(network.text_head(names.float()), dim=-1)
    heads = {name: value for name, value in network.state_dict().items() if not name.startswith(("image.", "text."))}
    load_into(network, {**heads, **tensors, "image_head.names.weight": places.T.contiguous()})
    return network


def assemble_starter() -> Assembled:
    """`lit/starter`: the networks of the extra "starter", nothing learned yet. Raises `MissingExtra` without them."""
    found = starter_networks("lit/starter")
    cfg = LiTConfig(image=found.image, text=found.text, embed=found.text.width)
    return Assembled(cfg, begin_with(LiT(cfg), found.tensors, found.names).state_dict(), found.processor)


def read_config(data: Mapping[str, Any]) -> LiTConfig:
    """`config.json` as `write_config` wrote it; raises `BadConfig` naming unknown fields."""
    return from_dict(LiTConfig, {name: value for name, value in data.items() if name not in HARMLESS}, "config.json")


def write_config(cfg: LiTConfig) -> dict[str, Any]:
    """`config.json`: model_type "lit" and the fields of ours."""
    return {"model_type": "lit", "architectures": ["LiT"], **to_dict(cfg)}


def image_spec(cfg: LiTConfig) -> ImageSpec:
    """As the image encoder was trained."""
    return efficientnet.image_spec(cfg.image)


def text_spec(cfg: LiTConfig) -> TextSpec:
    """As the text encoder was trained."""
    return bert.text_spec(cfg.text)


SYSTEM = System(
    name="lit",
    network=LiT,
    config=LiTConfig,
    presets=PRESETS,
    layouts={
        "transformers": Layout(
            name="transformers", keys=lambda cfg: OwnNames(), read_config=read_config, write_config=write_config
        )
    },
    objective="softmax",
    example=dual_encoder_example,
    image_spec=image_spec,
    any_image_size=True,
    text_spec=text_spec,
    assemble={"starter": assemble_starter},
    text_side=lambda cfg: LiT(cfg, sees=False),
)
