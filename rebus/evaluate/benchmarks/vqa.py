"""Questions about images, by what people answered.

Ten answers to a question are counted as VQA v2 counts them (see `rebus.evaluate.vqa`); else an answer is right when it
equals one of those given, both as that evaluation writes them (COCO-QA has one).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rebus.core.errors import UsageError
from rebus.data.record import Question
from rebus.evaluate.benchmarks.walk import Example, Source
from rebus.evaluate.outcome import Mistake, Outcome, Worst, bars
from rebus.evaluate.vqa import NUM_PEOPLE, normal_answer, vqa_accuracy

READS = "images with questions and answers (vqa, or folder with the columns question and answer)"
TASKS = ("ask",)


@dataclass(frozen=True, kw_only=True)
class Options:
    """`max_new_tokens` of an answer."""

    max_new_tokens: int | None = None


def run(model: Any, source: Source, options: Options) -> Outcome:
    decoding = {} if options.max_new_tokens is None else {"max_new_tokens": options.max_new_tokens}
    worst = Worst()
    kinds: dict[str, list[float]] = {}
    people: set[int] = set()
    for batch in source.records().batches(_has_answers):
        asked = [(example, question) for example in batch for question in example.record.questions]
        said = _answers(model, asked, decoding)
        for (example, question), answer in zip(asked, said, strict=True):
            score = accuracy(answer, question.answers)
            kinds.setdefault(question.kind, []).append(score)
            people.add(len(question.answers))
            if score < 1:
                worst.add(_mistake(example, question, answer, score))
    everything = [score for scores in kinds.values() for score in scores]
    by_kind = {kind or "other": float(np.mean(scores)) for kind, scores in sorted(kinds.items())}
    found: dict[str, Any] = {"accuracy": float(np.mean(everything))}
    plots = []
    if len(by_kind) > 1:
        found["by_type"] = by_kind
        plots.append(bars("types", "accuracy by type of answer", by_kind, y="accuracy"))
    how = "as VQA v2 counts" if people == {NUM_PEOPLE} else "equal to an answer given, after normalisation"
    if NUM_PEOPLE in people and len(people) > 1:
        how = "questions with ten answers as VQA v2 counts, others by equality with one of them"
    return Outcome(scores=found, worst=[*worst], plots=plots, notes=[f"{len(everything):,} questions; {how}"])


def _answers(model: Any, asked: Sequence[tuple[Example, Question]], decoding: dict[str, Any]) -> list[str]:
    """A question that is a whole prompt (PaliGemma's prefixes) is not put into the model's own once more."""
    said = [""] * len(asked)
    for whole, options in ((False, {}), (True, {"prompt": "{question}"})):
        places = [at for at, (_, question) in enumerate(asked) if question.is_prompt == whole]
        if places:
            images, texts = [asked[at][0].image for at in places], [asked[at][1].text for at in places]
            for at, answer in zip(places, model.ask(images, texts, **options, **decoding), strict=True):
                said[at] = answer
    return said


def accuracy(answer: str, given: Sequence[str]) -> float:
    """Between 0 and 1."""
    if len(given) == NUM_PEOPLE:
        return vqa_accuracy([answer], [given])
    return float(normal_answer(answer.strip()) in {normal_answer(one.strip()) for one in given})


def _has_answers(example: Example) -> None:
    questions = example.record.questions
    if not questions or not all(question.is_prompt or question.text.strip() for question in questions):
        raise example.bad("has no question")
    if not all(question.answers for question in questions):
        if not any(question.answers for question in questions):
            raise UsageError(f"{example.record.key}: its questions have no answers: a test split cannot be scored here")
        raise example.bad("one of its questions has no answer")


def _mistake(example: Example, question: Question, answer: str, score: float) -> Mistake:
    common = sorted(set(question.answers), key=lambda one: (-question.answers.count(one), one))
    return Mistake(
        key=question.id or example.record.key,
        badness=1 - score,
        said=f"{question.text}: {answer}",
        truth=", ".join(common[:4]),
        image=example.again,
    )
