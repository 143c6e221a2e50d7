"""OCR: the lines of text in an image with their corners."""

from collections.abc import Sequence
from typing import Any

from rebus.codec.images import ImageSource
from rebus.core.answers import TextLine
from rebus.tasks.batching import AS_IT_SUITS, BatchOptions, in_batches
from rebus.tasks.inputs import many_images
from rebus.tasks.located_answers import lines_of
from rebus.tasks.location_scores import open_all
from rebus.tasks.task_model import TaskModel, decoding_for, prompt_for
from rebus.tasks.text_generation import generate_batch, generation_batch


def read(
    model: TaskModel, images: Any, *, batching: BatchOptions = AS_IT_SUITS, **decoding: Any
) -> list[TextLine] | list[list[TextLine]]:
    """Lines of text in reading order, with corners in pixels of the (upright) input image.

    A score is the geometric mean of the probabilities of the location tokens. Pieces of generated text that make no
    line (a corner too few) are left out.
    """
    sources, many = many_images(images)
    prompt, options = prompt_for(model, "read"), decoding_for(model, "read", decoding)

    def work(batch: Sequence[ImageSource]) -> list[list[TextLine]]:
        opened = open_all(model, batch)
        generated = generate_batch(model, [(image, prompt) for image in opened], options, likelihood=True)
        return [lines_of(model, image, answer) for image, answer in zip(opened, generated, strict=True)]

    answers = in_batches(sources, work, size=generation_batch(model), what="images", options=batching)
    return answers if many else answers[0]
