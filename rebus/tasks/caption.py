"""A sentence about an image."""

from collections.abc import Sequence
from typing import Any

from rebus.codec.text import Prompt
from rebus.tasks.inputs import in_pairs
from rebus.tasks.task_model import TaskModel, prompt_for
from rebus.tasks.text_generation import write


def caption(
    model: TaskModel, images: Any, prompt: Prompt | Sequence[Prompt] | None = None, **decoding: Any
) -> str | list[str]:
    """What is in the image. `prompt` replaces the system's own, one for all images or one each."""
    pairs, many = in_pairs(images, prompt_for(model, "caption") if prompt is None else prompt, "prompts")
    answers = [answer.text for answer in write(model, pairs, decoding, max_new_tokens=64)]
    return answers if many else answers[0]
