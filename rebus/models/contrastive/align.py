"""ALIGN: two encoders, one softmax, and more noisy pairs than anybody could clean.

Jia et al., "Scaling Up Visual and Vision-Language Representation Learning With Noisy Text Supervision", 2021. An
EfficientNet without its last 1x1 convolution, and BERT read at [CLS], both from scratch. Google released no weights;
the public ones are Kakao Brain's, trained on COYO-700M.
"""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from rebus.backbones.examples import dual_encoder_example
from rebus.backbones.text import bert
from rebus.backbones.text.bert import BERT
from rebus.backbones.vision.efficientnet import EfficientNet, block_rows, norm_row
from rebus.core.outputs import Embeddings
from rebus.core.specs import ImageSpec, TextSpec
from rebus.core.system import Layout, System
from rebus.models.contrastive.align_config import ALIGNConfig as ALIGNConfig
from rebus.models.contrastive.align_config import align_image, read_transformers, write_transformers
from rebus.weights.key_sides import Row, nested
from rebus.weights.keymap import KeyMap

CONTEXT = 64  # tokens of a text, of the 512 positions that BERT has (Sec. 5.1)
_LARGE = replace(bert.PRESETS["large"], vocab_size=100_000)  # wordpieces of the training texts themselves

PRESETS = {
    "tiny": ALIGNConfig(
        image=align_image(scales=(0.5, 0.5), image_size=65),
        text=replace(bert.PRESETS["tiny"], pooler=True),
        embed=160,
    ),
    "tiny_projected": ALIGNConfig(
        image=align_image(scales=(0.35, 0.3), image_size=64),
        text=replace(bert.PRESETS["tiny"], pooler=True),
        embed=24,
        image_head=True,
    ),
    "b7_base": ALIGNConfig(),
    "l2_large": ALIGNConfig(image=align_image(variant="l2"), text=_LARGE, embed=1376),
    "b5_base": ALIGNConfig(image=align_image(variant="b5"), image_head=True),
    "b3_mini": ALIGNConfig(
        image=align_image(variant="b3"),
        text=bert.BERTConfig(width=256, num_layers=4, num_heads=4, mlp_width=1024, pooler=True),
        image_head=True,
    ),
}


class ALIGN(nn.Module):
    def __init__(self, cfg: ALIGNConfig, *, sees: bool = True):
        """`sees=False` leaves out what only images need."""
        super().__init__()
        self.cfg = cfg
        if sees:
            self.image = EfficientNet(cfg.image)
            self.image_head = nn.Linear(self.image.width, cfg.embed) if cfg.image_head else nn.Identity()
        self.text = BERT(cfg.text)
        if self.text.pooler is not None:  # in the files, but nothing reads it: [CLS] is taken as it is
            self.text.pooler.requires_grad_(False)
        self.text_head = nn.Linear(cfg.text.width, cfg.embed)
        self.temperature = nn.Parameter(torch.tensor(cfg.temperature))  # divides, and is not a logarithm
        self.init_weights()

    def init_weights(self) -> None:
        """As Kakao's training code: Glorot for what leads into the shared space; the encoders start themselves."""
        for name, head in self.named_children():
            if name.endswith("_head") and isinstance(head, nn.Linear):
                nn.init.xavier_uniform_(head.weight)
                nn.init.zeros_(head.bias)

    @property
    def scale(self) -> Tensor:
        """By which cosines are multiplied: one over the temperature."""
        return 1 / self.temperature

    @torch.no_grad()
    def limit_scale(self, most: float) -> None:
        """Keep the temperature, which a large step could carry across zero, at 1 / `most` or above."""
        self.temperature.clamp_(min=1 / most)

    def embed_image(self, pixels: Float[Tensor, "B 3 Y X"]) -> Float[Tensor, "B E"]:
        """Images of any size as unit vectors."""
        return F.normalize(self.image_head(self.image.features(pixels)), dim=-1)

    def embed_text(self, tokens: Int[Tensor, "T L"], mask: Bool[Tensor, "T L"] | None = None) -> Float[Tensor, "T E"]:
        """Texts as unit vectors, read at their first token; without a mask, pad tokens are padding."""
        if mask is None:
            mask = tokens != self.cfg.text.pad_id
        x = self.text(tokens, mask)
        first = x[torch.arange(len(x), device=x.device), mask.int().argmax(1)]
        return F.normalize(self.text_head(first), dim=-1)

    def forward(
        self,
        pixels: Float[Tensor, "B 3 Y X"],
        tokens: Int[Tensor, "T L"],
        mask: Bool[Tensor, "T L"] | None = None,
    ) -> Embeddings:
        return Embeddings(self.embed_image(pixels), self.embed_text(tokens, mask), self.scale)


_BLOCK = {
    "expand": "expansion.expand_conv",
    "expand_norm": "expansion.expand_bn",
    "depthwise": "depthwise_conv.depthwise_conv",
    "depthwise_norm": "depthwise_conv.depthwise_norm",
    "squeeze": "squeeze_excite.reduce",
    "excite": "squeeze_excite.expand",
    "project": "projection.project_conv",
    "project_norm": "projection.project_bn",
}


def keys(cfg: ALIGNConfig) -> KeyMap:
    """The transformers layout. `image_projection` is ours: the reference class has none."""
    text = [*bert.ROWS, ("pooler.dense.{p}", "pooler.{p}")]
    rows: list[Row] = [
        ("vision_model.embeddings.convolution.weight", "image.net.conv_stem.weight"),
        norm_row("vision_model.embeddings.batchnorm", "image.net.bn1"),
        *nested(block_rows(cfg.image, _BLOCK, theirs="vision_model.encoder.blocks"), ours="image."),
        *nested(text, theirs="text_model.", ours="text."),
        ("image_projection.{p}", "image_head.{p}"),
        ("text_projection.{p}", "text_head.{p}"),
        ("temperature", "temperature"),
    ]
    return KeyMap(rows, ignore=["text_model.embeddings.position_ids"])


def image_spec(cfg: ALIGNConfig) -> ImageSpec:
    """Squashed to 346 × 346, bilinear, the centre of 289 × 289 cut out, [−1, 1]; other sizes in proportion."""
    size = cfg.image.image_size
    return ImageSpec(size=(size, size), side=round(size * 346 / 289), resample="bilinear")


def text_spec(cfg: ALIGNConfig) -> TextSpec:
    """As BERT, but short."""
    return replace(bert.text_spec(cfg.text), context=min(CONTEXT, cfg.text.context))


def example(config: ALIGNConfig, rows: int, *, prompt: int = 16, answer: int = 16) -> dict[str, Tensor]:
    """Pairs whose texts are as long as in training."""
    return dual_encoder_example(config, rows, context=CONTEXT)


SYSTEM = System(
    name="align",
    network=ALIGN,
    config=ALIGNConfig,
    presets=PRESETS,
    layouts={
        "transformers": Layout(
            name="transformers", keys=keys, read_config=read_transformers, write_config=write_transformers
        )
    },
    objective="softmax",
    objective_options={"label_smoothing": 0.1},  # Sec. 5.1
    example=example,
    image_spec=image_spec,
    text_spec=text_spec,
    text_side=lambda cfg: ALIGN(cfg, sees=False),
)
