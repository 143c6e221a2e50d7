"""Plain text, as C4 has it: `*.json.gz`, `*.json` or `*.jsonl` with a line {"text": …, "url": …, "timestamp": …} each.

Raffel et al., "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer", 2020, Section 2.2.

Nothing in a gzip file can be found without unpacking all before it. So the lines of each file are counted once and
the counts kept, and a file that is read has a plain copy in the cache, as long as there is room. A gzip file that is
cut or damaged gives what comes before the damage and is named in `faults`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO

import numpy as np

from rebus.core.errors import MissingFile, RebusError
from rebus.data.reading.disk_cache import Arrays, check_unchanged, kept, stamp
from rebus.data.reading.gzip_files import Inflated, plain_copy
from rebus.data.reading.line_index import LineIndex, find_lines, first_line, pieces_of
from rebus.data.reading.packed_names import PackedNames
from rebus.data.reading.row_to_record import FILES
from rebus.data.reading.shard_files import shards
from rebus.data.reading.tables import json_row
from rebus.data.record import BadRecord, Record

NAME = "c4"
WHAT = "plain text, a line of JSON each, as C4 has it (*.json.gz, *.jsonl)"
# Forms that are read, and what each was checked against: a public reader, a dataset card, or memory
CHECKED = (("plain text, a line of JSON each, as C4 has it (*.json.gz, *.jsonl)", "memory; samples written by hand"),)

ENDINGS = (".json.gz", ".jsonl.gz", ".json", ".jsonl")
OTHERS = (*FILES, "video", "images", "image_info", "images_list", "texts")  # columns that plain text has not

Progress = Callable[[int, int], None]  # files done, files in all


def recognises(path: Path) -> bool:
    """By the first line of the first file: it has a text and names no image."""
    try:
        file = shards(path, ENDINGS)[0]
        row = json_row(first_line(_plain_pieces(file)), "") if file.name.endswith(ENDINGS) else {}
    except (RebusError, OSError):
        return False
    return isinstance(row.get("text"), str) and not any(column in row for column in OTHERS)


def open(path: Path, split: str | None, progress: Progress | None = None) -> "Texts":
    """A reader of the texts in a folder, one file, or those of a pattern ("c4-train.{00000..00063}-of-*.json.gz").

    The first opening counts the lines of every file; `progress` hears how far that is. Raises `MissingFile`,
    `UsageError` for a split that no name tells, `RebusError` when no line can be read.
    """
    files = shards(path, ENDINGS, split)
    found = kept("texts", files, lambda: _count_all(files, progress))
    stamps = tuple(stamp(file) for file in files)
    reader = Texts(tuple(files), stamps, found["sizes"], PackedNames.from_arrays(found, "faults"))
    if not sum(reader.sizes):
        raise RebusError(next(iter(reader.faults), f"{path}: no lines in these files"))
    return reader


@dataclass(frozen=True)
class Texts:
    """A block is a file."""

    files: tuple[Path, ...]
    stamps: tuple[tuple[int, int], ...]
    counts: np.ndarray
    damage: PackedNames  # of each file; "" for whole ones

    @property
    def sizes(self) -> Sequence[int]:
        """Of a damaged file, the lines before the damage."""
        return self.counts.tolist()

    @property
    def labels(self) -> Sequence[str]:
        return ()

    @property
    def faults(self) -> tuple[str, ...]:
        """A line for each damaged file."""
        return tuple(self.damage[n] for n in range(len(self.damage)) if self.damage[n])

    def read(self, block: int, row: int) -> Record:
        file = self.files[block]
        try:
            lines = _lines(file, *self.stamps[block])
        except MissingFile as error:
            raise BadRecord(f"{file.name}[{row}]", str(error)) from None
        key = f"{file.name}:{lines.number(row)}"
        try:
            with _open_plain(file, *self.stamps[block]) as plain:
                line = json_row(lines.read(plain, row, key), key)
        except OSError as error:
            raise BadRecord(key, f"cannot be read: {error.strerror}") from None
        text = line.pop("text", None)
        if not isinstance(text, str) or not text.strip():
            raise BadRecord(key, f"has no text; its columns are {', '.join(line) or 'none'}")
        return Record(key=key, captions=(text,), facts=line)


def _open_plain(file: Path, size: int, changed: int) -> IO[bytes]:
    if not file.name.endswith(".gz"):
        return file.open("rb")
    try:
        return _copy(file, size, changed).open("rb")
    except FileNotFoundError:  # room was made for another
        _copy.cache_clear()
        return _copy(file, size, changed).open("rb")


@lru_cache(maxsize=64)
def _copy(file: Path, size: int, changed: int) -> Path:
    return plain_copy(file)


def _plain_pieces(file: Path) -> Iterator[bytes]:
    return Inflated(file).pieces() if file.name.endswith(".gz") else pieces_of(file)


def _count_all(files: Sequence[Path], progress: Progress | None) -> Arrays:
    sizes, faults = [], []
    for number, file in enumerate(files):
        arrays = _kept_lines(file)
        sizes.append(len(arrays["begins"]))
        faults.append(PackedNames.from_arrays(arrays, "fault")[0])
        if progress is not None:
            progress(number + 1, len(files))
    return {"sizes": np.array(sizes, dtype=np.int64), **PackedNames.of(faults).to_arrays("faults")}


@lru_cache(maxsize=16)
def _lines(file: Path, size: int, changed: int) -> LineIndex:
    check_unchanged(file, (size, changed))
    return LineIndex.from_arrays(_kept_lines(file))


def _kept_lines(file: Path) -> Arrays:
    try:
        return kept("text", [file], lambda: _count(file))
    except OSError as error:
        raise MissingFile(f"{file}: cannot be read: {error.strerror}") from None


def _count(file: Path) -> Arrays:
    if not file.name.endswith(".gz"):
        return {**find_lines(pieces_of(file)).to_arrays(), **PackedNames.of([""]).to_arrays("fault")}
    inflated = Inflated(file)
    lines = find_lines(inflated.pieces(), is_cut=lambda: bool(inflated.fault))
    said = f"{file}: {inflated.fault}; the {len(lines):,} lines before that are read" if inflated.fault else ""
    return {**lines.to_arrays(), **PackedNames.of([said]).to_arrays("fault")}
