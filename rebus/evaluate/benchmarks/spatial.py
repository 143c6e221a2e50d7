"""Spatial relations: which of two captions or more is true, where they differ in a word such as "left".

In the form of What'sUp (Kamath et al., "What's 'up' with vision-language models?", 2023). Dual encoders compare,
generative models say which caption they would rather have written.
"""

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rebus.core.errors import MissingFile, RebusError, UsageError
from rebus.data.held_out_scenes import RelationCaptions
from rebus.data.reading.checked_fields import shown
from rebus.data.reading.json_spans import read_json
from rebus.data.reading.media_paths import MediaPaths
from rebus.data.reading.tables import ENDINGS, BadTable, Table
from rebus.data.record import BadRecord, Question, Reader, Record
from rebus.evaluate.benchmarks.walk import Example, Source
from rebus.evaluate.outcome import Mistake, Outcome, Worst, bars

READS = (
    "a table (CSV, TSV, JSONL, JSON) of image, captions (a list) and label (the index of the true one, from 0, or the "
    "caption itself), or What'sUp's image_path and caption_options, of which the first is true, or its lists "
    "[image's number, true caption, false caption] (coco_qa_*.json, vg_qa_*.json); --images is the folder of the images"
)
# Forms that are read, and what each was checked against: a public reader, a dataset card, or memory
CHECKED = (
    ("tables of `image`, `captions`, `label`", "our own form"),
    (
        "What'sUp's `image_path`, `caption_options`; lists of `coco_qa_*.json`, `vg_qa_*.json`",
        "the authors' `dataset_zoo/aro_datasets.py`; samples written by hand",
    ),
)
TASKS = ("match", "classify")
HELD_OUT = RelationCaptions  # of the scenes world

