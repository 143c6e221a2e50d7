"""VQAv2: questions about images of COCO, each answered by ten people. VQA v1 and OK-VQA have the same files.

Goyal et al., "Making the V in VQA Matter", 2017; https://visualqa.org/download.html.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np

from rebus.core.errors import RebusError, UsageError
from rebus.data.reading.checked_fields import identity, is_identity, listed, mapping, named, words
from rebus.data.reading.json_spans import JsonFile, Span
from rebus.data.reading.media_paths import MediaPaths
from rebus.data.record import BadRecord, Question, Record

NAME = "vqa"
WHAT = "VQAv2, VQA v1, OK-VQA: *OpenEnded_mscoco_*_questions.json and *mscoco_*_annotations.json"
# Forms that are read, and what each was checked against: a public reader, a dataset card, or memory
CHECKED = (
    ("`*OpenEnded_mscoco_*_questions.json` and `*mscoco_*_annotations.json`", "memory; samples written by hand"),
)

_FILE = re.compile(r"(v2_)?OpenEnded_mscoco_(.+)_questions\.json")
_FOLDERS = ("", "questions", "Questions", "annotations", "Annotations")


def recognises(path: Path) -> bool:
    return _FILE.fullmatch(path.name) is not None if path.is_file() else bool(_files(path))


def open(path: Path, split: str | None = None) -> "VQA":
    return VQA(path, split)


class VQA:
    """One record an image with its questions; `answers` are the ten people's, in order, none for the test splits.

    `facts["most_common"]`: question id → the answer that most people gave, where the file says it. `split`: "val" by
    default, "train", "test", "test-dev", with or without a year. Raises `UsageError` for a split that is not there,
    `RebusError` for damaged JSON.
    """

    labels: tuple[str, ...] = ()

    def __init__(self, path: Path, split: str | None = None):
        file, subset = _chosen(path, split)
        self._file = JsonFile.open(file)
        self._subset = subset.replace("-dev", "")  # both test splits ask about the same images
        self._answers = _answers_beside(file, subset)
        self._damaged: list[tuple[Span, str]] = []
        owners, spans, numbers = self._questions()
        answered = self._answered() if self._answers else {}
        order = np.argsort(owners, kind="stable")
        self._images, self._begins = np.unique(owners[order], return_index=True)
        self._begins = np.append(self._begins, len(order))
        places = [(*spans[at], *answered.get(numbers[at], (-1, -1))) for at in order]
        self._spans = np.array(places, dtype=np.int64).reshape(-1, 4)
        self.sizes = (len(self._images) + len(self._damaged),)
        root = file.parent
        self._places = MediaPaths(base / name for base in (root, root.parent) for name in ("", "images", "Images"))

    def read(self, block: int, row: int) -> Record:
        if row >= len(self._images):
            span, reason = self._damaged[row - len(self._images)]
            raise BadRecord(f"{self._file.path.name}:byte {span[0]}", reason)
        image = int(self._images[row])
        key = f"{self._file.path.name}:{image}"
        mine = self._spans[self._begins[row] : self._begins[row + 1]]
        try:
            asked = self._file.elements(mine[:, :2].tolist())
            answers = self._answers_at(mine[:, 2:].tolist())
            pairs = [(mapping(item, "a question"), answer) for item, answer in zip(asked, answers)]
            common = {str(item["question_id"]): a["multiple_choice_answer"] for item, a in pairs if a and _common(a)}
            return Record(
                key=key,
                image=self._places.find(f"{self._subset}/COCO_{self._subset}_{image:012}.jpg"),
                questions=tuple(_question(item, answer) for item, answer in pairs),
                facts={"image_id": image, "most_common": common},
            )
        except RebusError as error:
            raise BadRecord(key, str(error)) from None

    def _questions(self) -> tuple[np.ndarray, list[Span], list[int | str]]:
        owners: list[int] = []
        spans: list[Span] = []
        numbers: list[int | str] = []

        def question(item: dict[str, Any], start: int, end: int) -> None:
            image, number = item.get("image_id"), item.get("question_id")
            if not isinstance(image, int) or isinstance(image, bool) or not 0 <= image < 1 << 62:
                self._damaged.append(((start, end), f"question {named(item, 'question_id')} has no image_id"))
            elif not is_identity(number):
                self._damaged.append(((start, end), f"a question about image {image} has no question_id"))
            else:
                owners.append(image)
                spans.append((start, end))
                numbers.append(number)

        self._file.scan({"questions": (["image_id", "question_id"], question)})
        if not owners:
            raise RebusError(f'{self._file.path}: no questions: a list "questions"  with ids is missing')
        return np.array(owners, dtype=np.int64), spans, numbers

    def _answered(self) -> dict[int | str, Span]:
        found: dict[int | str, Span] = {}

        def annotation(element: dict[str, Any], start: int, end: int) -> None:
            number = element.get("question_id")
            if is_identity(number):  # others leave their question without an answer, which shows there
                found[number] = (start, end)

        assert self._answers is not None
        self._answers.scan({"annotations": (["question_id"], annotation)})
        return found

    def _answers_at(self, spans: list[Span]) -> list[dict[str, Any] | None]:
        if self._answers is None:
            return [None] * len(spans)
        if any(start < 0 for start, _ in spans):
            raise RebusError(f"a question has no answers in {self._answers.path.name}")
        return [mapping(item, "an annotation") for item in self._answers.elements(spans)]


def _question(item: dict[str, Any], answer: dict[str, Any] | None) -> Question:
    number = identity(item, "question_id")
    try:
        text = words(item, "question")
        if answer is None:
            return Question(text=text, answers=(), id=str(number))
        if answer.get("image_id") != item["image_id"]:
            raise RebusError(f"its answers are about image {named(answer, 'image_id')}")
        given = tuple(words(mapping(one, "an answer"), "answer") for one in listed(answer, "answers"))
        kind = words(answer, "answer_type") if "answer_type" in answer else ""
        return Question(text=text, answers=given, id=str(number), kind=kind)
    except RebusError as error:
        raise RebusError(f"question {number}: {error}") from None


def _common(answer: dict[str, Any]) -> bool:
    return isinstance(answer.get("multiple_choice_answer"), str)


def _files(path: Path) -> dict[str, Path]:
    """Split with its year → questions; of v1 and v2 in one folder, v2."""
    files = [file for name in _FOLDERS for file in sorted((path / name).glob("*OpenEnded_mscoco_*_questions.json"))]
    return {match[2]: file for file in files if (match := _FILE.fullmatch(file.name))}


def _chosen(path: Path, split: str | None) -> tuple[Path, str]:
    if path.is_file():
        match = _FILE.fullmatch(path.name)
        if not match:
            raise UsageError(f"{path}: the name should be v2_OpenEnded_mscoco_<split>_questions.json")
        return path, match[2]
    files, wanted = _files(path), split or "val"
    fitting = [name for name in files if re.fullmatch(re.escape(wanted) + r"(\d{4})?", name)]
    if not fitting and split is None and len(files) == 1:
        fitting = list(files)
    if not fitting:
        raise UsageError(f'{path}: no questions of split "{wanted}"; there are {", ".join(files) or "none"}')
    return files[max(fitting)], max(fitting)


def _answers_beside(file: Path, subset: str) -> JsonFile | None:
    """The answers to a file of questions; the test splits have none. Raises `UsageError` when they should be there."""
    name = file.name.replace("OpenEnded_", "").replace("_questions", "_annotations")
    folders = [file.parent, *(file.parent.parent / folder for folder in _FOLDERS[1:])]
    found = next((folder / name for folder in folders if (folder / name).is_file()), None)
    if found is None and not subset.startswith("test"):
        raise UsageError(f"{file}: its answers, {name}, are not beside it")
    return JsonFile.open(found) if found else None
