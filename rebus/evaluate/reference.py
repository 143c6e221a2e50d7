"""Reference outputs of a checkpoint: what it answered where it was made, kept beside its weights.

The same checkpoint must answer the same on any machine, so a few numbers tell a broken build, a wrong kernel or a
damaged file from a good one.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from rebus.codec.text import filled_prompt
from rebus.core.answers import Box
from rebus.core.capabilities import FindsRegions
from rebus.core.errors import BadCheckpoint, NotFinite
from rebus.data.scenes import SHAPES, scene
from rebus.tasks import ask

FILE = "reference.json"
TEXTS = ("a red circle", "small solid red circle, large striped blue star", "a cat on a mat")
QUESTIONS = ("how many objects are there?", "is there a red circle?", "what colour is the circle?")
_SAID = ("captions", "answers")
_KEPT = 12  # leading numbers of each vector
_TOLERANCE = 2e-3  # of unit vectors, shares of an image's sides and scores, in float32 on any machine
_NUMBERS = ("images", "texts", "boxes")
_BOXES = 2  # the best of an image; further ones may change places by a rounding


def held_out_images(number: int = 3, size: int = 96) -> list[Image.Image]:
    """Held-out images for looking at a model."""
    return [scene(seed, "test", size).image for seed in range(number)]


def picks_answers(model: Any) -> bool:
    """Whether the model answers questions about images from a list, with the files that it has."""
    there = model.processor.image is not None and model.processor.text is not None
    return there and ask.picks_answers(model) and "ask" in model.tasks


def questions_batch(model: Any, images: list[Image.Image]) -> dict[str, Tensor]:
    """One question about each image, as the network gets it."""
    asked = filled_prompt(model.system.prompts, "ask", question=QUESTIONS[0])
    batch: dict[str, Tensor] = model.processor(images=images, texts=[asked] * len(images))
    return batch


def record(model: Any) -> dict[str, Any]:
    """The model's outputs on fixed images and texts, as JSON-ready numbers."""
    found: dict[str, Any] = {"dtype": str(model.dtype).removeprefix("torch.")}
    if "embed_images" in model.tasks:
        found["images"] = _leading(model.embed_images(held_out_images()))
    if "embed_texts" in model.tasks and model.processor.text is not None:
        found["texts"] = _leading(model.embed_texts(list(TEXTS)))
    if isinstance(model.network, FindsRegions) and model.processor.text is not None:
        images = held_out_images()
        found["boxes"] = [_best(image, boxes) for image, boxes in zip(images, model.detect(images, list(SHAPES)))]
    if "caption" in model.tasks and model.processor.text is not None:
        found["captions"] = model.caption(held_out_images())
    if picks_answers(model) and model.companions:
        found["answers"] = model.ask(held_out_images(), list(QUESTIONS))
    return found


def compare(model: Any, stored: Mapping[str, Any]) -> tuple[bool | None, str]:
    """(whether the model still answers as it did, what differs most); None where there is nothing to compare.

    Raises `BadCheckpoint` for a damaged file.
    """
    try:
        now = record(model)
    except NotFinite as error:
        return False, str(error)
    worst, said = 0.0, []
    for name in _NUMBERS:
        if name in stored:
            try:
                before = torch.tensor(stored[name], dtype=torch.float64)
            except (TypeError, ValueError):
                raise BadCheckpoint(f"{FILE}: {name}: not a table of numbers") from None
            after = torch.tensor(now.get(name, []), dtype=torch.float64)
            if before.shape != after.shape or not before.numel():
                return False, f"{name}: {tuple(before.shape)} numbers stored, {tuple(after.shape)} now"
            for numbers, when in ((before, "stored"), (after, "now")):
                if bad := int(numbers.isfinite().logical_not().sum()):
                    return False, f"{name}: {bad} of {numbers.numel()} numbers {when} are not finite"
            worst = max(worst, float((before - after).abs().max()))
    if set(_NUMBERS) & set(stored):
        said.append(f"{'embeddings and boxes' if 'boxes' in stored else 'embeddings'} differ by {worst:.1e}")
    same = True
    if not {*_NUMBERS, *_SAID} & set(stored):
        return None, "nothing stored"
    for name in _SAID:
        if name in stored:
            pairs = list(zip(stored[name], now.get(name, []), strict=False))
            equal = sum(a == b for a, b in pairs)
            same = same and equal == len(stored[name])
            said.append(f"{equal} of {len(stored[name])} {name} the same")
    return worst <= _TOLERANCE and same, ", ".join(said)


def _best(image: Image.Image, boxes: Sequence[Box]) -> list[float]:
    """The best boxes in shares of the image, each with its score; zeros where there are fewer."""
    rows = [(*(v / side for v, side in zip(box.xyxy, 2 * image.size)), box.score) for box in boxes[:_BOXES]]
    rows += [(0.0,) * 5] * (_BOXES - len(rows))
    return [round(v, 6) for row in rows for v in row]


def _leading(vectors: Any) -> list[list[float]]:
    rows = vectors if isinstance(vectors, Tensor) else torch.from_numpy(vectors)
    return [[round(v, 6) for v in row[:_KEPT]] for row in rows.float().cpu().tolist()]
