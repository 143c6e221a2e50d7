"""Referring segmentation: by mask tokens or polygons in generated text, or by a detector with masks."""

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image

from rebus.codec.boxes import in_pixels
from rebus.codec.masks import parse_segments, paste_mask
from rebus.core.answers import Mask
from rebus.core.capabilities import FindsRegions
from rebus.core.errors import BadText
from rebus.tasks.batching import AS_IT_SUITS, BatchOptions, in_batches
from rebus.tasks.found import Masks, in_images
from rebus.tasks.inputs import in_pairs
from rebus.tasks.located_answers import masks_of
from rebus.tasks.location_scores import certainty, open_all
from rebus.tasks.region_finding import LastSeen, RegionFinder
from rebus.tasks.task_model import TaskModel, companion, decoding_for, locations_of, no_decoding, prompt_for
from rebus.tasks.text_generation import Generated, ImagePair, generate_batch, generation_batch


def segment(
    model: TaskModel,
    images: Any,
    phrases: str | Sequence[str],
    *,
    batching: BatchOptions = AS_IT_SUITS,
    **decoding: Any,
) -> Masks | list[Masks]:
    """Masks (H, W) of the given (upright) image for each pair of image and phrase, best first.

    A single image or phrase is broadcast. A score is the network's own where it finds regions
    (`FindsRegions`, which takes no decoding options); of a generative model it is the geometric mean of the
    probabilities of the location tokens. Raises `MissingFile` where the checkpoint has no mask decoder.
    """
    finds = isinstance(model.network, FindsRegions)
    prompt = "" if finds else prompt_for(model, "segment")
    outlined = model.system.outlines is not None
    decoder = None if finds or outlined else companion(model, "mask_decoder")
    pairs, many = in_pairs(images, phrases, "phrases")
    for _, phrase in pairs:
        if not isinstance(phrase, str) or not phrase.strip():
            raise BadText(f"a phrase must be a text that is not empty; got {phrase!r}")
    if finds:
        no_decoding(model, decoding)
        answers = _found(model, pairs, batching)
    else:
        options = decoding_for(model, "segment", decoding)

        def work(batch: Sequence[ImagePair]) -> list[list[Mask]]:
            return _generated(model, batch, prompt, options, decoder)

        answers = in_batches(pairs, work, size=generation_batch(model), what="images", options=batching)
    given = in_images(Masks, answers, [source for source, _ in pairs])
    return given if many else given[0]


def _found(model: TaskModel, pairs: Sequence[ImagePair], batching: BatchOptions) -> list[list[Mask]]:
    """Each phrase is searched for alone, so that what else is asked for in a call changes no score."""
    answers: list[list[Mask]] = [[] for _ in pairs]
    last_seen = LastSeen()
    for phrase in dict.fromkeys(str(phrase).strip() for _, phrase in pairs):
        finder = RegionFinder(model, [phrase], last_seen=last_seen)
        places = [place for place, (_, other) in enumerate(pairs) if str(other).strip() == phrase]
        found = finder.search([pairs[place][0] for place in places], finder.masks, places, batching)
        for place, masks in zip(places, found, strict=True):
            answers[place] = masks
    return answers


def _generated(
    model: TaskModel,
    pairs: Sequence[ImagePair],
    prompt: str,
    options: dict[str, Any],
    decoder: Any,
) -> list[list[Mask]]:
    images = open_all(model, [source for source, _ in pairs])
    phrases = [str(phrase).strip() for _, phrase in pairs]
    asked = [(image, prompt.replace("{phrase}", phrase)) for image, phrase in zip(images, phrases, strict=True)]
    generated = generate_batch(model, asked, options, likelihood=True)
    return [
        masks_of(model, image, answer, phrase) if decoder is None else _decoded(model, decoder, image, phrase, answer)
        for image, phrase, answer in zip(images, phrases, generated, strict=True)
    ]


def _decoded(model: TaskModel, decoder: Any, image: Image.Image, phrase: str, answer: Generated) -> list[Mask]:
    """`decoder.decode(codes (R, n)) → (R, M, M)`, above 0 inside the thing."""
    locations = locations_of(model)
    found, _ = parse_segments(locations, answer.text)
    if not found:
        return []
    with torch.inference_mode():
        codes = torch.tensor([place.codes for place in found], device=model.device)
        decoded = decoder.decode(codes).float().cpu().numpy()
    masks = []
    for place, score, small in zip(found, certainty(model, locations, answer, found), decoded, strict=True):
        box = in_pixels(place.xyxy, image.size)
        masks.append(Mask(paste_mask(small, box, image.size), box, place.label or phrase, score))
    return sorted(masks, key=lambda mask: -mask.score)
