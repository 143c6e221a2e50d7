"""Phrase grounding by a network that scores the regions of an image (`GroundsPhrases`)."""

from collections.abc import Sequence
from typing import Any

import torch

from rebus.codec.boxes import in_pixels
from rebus.codec.images import ImageSource
from rebus.codec.regions import ImageRegions
from rebus.codec.text import filled_prompt
from rebus.core.answers import Box
from rebus.core.errors import BadRegions
from rebus.core.finite import check_finite
from rebus.tasks.batching import BatchOptions, in_batches
from rebus.tasks.location_scores import open_all
from rebus.tasks.task_model import TaskModel, batch_size
from rebus.tasks.text_generation import Pair, inputs


def ground_phrases(
    model: TaskModel, sources: Sequence[Any], phrases: Sequence[str], batching: BatchOptions
) -> list[list[Box]]:
    """For each image one box per phrase, in pixels of the input image, best first: the most probable region, with its
    probability among the regions of the image."""

    def work(batch: Sequence[ImageSource | ImageRegions]) -> list[list[Box]]:
        return [_ground(model, source, phrases) for source in batch]

    size = batch_size(model, cpu=1, accelerator=4)
    return in_batches(sources, work, size=size, what="images", options=batching)


def _ground(model: TaskModel, source: Any, phrases: Sequence[str]) -> list[Box]:
    if isinstance(source, ImageRegions):
        if source.size is None:
            raise BadRegions(
                f"{source.key}: the size of the image is not known: give it with RegionFiles.of(path, size)"
            )
        size = source.size
    else:
        (source,) = open_all(model, [source])
        size = source.size
    prompts = [filled_prompt(model.system.prompts, "detect", phrase=phrase) for phrase in phrases]
    pairs: list[Pair] = [(source, prompt) for prompt in prompts]
    with torch.inference_mode():
        probabilities, boxes = model.network.ground(**inputs(model, pairs))
    check_finite(probabilities, "phrase {}", probabilities.dtype)
    best, where = probabilities.float().max(dim=1)
    shares = boxes.float()[torch.arange(len(where)), where].tolist()
    found = [
        Box(in_pixels(tuple(share), size), phrase, score)
        for phrase, share, score in zip(phrases, shares, best.tolist(), strict=True)
    ]
    return sorted(found, key=lambda box: -box.score)
