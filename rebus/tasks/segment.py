"""Masks of the things that phrases name: a box in location tokens, its inside in sixteen mask tokens."""

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image

from rebus.codec.boxes import in_pixels
from rebus.codec.masks import parse_segments, paste_mask
from rebus.core.answers import Mask
from rebus.core.errors import BadText, MissingFile
from rebus.tasks.batching import in_batches
from rebus.tasks.inputs import in_pairs
from rebus.tasks.location_scores import certainty, open_all
from rebus.tasks.task_model import TaskModel, prompt_for
from rebus.tasks.text_generation import Pair, Written, write_batch, writing_batch


def segment(
    model: TaskModel, images: Any, phrases: str | Sequence[str], **decoding: Any
) -> list[Mask] | list[list[Mask]]:
    """Masks (H, W) of the given (upright) image for each pair of image and phrase, best first.

    A single image or phrase goes with all of the others. A score is the geometric mean of the probabilities of the
    four location tokens. Raises `MissingFile` where the checkpoint has no mask decoder.
    """
    words = prompt_for(model, "segment")
    if model.mask_decoder is None:
        raise MissingFile("this checkpoint has no vae-oid.npz, without which mask tokens cannot be drawn")
    pairs, many = in_pairs(images, phrases, "phrases")
    for _, phrase in pairs:
        if not isinstance(phrase, str) or not phrase.strip():
            raise BadText(f"a phrase must be words; got {phrase!r}")
    answers = in_batches(
        pairs, lambda batch: _segment(model, batch, words, decoding), size=writing_batch(model), what="images"
    )
    return answers if many else answers[0]


def _segment(model: TaskModel, pairs: Sequence[Pair], words: str, decoding: dict[str, Any]) -> list[list[Mask]]:
    pictures = open_all(model, [source for source, _ in pairs])
    phrases = [str(phrase).strip() for _, phrase in pairs]
    asked = [(picture, words.replace("{phrase}", phrase)) for picture, phrase in zip(pictures, phrases, strict=True)]
    written = write_batch(model, asked, {"max_new_tokens": 128, **decoding}, likelihood=True)
    return [_masks(model, *row) for row in zip(pictures, phrases, written, strict=True)]


def _masks(model: TaskModel, picture: Image.Image, phrase: str, answer: Written) -> list[Mask]:
    found, _ = parse_segments(answer.text)
    if not found:
        return []
    with torch.inference_mode():
        codes = torch.tensor([place.codes for place in found], device=model.device)
        drawn = model.mask_decoder.decode(codes).float().cpu().numpy()
    masks = []
    for place, score, small in zip(found, certainty(model, answer, found), drawn, strict=True):
        box = in_pixels(place.xyxy, picture.size)
        masks.append(Mask(paste_mask(small, box, picture.size), box, place.label or phrase, score))
    return sorted(masks, key=lambda mask: -mask.score)