_IMAGES = ("image", "file", "file_name", "filename", "path", "image_path")
_CAPTIONS = ("captions", "options", "caption_options")
_LABELS = ("label", "answer", "correct", "index")
_KINDS = ("relation", "type", "subset")
# Where the images of What'sUp's lists lie, by their number, as its loaders have it
_NUMBERED = {
    "coco_qa": ("val2017/{:012}.jpg", "{:012}.jpg"),
    "vg_qa": ("vg_images/{}.jpg", "images/{}.jpg", "VG_100K/{}.jpg", "VG_100K_2/{}.jpg", "{}.jpg"),
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """`images`: the folder of the images, where they do not lie beside the table."""

    images: str | None = None


def run(model: Any, source: Source, options: Options) -> Outcome:
    worst = Worst()
    kinds: dict[str, list[bool]] = {}
    chance: list[float] = []
    for batch in source.records(partial(_open, images=options.images)).batches():
        for example, scores in zip(batch, _scores(model, batch), strict=True):
            captions, question = example.record.captions, example.record.questions[0]
            truth = captions.index(question.answers[0])
            said = int(np.argmax(scores))
            kinds.setdefault(question.kind, []).append(said == truth)
            chance.append(1 / len(captions))
            if said != truth:
                worst.add(
                    Mistake(
                        key=example.record.key,
                        badness=float(scores[said] - scores[truth]),
                        said=captions[said],
                        truth=captions[truth],
                        image=example.again,
                    )
                )
    everything = [right for rights in kinds.values() for right in rights]
    scores_by_name: dict[str, Any] = {"accuracy": float(np.mean(everything)), "chance": float(np.mean(chance))}
    by_kind = {kind or "other": float(np.mean(rights)) for kind, rights in sorted(kinds.items())}
    if len(by_kind) > 1:
        scores_by_name["by_relation"] = by_kind
    chart = bars("relations", "accuracy by relation", by_kind if len(by_kind) > 1 else {"all": by_kind.popitem()[1]})
    how = "by match" if "match" in model.tasks else "by likelihood"
    return Outcome(scores=scores_by_name, worst=[*worst], plots=[chart], notes=[f"{len(everything):,} images, {how}"])


def _scores(model: Any, batch: Sequence[Example]) -> list[np.ndarray]:
    """For each image the scores of its own captions."""
    if "match" not in model.tasks:
        found = []
        for example in batch:
            ranking = dict(model.classify(example.image, list(example.record.captions)))
            found.append(np.array([ranking[caption] for caption in example.record.captions]))
        return found
    ends = np.cumsum([0, *(len(example.record.captions) for example in batch)])
    texts = [caption for example in batch for caption in example.record.captions]
    table = np.asarray(model.match([example.image for example in batch], texts))
    return [table[row, ends[row] : ends[row + 1]] for row in range(len(batch))]


class Choices:
    """One record an image: all captions, and the true one as the answer of its only question."""

    labels: tuple[str, ...] = ()

    def __init__(self, file: Path, images: Path | None):
        self._table = Table.open(file)
        columns = self._table.columns
        self._image, self._captions = _first(columns, _IMAGES), _first(columns, _CAPTIONS)
        if self._image is None or self._captions is None:
            raise BadTable(f"{file}: its columns are {', '.join(columns)}; wanted {READS}")
        self._label, self._kind = _first(columns, _LABELS), _first(columns, _KINDS)
        if self._label is None and self._captions != "caption_options":
            raise BadTable(f"{file}: has no column {' or '.join(_LABELS)}, the true caption")
        self.sizes = (len(self._table),)
        self._places = MediaPaths([images, images.parent] if images else [file.parent, file.parent.parent])

    def read(self, block: int, row: int) -> Record:
        key, line = self._table.key(row), self._table.row(row)
        try:
            captions = _captions(line.get(str(self._captions)))
            true = _true(captions, None if self._label is None else line.get(self._label), self._label is None)
            name = line.get(str(self._image))
            if not isinstance(name, str):
                raise RebusError(f"the image's file must be a name; got {name!r}")
            kind = str(line.get(self._kind) or "") if self._kind else ""
            question = Question(text="which is true?", answers=(true,), kind=kind)
            return Record(key=key, image=self._places.find(name), captions=captions, questions=(question,))
        except BadRecord:
            raise
        except RebusError as error:
            raise BadRecord(key, str(error)) from None


class Lists:
    """What'sUp's `coco_qa_*.json` and `vg_qa_*.json`: [image's number, true caption, false caption] each."""

    labels: tuple[str, ...] = ()

    def __init__(self, file: Path, images: Path | None):
        self._file, self._rows = file, read_json(file)
        self.sizes = (len(self._rows),)
        kind = next((kind for kind in _NUMBERED if file.name.startswith(kind)), None)
        names = _NUMBERED[kind] if kind else tuple(dict.fromkeys(itertools.chain(*_NUMBERED.values())))
        self._names = names
        self._places = MediaPaths([images, images.parent] if images else [file.parent, file.parent.parent])

    def read(self, block: int, row: int) -> Record:
        key, line = f"{self._file.name}[{row}]", self._rows[row]
        try:
            if not isinstance(line, list) or len(line) != 3:
                raise RebusError("expected [image's number, true caption, false caption]")
            number = int(line[0]) if str(line[0]).isdigit() else -1
            if number < 0:
                raise RebusError(f"the image's number should be a whole number; got {shown(line[0])}")
            captions = _captions(line[1:])
            question = Question(text="which is true?", answers=(captions[0],))
            return Record(key=key, image=self._image(number), captions=captions, questions=(question,))
        except RebusError as error:
            raise BadRecord(key, str(error)) from None

    def _image(self, number: int) -> Path:
        for name in self._names[:-1]:
            with suppress(RebusError):
                return self._places.find(name.format(number))
        return self._places.find(self._names[-1].format(number))


def _is_list_of_lists(file: Path) -> bool:
    if file.suffix.lower() != ".json":
        return False
    with file.open("rb") as opened:
        return re.match(rb"(?:\xef\xbb\xbf)?\s*\[\s*\[", opened.read(1 << 12)) is not None


def _captions(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise RebusError("captions must be a list, written as JSON") from None
    if not isinstance(value, list) or len(value) < 2 or not all(isinstance(one, str) and one.strip() for one in value):
        raise RebusError("captions must be a list of two texts or more")
    if len(set(value)) < len(value):
        raise RebusError("two of its captions are the same")
    return tuple(value)


def _true(captions: Sequence[str], label: Any, first: bool) -> str:
    if first:
        return captions[0]
    if isinstance(label, str) and label in captions:
        return label
    place = int(label) if isinstance(label, str) and label.strip().isdigit() else label
    if isinstance(place, int) and not isinstance(place, bool) and 0 <= place < len(captions):
        return captions[place]
    raise RebusError(f"its label should be one of the captions or a place from 0 to {len(captions) - 1}; got {label!r}")


def _open(path: Path, layout: str, split: str | None, images: str | None) -> Reader:
    if layout not in ("auto", "spatial"):
        raise UsageError(f"spatial reads its own tables, and no layout {layout!r}; leave --layout out")
    if split is not None:
        raise UsageError("spatial has no splits: give the file as --data")
    if not path.exists():
        raise MissingFile(f"{path}: no such file or folder")
    tables = [path] if path.is_file() else sorted(file for file in path.iterdir() if file.suffix.lower() in ENDINGS)
    if len(tables) != 1:
        there = f"give one of {', '.join(file.name for file in tables)}" if tables else f"this benchmark reads {READS}"
        raise UsageError(f"{path}: {len(tables)} tables; {there}")
    reader = Lists if _is_list_of_lists(tables[0]) else Choices
    return reader(tables[0], None if images is None else Path(images))


def _first(columns: Sequence[str] | Mapping[str, Any], names: Sequence[str]) -> str | None:
    return next((name for name in names if name in columns), None)
