"""Held-out images with what the model says of them: what a loss does not tell."""

import textwrap
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from rebus.core.capabilities import WritesText
from rebus.generation import generate
from rebus.objectives import Learner
from rebus.train.audit import as_picture
from rebus.train.config import TrainConfig
from rebus.train.detokenize import Words

_SIDE, _TEXT, _COLUMNS = 224, 96, 4  # pixels of an image, of what is said below it, and images in a row
_NEW_TOKENS = 48


def draw(learner: Learner, batch: dict[str, Tensor], config: TrainConfig, out: Path | None, step: int) -> Path | None:
    """Write `out/gallery/step_<step>.jpg`: each image of the batch, the truth and the model's own words.

    Writers answer greedily; two towers pick the likeliest of the batch's texts. Every rank must call it; those
    without `out` only take part.
    """
    if "pixels" not in batch or "tokens" not in batch:
        return None
    words = Words(config)
    said = learner.inside(lambda network: _said(network, batch, words))
    if out is None:
        return None
    truths = words.decode(batch["targets"] if "targets" in batch else batch["tokens"])
    rows = len(truths) // len(batch["pixels"])
    tiles = [
        _tile(pixels, truths[i * rows], words.decode(said[i * rows : i * rows + 1])[0])
        for i, pixels in enumerate(batch["pixels"])
    ]
    target = out / "gallery" / f"step_{step:08d}.jpg"
    target.parent.mkdir(exist_ok=True)
    _sheet(tiles).save(target, quality=90)
    return target


@torch.no_grad()
def _said(network: Any, batch: dict[str, Tensor], words: Words) -> Tensor:
    if isinstance(network, WritesText):
        rows = len(batch["tokens"]) // len(batch["pixels"])
        given = {"pixels": batch["pixels"].repeat_interleave(rows, 0), "tokens": batch["tokens"], "mask": batch["mask"]}
        return generate(network, given, max_new_tokens=_NEW_TOKENS, eos_id=words.eos_id, pad_id=words.pad_id)
    embeddings = network(**{name: batch[name] for name in ("pixels", "tokens", "mask")})
    best = (embeddings.image @ embeddings.text.T).argmax(dim=1)
    return batch["tokens"][best]


def _tile(pixels: Tensor, truth: str, said: str) -> Image.Image:
    tile = Image.new("RGB", (_SIDE, _SIDE + _TEXT), "white")
    tile.paste(as_picture(pixels).resize((_SIDE, _SIDE), Image.Resampling.BILINEAR))
    pen, font = ImageDraw.Draw(tile), ImageFont.load_default(11)
    for i, (words, colour) in enumerate(((truth, "#666666"), (said, "#1a7f37" if said == truth else "#b42318"))):
        lines = textwrap.wrap(words, 36)[:3] or ["(nothing)"]
        pen.multiline_text((4, _SIDE + 3 + i * _TEXT // 2), "\n".join(lines), fill=colour, font=font, spacing=2)
    return tile


def _sheet(tiles: list[Image.Image]) -> Image.Image:
    columns = min(_COLUMNS, len(tiles))
    rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (columns * (_SIDE + 8) + 8, rows * (_SIDE + _TEXT + 8) + 8), "#dddddd")
    for i, tile in enumerate(tiles):
        sheet.paste(tile, (8 + i % columns * (_SIDE + 8), 8 + i // columns * (_SIDE + _TEXT + 8)))
    return sheet
