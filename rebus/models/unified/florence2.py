"""Florence-2: a vision transformer, a BART, and every task a sentence that asks and a sentence that answers.

Xiao et al., "Florence-2: Advancing a Unified Representation for a Variety of Vision Tasks", 2024.

    image ──DaViT──▶ [mean][24 × 24 places] <s> Locate the objects … </s> ──encoder──▶ decoder: <s> car<loc_52>… </s>

Places are 1,000 location tokens an axis: a box is four of them, a polygon or the corners of a line of text more.
"""

import math
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rebus.backbones.examples import generative_example
from rebus.backbones.text import bart
from rebus.backbones.text.bart import BART, BARTConfig
from rebus.backbones.vision import davit
from rebus.backbones.vision.davit import DaViT
from rebus.codec.boxes import LOC_1000, QUADS_1000
from rebus.codec.polygons import PolygonTokens
from rebus.core.errors import BadImage
from rebus.core.outputs import Predictions, Step
from rebus.core.specs import ImageSpec, Prompts, TextSpec
from rebus.core.system import Layout, System
from rebus.models.unified.florence2_config import (
    Florence2Config,
    is_original,
    read_config,
    write_original,
    write_transformers,
)
from rebus.models.unified.florence2_tasks import TASKS
from rebus.models.unified.image_prefix import embed_prefix
from rebus.nn.cache import ContextCache
from rebus.nn.norms import LayerNorm
from rebus.weights.key_sides import PaddedRows, Transposed, nested
from rebus.weights.keymap import KeyMap
from rebus.weights.tied_tables import one_table

_LARGE = BARTConfig(
    width=1024, num_layers=12, num_decoder_layers=12, num_heads=16, mlp_width=4096, vocab_size=51_289, context=1024
)
PRESETS = {
    "tiny": Florence2Config(
        image=davit.PRESETS["tiny"],
        text=replace(bart.PRESETS["tiny"], context=64),
        num_positions=6,
        num_frames=4,
        image_id=95,
    ),
    "base": Florence2Config(),
    "large": Florence2Config(image=davit.PRESETS["large"], text=_LARGE),
    "large_4k": Florence2Config(image=davit.PRESETS["large"], text=replace(_LARGE, context=4096)),
}


