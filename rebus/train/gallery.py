"""Held-out images with what the model says of them: what a loss does not tell."""

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from rebus.codec.processor import Processor
from rebus.core.capabilities import EmbedsImages, EmbedsText, WritesText
from rebus.core.fonts import font_for
from rebus.generation import generate
from rebus.objectives import Learner
from rebus.train.audit import answers_hold_images, as_image, images_of, read, texts_of

_SIDE, _TEXT, _COLUMNS = 224, 96, 4  # pixels of an image, of what is said below it, and images in a row
_LEGEND = 22  # pixels
_SAME, _OTHER = "#1a7f37", "#b42318"
_NEW_TOKENS = 48
_OF_IMAGES = ("pixels", "image_mask", "regions", "region_mask")
_PROMPT = (*_OF_IMAGES, "tokens", "mask", "owners")


def draw(learner: Learner, batch: dict[str, Tensor], processor: Processor, out: Path | None, step: int) -> Path | None:
    """Write `out/gallery/step_<step>.jpg`: the first image of each row, the ground truth of its first text and the
    model's own words.

    Generative models answer greedily; dual encoders pick the likeliest of the batch's texts. Every rank must call it;
    those without `out` only take part. None where the batch has no images (or patches of them), or no texts, or the
    model has nothing to say of it (`can_say`).
    """
    if not can_say(learner.network, batch, processor):
        return None
    images, texts = images_of(batch), texts_of(batch)
    shown = [row for row, (seen, said) in enumerate(zip(images, texts, strict=False)) if seen and said]
    if not shown:
        return None
    told = learner.inside(lambda network: said(network, batch, processor))
    if out is None:
        return None
    truths = batch["targets"] if "targets" in batch else batch["tokens"]
    tiles = []
    for row in shown:
        text = texts[row][0]
        answer = told[text] if "targets" in batch else told[row]
        tiles.append(_tile(images[row][0], read(truths[text], processor), read(answer, processor)))
    target = out / "gallery" / f"step_{step:08d}.jpg"
    target.parent.mkdir(exist_ok=True)
    _sheet(tiles).save(target, quality=90)
    return target


def can_say(network: Any, batch: Mapping[str, Tensor], processor: Processor | None) -> bool:
    """Whether the model generates texts that the batch has targets for, or picks from its texts. Not where the targets
    hold images, of text without targets, and of networks that only compare a text and an image or only read."""
    if processor is None or processor.text is None or "tokens" not in batch:
        return False
    if isinstance(network, WritesText):
        return "targets" in batch and not answers_hold_images(batch, processor)
    return isinstance(network, EmbedsImages) and isinstance(network, EmbedsText) and "pixels" in batch


@torch.no_grad()
def said(network: Any, batch: Mapping[str, Tensor], processor: Processor) -> Tensor:
    """Of generative models the answers to each text, (T, S); of dual encoders each image's likeliest text, (B, L)."""
    given = {name: batch[name] for name in _PROMPT if name in batch}
    if isinstance(network, WritesText):
        assert processor.text is not None
        spec = processor.text.spec
        if "owners" in given:  # not all networks generate several texts of one image
            owners = given.pop("owners")
            given |= {name: given[name][owners] for name in _OF_IMAGES if name in given}
        length = min(_NEW_TOKENS, batch["targets"].shape[1])  # what fits beside the prompt
        return generate(network, given, max_new_tokens=length, eos_id=spec.eos_id, pad_id=spec.pad_id)
    embeddings = network(**{name: value for name, value in given.items() if name != "owners"})
    best = (embeddings.image @ embeddings.text.T).argmax(dim=1)
    return batch["tokens"][best]


def _tile(pixels: Tensor, truth: str, said: str) -> Image.Image:
    tile = Image.new("RGB", (_SIDE, _SIDE + _TEXT), "white")
    tile.paste(as_image(pixels).resize((_SIDE, _SIDE), Image.Resampling.BILINEAR))
    pen = ImageDraw.Draw(tile)
    verdict = _SAME if said == truth else _OTHER
    for i, (name, words, colour) in enumerate((("truth", truth, "#666666"), ("model", said, verdict))):
        lines = textwrap.wrap(f"{name}: {words or '(nothing)'}", 36, max_lines=3, placeholder=" …")
        font = font_for(" ".join(lines), 11)
        pen.multiline_text((4, _SIDE + 3 + i * _TEXT // 2), "\n".join(lines), fill=colour, font=font, spacing=2)
    return tile


def _sheet(tiles: list[Image.Image]) -> Image.Image:
    columns = min(_COLUMNS, len(tiles))
    rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (columns * (_SIDE + 8) + 8, rows * (_SIDE + _TEXT + 8) + 8 + _LEGEND), "#dddddd")
    pen, left = ImageDraw.Draw(sheet), 8
    legend = (("held out.", "#333333"), ("green: as the ground truth", _SAME), ("red: other words", _OTHER))
    for words, colour in legend:
        pen.text((left, sheet.height - _LEGEND), words, fill=colour, font=font_for(words, 12))
        left += int(pen.textlength(words, font=font_for(words, 12))) + 10
    for i, tile in enumerate(tiles):
        sheet.paste(tile, (8 + i % columns * (_SIDE + 8), 8 + i // columns * (_SIDE + _TEXT + 8)))
    return sheet
