"""Rows of a table about the same image as one record: a row for each caption is one image with several captions."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, TypeVar

import numpy as np

from rebus.data.reading.disk_cache import Arrays, kept
from rebus.data.reading.row_to_record import file_column, label_column
from rebus.data.reading.tables import Table
from rebus.data.record import Question, Record

_T = TypeVar("_T")


@dataclass(frozen=True)
class RowGroups:
    """The numbers of a table's rows by image, images and rows in the order of the table."""

    rows: np.ndarray  # int64 (rows,), or empty: group n is row n
    begins: np.ndarray  # int64 (groups + 1,), or empty: group n is the n-th of `rows` alone
    count: int

    def __len__(self) -> int:
        return self.count

    def rows_of(self, group: int) -> list[int]:
        if len(self.begins):
            own: list[int] = self.rows[self.begins[group] : self.begins[group + 1]].tolist()
            return own
        return [int(self.rows[group]) if len(self.rows) else group]


def by_image(table: Table, split: str | None) -> RowGroups:
    """The rows, or those of a split. The first time, this reads the table through. Raises what `Table.rows_of` does.

    Rows are about the same image when they name the same file and give the same label: a table of several labels an
    image keeps a record for each. Images are compared by a 64-bit hash: among 100 million, two collide
    once in 4,000 times. A row that cannot be read is alone.
    """
    rows = np.array([], dtype=np.int64) if split is None else table.rows_of(split)
    images = kept("images", [table.path], partial(_images, table))["images"]
    return grouped(images if split is None else images[rows], rows)


def grouped(own: np.ndarray, rows: np.ndarray) -> RowGroups:
    """Rows by image. `own`: the hash of each one's image; `rows`: their numbers, empty where they are 0, 1, …"""
    _, first, inverse = np.unique(own, return_index=True, return_inverse=True)
    if len(first) == len(own):
        return RowGroups(rows, np.array([], dtype=np.int64), len(own))
    owner = first[inverse]  # the first row of each row's image
    order = np.argsort(owner, kind="stable")
    begins = np.flatnonzero(np.diff(owner[order], prepend=-1))
    numbers = rows[order] if len(rows) else order
    return RowGroups(numbers.astype(np.int64), np.append(begins, len(order)).astype(np.int64), len(begins))


def _images(table: Table) -> Arrays:
    images = np.empty(len(table), dtype=np.uint64)
    columns_of = lru_cache(maxsize=8)(file_column)  # the rows of most tables have the same columns
    for number, row in enumerate(table.rows()):
        column = None if row is None else columns_of(tuple(row))
        name = f"\0{number}" if row is None or column is None else f"{row[column]}\0{row.get(label_column(row) or '')}"
        images[number] = hash_of(name.encode("utf-8", "surrogatepass"))
    return {"images": images}


def hash_of(name: bytes) -> int:
    """64 bits."""
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little")


def merged(records: Sequence[Record]) -> Record:
    """One record of several about the same image, named by the first.

    Captions add up; those of a row that asks a question, and things and phrases, count once however many rows repeat
    them. Answers to the same question are joined. Facts that differ become lists, a value for each row.
    """
    if len(records) == 1:
        return records[0]
    captions: list[str] = []
    for record in records:
        captions += [text for text in record.captions if not record.questions or text not in captions]
    return replace(
        records[0],
        captions=tuple(captions),
        questions=_questions(records),
        things=_new([record.things for record in records]),
        phrases=_new([record.phrases for record in records]),
        absent=_new([record.absent for record in records]),
        incomplete=_new([record.incomplete for record in records]),
        facts=_facts(records),
    )


def _questions(records: Sequence[Record]) -> tuple[Question, ...]:
    found: dict[tuple[str, str, str], Question] = {}
    for question in (question for record in records for question in record.questions):
        name = (question.text, question.id, question.kind)
        before = found[name].answers if name in found else ()
        found[name] = replace(question, answers=before + question.answers)
    return tuple(found.values())


def _new(rows: Sequence[tuple[_T, ...]]) -> tuple[_T, ...]:
    """What each row says that no row before it has said. Things may hold lists: they are compared, not hashed."""
    found: list[_T] = []
    for row in rows:
        found += [item for item in row if item not in found] if found else row
    return tuple(found)


def _facts(records: Sequence[Record]) -> dict[str, Any]:
    names = dict.fromkeys(name for record in records for name in record.facts)
    facts: dict[str, Any] = {}
    for name in names:
        values = [record.facts[name] for record in records if name in record.facts]
        facts[name] = values[0] if all(value == values[0] for value in values) else values
    if any(record.things for record in records) and facts.get("boxes", ...) is None:
        del facts["boxes"]  # another row has marked them
    return facts
