"""Tasks by their names in a release: `perform(image, "<DENSE_REGION_CAPTION>")`."""

from collections.abc import Sequence
from typing import Any

from PIL import Image

from rebus.codec.images import ImageSource
from rebus.codec.named_prompts import named_prompt
from rebus.core.errors import UnsupportedTask, UsageError, unknown
from rebus.core.places import XYXY
from rebus.core.specs import NamedTask
from rebus.tasks.batching import AS_IT_SUITS, BatchOptions, in_batches
from rebus.tasks.inputs import many_images
from rebus.tasks.located_answers import boxes_of, lines_of, masks_of
from rebus.tasks.location_scores import open_all
from rebus.tasks.task_model import TaskModel, decoding_for, locations_of
from rebus.tasks.text_generation import Generated, generate_batch, generation_batch


def perform(
    model: TaskModel,
    images: Any,
    task: str,
    text: str | None = None,
    region: XYXY | None = None,
    *,
    batching: BatchOptions = AS_IT_SUITS,
    **decoding: Any,
) -> Any:
    """The answer for each image: a text, boxes, lines of text or masks (`System.named_tasks`). `text`: the caption or
    phrase that some tasks need; `region`: the xyxy in pixels that others need. Raises `UnknownName` for a task that the
    system does not have, `UsageError` for an input that the task does not take or lacks.
    """
    tasks = model.system.named_tasks
    if not tasks:
        raise UnsupportedTask(f"{model.system.name} has no named tasks")
    if task not in tasks:
        raise unknown("task", task, tasks, f"There are: {', '.join(tasks)}.")
    named = tasks[task]
    _check_input(task, named, "text", text is not None and bool(text.strip()))
    _check_input(task, named, "region", region is not None)
    sources, many = many_images(images)
    options = decoding_for(model, "perform", decoding)
    locations = None if region is None else locations_of(model)

    def work(batch: Sequence[ImageSource]) -> list[Any]:
        opened = open_all(model, batch)
        pairs = [(image, named_prompt(named, locations, image.size, text, region)) for image in opened]
        generated = generate_batch(model, pairs, options, likelihood=named.answer != "text")
        return [_answer(model, named, image, one, text) for image, one in zip(opened, generated, strict=True)]

    answers = in_batches(sources, work, size=generation_batch(model), what="images", options=batching)
    return answers if many else answers[0]


def _check_input(name: str, task: NamedTask, what: str, given: bool) -> None:
    wanted = f"{{{what}}}" in task.prompt
    if wanted != given:
        raise UsageError(f"{name} expects a {what}: {what}=…" if wanted else f"{name} takes no {what}")


def _answer(model: TaskModel, task: NamedTask, image: Image.Image, answer: Generated, text: str | None) -> Any:
    if task.answer == "text":
        return answer.text
    if task.answer == "lines":
        return lines_of(model, image, answer)
    outlined = model.system.outlines is not None and model.system.outlines.is_marked(answer.text)
    if task.answer == "masks" or (task.answer == "boxes or masks" and outlined):
        return masks_of(model, image, answer, "" if text is None else text.strip())
    return boxes_of(model, image, answer, task.label, task.skip)
