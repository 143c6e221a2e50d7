"""Boxes around the things that labels name: by location tokens in text, by a network that finds regions, or by one that
says which of an image's regions a phrase means."""

from collections.abc import Sequence
from typing import Any

from rebus.codec.boxes import parse_boxes
from rebus.codec.images import ImageSource
from rebus.core.answers import Box
from rebus.core.capabilities import FindsRegions, GroundsPhrases
from rebus.tasks.batching import AS_IT_SUITS, BatchOptions, in_batches
from rebus.tasks.classify import distinct
from rebus.tasks.inputs import many_images
from rebus.tasks.location_scores import certainty, open_all
from rebus.tasks.phrase_grounding import ground_phrases
from rebus.tasks.region_finding import RegionFinder
from rebus.tasks.task_model import TaskModel, decoding_for, locations_of, no_decoding, prompt_for
from rebus.tasks.text_generation import generate_batch, generation_batch

ANYTHING = "object"  # what is looked for where no label is given


def detect(
    model: TaskModel,
    images: Any,
    labels: str | Sequence[str] | None = None,
    *,
    batching: BatchOptions = AS_IT_SUITS,
    **decoding: Any,
) -> list[Box] | list[list[Box]]:
    """Boxes in pixels of the given (upright) image, best first; `labels` None asks for any object.

    A score is the network's own where it finds regions (`FindsRegions`) or grounds phrases (`GroundsPhrases`, one box
    for each label, which is a phrase); neither takes decoding options. Of a generative model it is the geometric mean
    of the probabilities of the location tokens. Pieces of generated text
    that make no box (an empty one, a token too few) are left out.
    """
    wanted = [ANYTHING] if labels is None else distinct([labels] if isinstance(labels, str) else labels)
    sources, many = many_images(images)
    if isinstance(model.network, FindsRegions):
        no_decoding(model, decoding)
        finder = RegionFinder(model, wanted)
        answers = finder.search(sources, finder.boxes, batching=batching)
    elif isinstance(model.network, GroundsPhrases):
        no_decoding(model, decoding)
        answers = ground_phrases(model, sources, wanted, batching)
    else:
        prompt = prompt_for(model, "detect").replace("{labels}", " ; ".join(wanted))
        options = decoding_for(model, "detect", decoding)
        answers = in_batches(
            sources,
            lambda batch: _generated(model, batch, prompt, options),
            size=generation_batch(model),
            what="images",
            options=batching,
        )
    return answers if many else answers[0]


def _generated(
    model: TaskModel, sources: Sequence[ImageSource], prompt: str, options: dict[str, Any]
) -> list[list[Box]]:
    locations = locations_of(model)
    images = open_all(model, sources)
    generated = generate_batch(model, [(image, prompt) for image in images], options, likelihood=True)
    boxes = []
    for image, answer in zip(images, generated, strict=True):
        found, _ = locations.parse(answer.text)
        kept, _ = parse_boxes(locations, answer.text, image.size, certainty(model, locations, answer, found))
        boxes.append(sorted(kept, key=lambda box: -box.score))
    return boxes
