"""POPE: whether a model sees things that are not there, by questions with yes or no.

Li et al., "Evaluating Object Hallucination in Large Vision-Language Models", 2023. "Yes" is the positive answer. An
answer is read as the authors' script does it, https://github.com/AoiDragon/POPE: "no" when the first sentence, without
commas and parted at single spaces, holds "No", "no" or "not"; else "yes", whatever it says.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from rebus.core.errors import MissingFile, RebusError, UsageError
from rebus.data.held_out_scenes import YesNoQuestions
from rebus.data.reading.line_index import find_lines, pieces_of
from rebus.data.reading.media_paths import MediaPaths
from rebus.data.reading.tables import json_row
from rebus.data.record import BadRecord, Question, Reader, Record
from rebus.evaluate.benchmarks.walk import Example, Source
from rebus.evaluate.outcome import Mistake, Outcome, Plot, Worst

READS = "POPE's files: lines of question_id, image, text, label (coco_pope_random.json …); --images is their folder"
# Forms that are read, and what each was checked against: a public reader, a dataset card, or memory
CHECKED = (("POPE's lines of `question_id`, `image`, `text`, `label`", "the authors' files and `evaluate.py`"),)
TASKS = ("ask",)
HELD_OUT = YesNoQuestions  # of the scenes world

_ENDINGS = (".jsonl", ".json")
_FOLDERS = ("", "images", "val2014", "images/val2014", "coco/val2014")
_OFFICIAL = {"No", "no", "not"}
_ANY_CASE = {"no", "not"}

Rule = Literal["official", "any-case"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """`images`: the folder of the images, where they do not lie beside the questions. `yes_no`: how an answer is read,
    see `says_yes`."""

    images: str | None = None
    yes_no: Rule = "official"


def run(model: Any, source: Source, options: Options) -> Outcome:
    worst = Worst()
    said: dict[str, list[tuple[bool, bool]]] = {}
    records = source.records(partial(_open, images=options.images))
    for batch in records.batches(_has_label):
        questions = [example.record.questions[0] for example in batch]
        answers = model.ask([example.image for example in batch], [question.text for question in questions])
        for example, question, answer in zip(batch, questions, answers, strict=True):
            pair = says_yes(answer, options.yes_no), question.answers[0] == "yes"
            said.setdefault(question.kind, []).append(pair)
            if pair[0] != pair[1]:
                worst.add(_mistake(example, question, answer))
    scores: dict[str, Any] = {**rates([pair for pairs in said.values() for pair in pairs])}
    if len(said) > 1:
        scores |= {kind: rates(pairs) for kind, pairs in said.items()}
    count = sum(map(len, said.values()))
    names = ["accuracy", "precision", "recall", "f1", "yes"]
    chart = Plot(
        name="rates",
        title="answers to yes-no questions",
        x="",
        y="share",
        series={kind: (names, [rates(pairs)[name] for name in names]) for kind, pairs in said.items()},
    )
    note = f'{count:,} questions; "yes" is the share of such answers, of {_true(said) / count:.3f} that should be'
    read = {"official": "the authors' script reads them", "any-case": "words in any case"}[options.yes_no]
    return Outcome(scores=scores, worst=[*worst], plots=[chart], notes=[note, f"answers are read as {read}"])


def says_yes(answer: str, rule: Rule = "official") -> bool:
    """Whether an answer counts as yes: by the authors' script ("NO" and "no\n" are yes), or with words in any case,
    parted at any white space."""
    first = answer.split(".")[0].replace(",", "")
    if rule == "any-case":
        return not _ANY_CASE & set(first.lower().split())
    return not _OFFICIAL & set(first.split(" "))


def rates(pairs: list[tuple[bool, bool]]) -> dict[str, float]:
    """Accuracy, precision, recall, F1 and the share of yes of (said yes, is yes)."""
    both = sum(said and true for said, true in pairs)
    yes, true = sum(said for said, _ in pairs), sum(true for _, true in pairs)
    return {
        "accuracy": sum(said == right for said, right in pairs) / len(pairs),
        "precision": both / yes if yes else 0.0,
        "recall": both / true if true else 0.0,
        "f1": 2 * both / (yes + true) if yes + true else 0.0,
        "yes": yes / len(pairs),
    }


class Pope:
    """One record a question, one block a file; the kind of a question is the last word of its file's name."""

    labels: tuple[str, ...] = ()

    def __init__(self, files: list[Path], images: Path | None):
        self._files = files
        self._lines = [find_lines(pieces_of(file)) for file in files]
        self.sizes = tuple(len(lines) for lines in self._lines)
        roots = [images] if images else [file.parent for file in files] + [file.parent.parent for file in files]
        self._places = MediaPaths(root / name for root in roots for name in _FOLDERS)

    def read(self, block: int, row: int) -> Record:
        path, lines = self._files[block], self._lines[block]
        key = f"{path.name}:{lines.number(row)}"
        with path.open("rb") as file:
            line = json_row(lines.read(file, row, key), key)
        text, label, image = line.get("text"), line.get("label"), line.get("image")
        if not isinstance(text, str) or not isinstance(image, str):
            raise BadRecord(key, "expected image and text")
        if label not in ("yes", "no"):
            raise BadRecord(key, f'its label should be "yes" or "no"; got {label!r}')
        kind = path.stem.split("_")[-1]
        question = Question(text=text, answers=(label,), id=str(line.get("question_id", "")), kind=kind)
        try:
            return Record(key=key, image=self._places.find(image), questions=(question,))
        except RebusError as error:
            raise BadRecord(key, str(error)) from None


def _open(path: Path, layout: str, split: str | None, images: str | None) -> Reader:
    if layout not in ("auto", "pope"):
        raise UsageError(f"pope reads its own files, and no layout {layout!r}; leave --layout out")
    if not path.exists():
        raise MissingFile(f"{path}: no such file or folder")
    files = [path] if path.is_file() else sorted(file for file in path.glob("*pope*") if file.suffix in _ENDINGS)
    chosen = [file for file in files if split is None or file.stem.split("_")[-1] == split]
    if not chosen:
        there = f"; there are {', '.join(file.name for file in files)}" if files else f"; this benchmark reads {READS}"
        raise UsageError(f"{path}: no questions{f' of {split!r}' if split else ''}{there}")
    return Pope(chosen, None if images is None else Path(images))


def _has_label(example: Example) -> None:
    if not example.record.questions:
        raise example.bad("has no question")


def _mistake(example: Example, question: Question, answer: str) -> Mistake:
    badness = 2.0 if question.answers[0] == "no" else 1.0  # what is not there is what this benchmark is about
    return Mistake(
        key=f"{question.kind} {question.id}",
        badness=badness,
        said=f"{question.text}: {answer}",
        truth=question.answers[0],
        image=example.again,
    )


def _true(said: dict[str, list[tuple[bool, bool]]]) -> int:
    return sum(true for pairs in said.values() for _, true in pairs)
