"""Answers to questions about an image."""

from collections.abc import Sequence
from typing import Any

from rebus.core.errors import BadText
from rebus.tasks.inputs import in_pairs
from rebus.tasks.task_model import TaskModel, prompt_for
from rebus.tasks.text_generation import Pair, write


def ask(model: TaskModel, images: Any, questions: str | Sequence[str], **decoding: Any) -> str | list[str]:
    """One answer for each pair of image and question; a single one of either goes with all of the other."""
    pairs, many = question_pairs(model, images, questions)
    answers = [answer.text for answer in write(model, pairs, decoding, max_new_tokens=32)]
    return answers if many else answers[0]


def question_pairs(model: TaskModel, images: Any, questions: str | Sequence[str]) -> tuple[list[Pair], bool]:
    """(image, prompt) for each question. Raises `BadText` for an empty one."""
    words = prompt_for(model, "ask")
    pairs, many = in_pairs(images, questions, "questions")
    for _, question in pairs:
        if not isinstance(question, str) or not question.strip():
            raise BadText(f"a question must be words; got {question!r}")
    return [(image, words.replace("{question}", str(question).strip())) for image, question in pairs], many
