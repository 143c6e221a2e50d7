"""Boxes around the things that labels name, written by the model as location tokens."""

from collections.abc import Sequence
from typing import Any

from rebus.codec.boxes import parse_boxes, parse_located
from rebus.codec.images import ImageSource
from rebus.core.answers import Box
from rebus.tasks.batching import in_batches
from rebus.tasks.classify import distinct
from rebus.tasks.inputs import many_images
from rebus.tasks.location_scores import certainty, open_all
from rebus.tasks.task_model import TaskModel, prompt_for
from rebus.tasks.text_generation import write_batch, writing_batch

ANYTHING = "object"  # what is looked for where no label is given


def detect(
    model: TaskModel, images: Any, labels: str | Sequence[str] | None = None, **decoding: Any
) -> list[Box] | list[list[Box]]:
    """Boxes in pixels of the given (upright) image, best first; `labels` None asks for any object.

    A score is the geometric mean of the probabilities of the four location tokens. Pieces of the answer that make no
    box (an empty one, a token too few) are left out.
    """
    wanted = [ANYTHING] if labels is None else distinct([labels] if isinstance(labels, str) else labels)
    prompt = prompt_for(model, "detect").replace("{labels}", " ; ".join(wanted))
    sources, many = many_images(images)
    answers = in_batches(
        sources, lambda batch: _detect(model, batch, prompt, decoding), size=writing_batch(model), what="images"
    )
    return answers if many else answers[0]


def _detect(model: TaskModel, sources: Sequence[ImageSource], prompt: str, decoding: dict[str, Any]) -> list[list[Box]]:
    pictures = open_all(model, sources)
    options = {"max_new_tokens": 256, **decoding}
    written = write_batch(model, [(picture, prompt) for picture in pictures], options, likelihood=True)
    boxes = []
    for picture, answer in zip(pictures, written, strict=True):
        found, _ = parse_located(answer.text)
        kept, _ = parse_boxes(answer.text, picture.size, certainty(model, answer, found))
        boxes.append(sorted(kept, key=lambda box: -box.score))
    return boxes
