"""A sentence about a picture."""

from collections.abc import Sequence
from typing import Any

from rebus.codec.text import Prompt
from rebus.tasks.items import in_pairs
from rebus.tasks.model import TaskModel, words_for
from rebus.tasks.writing import write


def caption(
    model: TaskModel, images: Any, prompt: Prompt | Sequence[Prompt] | None = None, **decoding: Any
) -> str | list[str]:
    """What is in the picture. `prompt` replaces the system's own, one for all pictures or one each."""
    pairs, many = in_pairs(images, words_for(model, "caption") if prompt is None else prompt, "prompts")
    answers = [answer.text for answer in write(model, pairs, decoding, max_new_tokens=64)]
    return answers if many else answers[0]