class Florence2(nn.Module):
    encoder_decoder = True
    sees_once = True
    frames: Tensor

    def __init__(self, cfg: Florence2Config):
        super().__init__()
        self.cfg = cfg
        width = cfg.image.width
        self.image = DaViT(cfg.image)
        self.rows = nn.Embedding(cfg.num_positions, width // 2)
        self.columns = nn.Embedding(cfg.num_positions, width - width // 2)
        self.register_buffer("frames", sinusoids(cfg.num_frames, width))
        self.image_proj = nn.Linear(width, cfg.text.width, bias=False)
        self.image_norm = LayerNorm(cfg.text.width, 1e-5)
        self.text = BART(cfg.text)
        self.init_weights()

    def init_weights(self) -> None:
        """Positions uniform in [0, 1) and the projection N(0, 0.02), as the release has it."""
        for table in (self.rows, self.columns):
            nn.init.uniform_(table.weight)
        nn.init.trunc_normal_(self.image_proj.weight, std=0.02)

    def see(self, pixels: Float[Tensor, "M 3 Y X"]) -> Float[Tensor, "M P D"]:
        """Images at the width of the text: the mean of all places, then each of them, row by row; as `look`."""
        return self.project(self.look(pixels))

    def look(self, pixels: Float[Tensor, "M 3 Y X"]) -> Float[Tensor, "M N C"]:
        """Features of all places, row by row, with their positions.

        Raises `BadImage` where there are more rows or columns of places than positions.
        """
        x = self.image(pixels)
        height, width = x.shape[1:3]
        if max(height, width) > self.cfg.num_positions:
            most = self.cfg.num_positions
            raise BadImage(
                f"an image of {pixels.shape[3]} × {pixels.shape[2]} pixels is {width} × {height} places; the model has "
                f"positions for {most} × {most}"
            )
        across, down = self.columns.weight[:width], self.rows.weight[:height]
        x = x + torch.cat([across.expand(height, -1, -1), down[:, None].expand(-1, width, -1)], dim=-1)
        return x.flatten(1, 2) + self.frames[0]  # an image is the first frame, whose vector is not zero

    def project(self, features: Float[Tensor, "M N C"]) -> Float[Tensor, "M P D"]:
        """What `look` found, and its mean before it, at the width of the text."""
        both = torch.cat([features.mean(dim=1, keepdim=True), features], dim=1)
        return self.image_norm(self.image_proj(both))

    def encode(
        self,
        tokens: Int[Tensor, "T L"],
        real: Bool[Tensor, "T L"],
        pixels: Tensor | None = None,
        image_mask: Bool[Tensor, "B N"] | None = None,
        owners: Int[Tensor, "T"] | None = None,
        seen: Float[Tensor, "M P D"] | None = None,
    ) -> Float[Tensor, "T L D"]:
        """States of the encoder over prompts in which images have taken the place of their placeholders."""
        return self.text.encode(embed_prefix(self, tokens, pixels, image_mask, owners, seen), real)

    def forward(
        self,
        *,
        pixels: Tensor | None = None,
        image_mask: Bool[Tensor, "B N"] | None = None,
        tokens: Int[Tensor, "T L"],
        mask: Bool[Tensor, "T L"] | None = None,
        targets: Int[Tensor, "T S"] | None = None,
        owners: Int[Tensor, "T"] | None = None,
        seen: Float[Tensor, "M P D"] | None = None,
    ) -> Predictions:
        """Scores of `targets` (−100 at padding), each given images, prompt and the targets before it; without
        targets, of the first token (T, 1, V). Images and owners as in `image_prefix.embed_prefix`."""
        real = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        return self.text.predict(self.encode(tokens, real, pixels, image_mask, owners, seen), real, targets)

    def start(
        self,
        *,
        room: int,
        pixels: Tensor | None = None,
        image_mask: Bool[Tensor, "B N"] | None = None,
        tokens: Int[Tensor, "T L"],
        mask: Bool[Tensor, "T L"] | None = None,
        owners: Int[Tensor, "T"] | None = None,
        seen: Float[Tensor, "M P D"] | None = None,
    ) -> Step:
        """Read images and prompts; space for `room` tokens of answer."""
        real = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        return self.text.begin(self.encode(tokens, real, pixels, image_mask, owners, seen), real, room)

    def step(self, token: Int[Tensor, "B"], cache: ContextCache) -> Step:
        """One more token of the answer."""
        return self.text.step(token, cache)


def sinusoids(number: int, width: int) -> Float[Tensor, "number width"]:
    """Sines and cosines in turn; row 0 is 0, 1, 0, 1 …"""
    rates = torch.exp(torch.arange(width // 2).float() * (-math.log(10_000) / (width // 2)))
    angles = torch.arange(number).float()[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


def keys(cfg: Florence2Config) -> KeyMap:
    """The names of transformers."""
    projector, table = "model.multi_modal_projector.", "model.language_model.shared.weight"
    used, rows = cfg.text.vocab_size, cfg.padded_vocab
    return KeyMap(
        [
            (table if used == rows else PaddedRows(table, rows, used), "text.tokens.weight"),
            *nested(davit.rows(), theirs="model.vision_tower.", ours="image."),
            (projector + "image_position_embed.row_embeddings.weight", "rows.weight"),
            (projector + "image_position_embed.column_embeddings.weight", "columns.weight"),
            (projector + "visual_temporal_embed.pos_idx_to_embed", "frames"),
            (projector + "image_projection.weight", "image_proj.weight"),
            (projector + "image_proj_norm.{p}", "image_norm.{p}"),
            *nested(bart.ROWS, theirs="model.language_model.", ours="text."),
        ]
    )


def original_keys(cfg: Florence2Config) -> KeyMap:
    """The names of the code that was released with the weights."""
    return KeyMap(
        [
            *nested(davit.rows(original=True), theirs="vision_tower.", ours="image."),
            ("image_pos_embed.row_embeddings.weight", "rows.weight"),
            ("image_pos_embed.column_embeddings.weight", "columns.weight"),
            ("visual_temporal_embed.pos_idx_to_embed", "frames"),
            (Transposed("image_projection"), "image_proj.weight"),
            ("image_proj_norm.{p}", "image_norm.{p}"),
            *nested(bart.ROWS, theirs="language_model.model.", ours="text."),
        ],
        ignore=["language_model.final_logits_bias"],
    )


# The release adds these to the tokens of BART's file, in this order.
_PAIRS = "cap ncap dcap grounding seg".split()
ADDED_TOKENS = (
    *(f"<{end}{name}>" for name in ("od", "ocr") for end in ("", "/")),
    *(f"<loc_{place}>" for place in range(1000)),
    *(f"<{end}{name}>" for name in _PAIRS for end in ("", "/")),
    "<sep>",
    *(f"<{end}{name}>" for name in ("region_cap", "region_to_desciption", "proposal", "poly") for end in ("", "/")),
    "<and>",
    "<image>",
)
RELEASED_IMAGE_ID = 51_289
USUAL_LENGTH = 256  # tokens of an answer that lists places


def suited(cfg: Florence2Config) -> dict[str, Any]:
    """How answers are decoded; as long as the decoder has positions, where these are fewer than is usual."""
    how: dict[str, Any] = {"strategy": "beam", "num_beams": cfg.num_beams, "early_stopping": True}
    how = (how if cfg.num_beams > 1 else {}) | ({"no_repeat_ngram_size": cfg.no_repeat} if cfg.no_repeat else {})
    if cfg.text.context <= USUAL_LENGTH:
        how["max_new_tokens"] = cfg.text.context - 1
    return {"decoding": dict.fromkeys(("caption", "detect", "segment", "read", "perform"), how)}


def image_spec(cfg: Florence2Config) -> ImageSpec:
    """As DaViT sees them."""
    return davit.image_spec(cfg.image)


def text_spec(cfg: Florence2Config) -> TextSpec:
    """Image tokens, `<s> sentence </s>`; answers likewise. The release adds its tokens to those of BART's file."""
    return replace(
        bart.text_spec(cfg.text),
        vocab_size=max(cfg.text.vocab_size, cfg.image_id + 1),
        image_token_id=cfg.image_id,
        num_image_tokens=cfg.num_image_tokens,
        added_tokens=ADDED_TOKENS if cfg.image_id == RELEASED_IMAGE_ID else (),
    )


SYSTEM = System(
    name="florence2",
    network=Florence2,
    config=Florence2Config,
    presets=PRESETS,
    layouts={
        "transformers": Layout(
            name="transformers",
            keys=keys,
            read_config=read_config,
            write_config=write_transformers,
            prepare=lambda tensors: one_table(
                tensors, [*("model.language_model." + name for name in bart.TABLES), "lm_head.weight"]
            ),
        ),
        "released": Layout(
            name="released",
            keys=original_keys,
            recognises=is_original,
            read_config=read_config,
            write_config=write_original,
            prepare=lambda tensors: one_table(
                tensors,
                [*("language_model.model." + name for name in bart.TABLES), "language_model.lm_head.weight"],
            ),
        ),
    },
    prompts=Prompts(
        caption=TASKS["<CAPTION>"].prompt,
        classify=TASKS["<CAPTION>"].prompt,
        detect="Locate {phrase} in the image.",
        detect_all=TASKS["<OD>"].prompt,
        segment="Locate {phrase} in the image with mask",
        read=TASKS["<OCR_WITH_REGION>"].prompt,
    ),
    named_tasks=TASKS,
    locations=LOC_1000,
    lines=QUADS_1000,
    outlines=PolygonTokens(),
    objective="next token",
    example=generative_example,
    image_spec=image_spec,
    text_spec=text_spec,
    suited=suited,
)
