"""Image captioning."""

from collections.abc import Sequence
from typing import Any

from rebus.codec.text import Prompt
from rebus.tasks.batching import AS_IT_SUITS, BatchOptions
from rebus.tasks.few_shot import shots_of
from rebus.tasks.inputs import in_pairs
from rebus.tasks.task_model import TaskModel, decoding_for, prompt_for
from rebus.tasks.text_generation import generate_texts


def caption(
    model: TaskModel,
    images: Any,
    prompt: Prompt | Sequence[Prompt] | None = None,
    *,
    examples: Any = None,
    batching: BatchOptions = AS_IT_SUITS,
    **decoding: Any,
) -> str | list[str]:
    """A caption for each image. `prompt` replaces the system's own, one for all images or one each. `examples`:
    few-shot examples (image, caption), or the `Shots` made of them.
    """
    shots = shots_of(model, "caption", examples, prompt if isinstance(prompt, str) else None)
    pairs, many = in_pairs(images, prompt_for(model, "caption") if prompt is None else prompt, "prompts")
    answers = generate_texts(model, pairs, decoding_for(model, "caption", decoding), batching, shots)
    return answers if many else answers[0]
