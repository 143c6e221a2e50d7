"""Visual question answering: generated answers, or classification over a fixed answer list."""

from collections.abc import Sequence
from typing import Any

import torch

from rebus.codec.images import ImageSource
from rebus.codec.text import Prompt, filled_prompt
from rebus.core.capabilities import PicksAnswers
from rebus.core.errors import BadCheckpoint, BadText, UsageError
from rebus.core.finite import check_finite
from rebus.tasks.batching import AS_IT_SUITS, BatchOptions, in_batches
from rebus.tasks.few_shot import shots_of
from rebus.tasks.inputs import in_pairs
from rebus.tasks.task_model import TaskModel, batch_size, companion, decoding_for, no_decoding, prompt_for
from rebus.tasks.text_generation import Pair, generate_texts, inputs


def ask(
    model: TaskModel,
    images: Any,
    questions: str | Sequence[str],
    prompt: str | None = None,
    *,
    examples: Any = None,
    batching: BatchOptions = AS_IT_SUITS,
    **decoding: Any,
) -> str | list[str]:
    """One answer for each pair of image and question; a single image or question is broadcast.

    `prompt` replaces the system's own; {question} marks the place of the question, so "{question}" alone makes each
    question the whole prompt, which may then be empty. `examples`: (image, question, answer) of some others, shown
    before, or the `Shots` made of them. A network with a fixed answer list (`PicksAnswers`) gives the most probable
    one, and takes no decoding options. Raises `MissingFile` where its checkpoint lacks that list.
    """
    pairs, many = question_pairs(model, images, questions, prompt)
    shots = shots_of(model, "ask", examples, prompt)
    if picks_answers(model):
        answers = _picked(model, pairs, decoding, batching)
    else:
        answers = generate_texts(model, pairs, decoding_for(model, "ask", decoding), batching, shots)
    return answers if many else answers[0]


def picks_answers(model: TaskModel) -> bool:
    """Whether questions are answered from a list (`PicksAnswers`); networks that can may have another head."""
    return isinstance(model.network, PicksAnswers) and "answers" in model.system.companions


def question_pairs(
    model: TaskModel, images: Any, questions: str | Sequence[str], prompt: str | None = None
) -> tuple[list[tuple[ImageSource, Prompt]], bool]:
    """(image, prompt) for each question. Raises `BadText` for an empty one, where `prompt` is not the caller's."""
    own = prompt_for(model, "ask") if prompt is None else prompt
    if "{question}" not in own:
        raise UsageError(f"prompt: expected {{question}} where the question goes; got {own!r}")
    pairs, many = in_pairs(images, questions, "questions")
    for _, question in pairs:
        if not isinstance(question, str) or (prompt is None and not question.strip()):
            raise BadText(f"a question must be a text that is not empty; got {question!r}")
    if prompt is not None:
        return [(image, prompt.replace("{question}", str(question).strip())) for image, question in pairs], many
    prompts = model.system.prompts
    return [(image, filled_prompt(prompts, "ask", question=str(question).strip())) for image, question in pairs], many


def _picked(model: TaskModel, pairs: Sequence[Pair], decoding: dict[str, Any], batching: BatchOptions) -> list[str]:
    no_decoding(model, decoding)
    answers: Sequence[str] = companion(model, "answers")

    def pick(batch: Sequence[Pair]) -> list[str]:
        with torch.inference_mode():
            logits = model.network.answer_logits(**inputs(model, batch))
        check_finite(logits.amax(dim=1, keepdim=True), "image {}", logits.dtype)  # −∞ is an answer never to be given
        if logits.shape[1] != len(answers):
            raise BadCheckpoint(
                f"{model.system.companions['answers'].file} lists {len(answers):,} answers, "
                f"the network scores {logits.shape[1]:,}: they are not of the same checkpoint"
            )
        check_finite(logits.masked_fill(logits == -torch.inf, 0), "images[{}]", logits.dtype)
        return [answers[index] for index in logits.argmax(dim=1).tolist()]

    return in_batches(pairs, pick, size=batch_size(model, cpu=8, accelerator=64), what="images", options=batching)
