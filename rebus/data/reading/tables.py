"""Rows of a CSV, TSV, JSONL or JSON file, each read alone: only the places of rows are held, and those are kept."""

import csv
import itertools
import json
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import numpy as np

from rebus.core.errors import RebusError, UsageError
from rebus.data.reading.disk_cache import check_unchanged, kept, stamp
from rebus.data.reading.line_index import LineIndex, find_lines, pieces_of
from rebus.data.reading.long_reading import watched
from rebus.data.reading.shard_files import NoSplits, names_of
from rebus.data.record import BadRecord

ENDINGS = (".csv", ".tsv", ".jsonl", ".json")
MAX_JSON_BYTES = 1 << 30  # of a .json file, which must be read as a whole once
_TRIED = 100  # rows looked at for one whose columns can be read
_DAMAGED, _NO_SPLIT = -1, -2


class BadTable(RebusError):
    """A table that is no table: the message names the file and what was wanted."""


@dataclass(frozen=True)
class Table:
    """`table.row(n)` is a row by column name. Stays what it was when it was opened, also in another process."""

    path: Path
    size: int
    changed: int

    @classmethod
    def open(cls, path: Path) -> "Table":
        """Raises `BadTable` when the file cannot be a table."""
        table = cls(path, *stamp(path))
        if table.kind not in (*ENDINGS, ".txt"):
            raise BadTable(f"{path}: a table ends in {_list(ENDINGS)}")
        try:
            rows = len(table)
        except OSError as error:
            raise BadTable(f"{path}: cannot be read: {error.strerror}") from None
        if not rows:
            raise BadTable(f"{path}: no rows in it")
        return table

    @property
    def kind(self) -> str:
        return self.path.suffix.lower()

    @property
    def lines(self) -> LineIndex:
        return _lines(self.path, self.size, self.changed)

    @property
    def columns(self) -> tuple[str, ...]:
        """Those of the first row that can be read; rows of JSON may differ."""
        return _columns(self)

    def __len__(self) -> int:
        return len(self.lines)

    def key(self, row: int) -> str:
        """How messages name a row: by its line, or in a JSON list by its place there, counted from 0."""
        if self.kind == ".json":
            return f"{self.path.name}[{row}]"
        return f"{self.path.name}:{self.lines.number(row)}"

    def row(self, number: int) -> dict[str, Any]:
        """Raises `BadRecord` when this row is damaged."""
        try:
            with open(self.path, "rb") as file:
                return self._read(file, number)
        except OSError as error:
            raise BadRecord(self.key(number), f"cannot be read: {error.strerror}") from None

    def rows(self) -> Iterator[dict[str, Any] | None]:
        """All rows in order, under a bar where that takes long; None for a damaged one."""
        return watched(self._rows(), len(self), f"reading {self.path.name}")

    def _rows(self) -> Iterator[dict[str, Any] | None]:
        lines, header, kind = self.lines, self._header, self.kind
        with open(self.path, "rb") as file:
            for number in range(len(lines)):
                try:
                    yield _row(lines.read(file, number, ""), header, kind, "")
                except BadRecord:
                    yield None

    def _read(self, file: IO[bytes], number: int) -> dict[str, Any]:
        key = self.key(number)
        return _row(self.lines.read(file, number, key), self._header, self.kind, key)

    @property
    def _header(self) -> tuple[str, ...] | None:
        """None where each row names its own columns."""
        return _header(self.path, self.size, self.changed)[0] if self.kind in _SEPARATORS else None

    def rows_of(self, split: str) -> np.ndarray:
        """The numbers of the rows whose column `split` says so, and of the damaged ones: nobody knows theirs.

        Raises `NoSplits` where the column is missing, `UsageError` where it never says so.
        """
        if "split" not in self.columns:
            raise NoSplits(f"{self.path}: has no column split ({_list(self.columns)}); leave the split out")
        arrays = kept("splits", [self.path], self._splits)
        names, own = [str(name) for name in arrays["names"]], arrays["own"]
        wanted = [number for number, name in enumerate(names) if name.lower() in names_of(split)]
        if not wanted:
            raise UsageError(f'{self.path}: no rows of the split "{split}"; it has {_list(sorted(names)) or "none"}')
        return np.flatnonzero(np.isin(own, [*wanted, _DAMAGED]))

    def _splits(self) -> dict[str, np.ndarray]:
        numbers: dict[str, int] = {}
        own = np.empty(len(self), dtype=np.int32)
        for number, row in enumerate(self.rows()):
            name = None if row is None else row.get("split")
            if row is None or not isinstance(name, str | None):
                own[number] = _DAMAGED
            else:
                own[number] = numbers.setdefault(name, len(numbers)) if name else _NO_SPLIT
        return {"names": np.array([*numbers], dtype=np.str_), "own": own}


_SEPARATORS = {".csv": ",", ".tsv": "\t", ".txt": ","}  # captions.txt, as Kaggle's Flickr8k has it


def _row(data: bytes, header: tuple[str, ...] | None, kind: str, key: str) -> dict[str, Any]:
    return json_row(data, key) if header is None else _csv_row(data, header, kind, key)


def json_row(data: bytes, key: str) -> dict[str, Any]:
    """One line of JSON as a row. Raises `BadRecord`."""
    try:
        row = json.loads(data)
    except RecursionError:
        raise BadRecord(key, "JSON nested too deeply") from None
    except ValueError as error:
        raise BadRecord(key, f"not JSON ({error})") from None
    if not isinstance(row, dict):
        raise BadRecord(key, f'expected an object {{"column": value, …}}; got {type(row).__name__}')
    return row


def _csv_row(data: bytes, header: tuple[str, ...], suffix: str, key: str) -> dict[str, Any]:
    try:
        text = data.decode("utf-8")
        cells = next(csv.reader(_split(text), **_dialect(suffix)))
    except UnicodeDecodeError as error:
        raise BadRecord(key, f"not UTF-8 (byte {error.start} of the line)") from None
    except (csv.Error, StopIteration) as error:
        raise BadRecord(key, f"{str(error) or 'empty'}; a quote inside quotes is written twice") from None
    if len(cells) != len(header):
        raise BadRecord(key, f"{len(cells)} cells; the header names {len(header)} ({_list(header)})")
    return dict(zip(header, cells))


def _split(text: str) -> Iterator[str]:
    """Lines as a file gives them: other signs that Python counts as line breaks may stand in a cell."""
    start = 0
    while (end := text.find("\n", start) + 1) > 0:
        yield text[start:end]
        start = end
    if start < len(text):
        yield text[start:]


def _dialect(suffix: str) -> dict[str, Any]:
    return {"delimiter": _SEPARATORS[suffix], "strict": True}


@lru_cache(maxsize=8)
def _lines(path: Path, size: int, changed: int) -> LineIndex:
    check_unchanged(path, (size, changed))
    kind = path.suffix.lower()
    find = _csv_lines if kind in _SEPARATORS else _json_lines if kind == ".json" else _jsonl_lines
    return LineIndex.from_arrays(kept("lines", [path], lambda: find(path).to_arrays()))


def _jsonl_lines(path: Path) -> LineIndex:
    return find_lines(pieces_of(path))


@lru_cache(maxsize=8)
def _header(path: Path, size: int, changed: int) -> tuple[tuple[str, ...], int, int]:
    """The header's names, how many bytes it takes and how many lines."""
    with open(path, "rb") as file:
        if file.read(2) in (b"\xff\xfe", b"\xfe\xff"):
            raise BadTable(f"{path}: UTF-16; save it as UTF-8")
        file.seek(0)
        counted = _Counted(file)
        try:
            reader = csv.reader(counted, **_dialect(path.suffix.lower()))
            names = next(reader)
        except StopIteration:
            raise BadTable(f"{path}: empty; expected a first line with column names") from None
        except csv.Error as error:
            raise BadTable(f"{path}: the first line does not name columns ({error})") from None
    names = [name.removeprefix("\ufeff").strip() for name in names]
    if len(set(names)) < len(names):
        raise BadTable(f"{path}: a column is named twice ({_list(names)})")
    return tuple(names), counted.bytes, reader.line_num


class _Counted:
    """The lines of a file as text, with the bytes that they took. What is no UTF-8 is left for the row to say."""

    def __init__(self, file: IO[bytes]):
        self.file, self.bytes, self.blank = file, file.tell(), False

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self.file.readline(1 << 30)
        if not line:
            raise StopIteration
        self.bytes += len(line)
        return line.decode("utf-8", "surrogateescape")


def _csv_lines(path: Path) -> LineIndex:
    """Rows by the csv module, since a cell may hold line breaks. After a damaged line the next one is tried."""
    _, start, number = _header(path, *stamp(path))
    begins, ends, numbers = array("q"), array("q"), array("q")
    with open(path, "rb") as file:
        while True:
            file.seek(start)
            counted = _Counted(file)
            reader = csv.reader(counted, **_dialect(path.suffix.lower()))
            line = number
            try:
                for cells in reader:
                    if cells:
                        begins.append(start)
                        ends.append(counted.bytes)
                        numbers.append(line + 1)
                    start, line = counted.bytes, number + reader.line_num
                break
            except csv.Error:
                file.seek(start)
                begins.append(start)
                start += len(file.readline(1 << 30))
                ends.append(start)
                numbers.append(line + 1)
                number = line + 1
    first, last, line_numbers = (np.array(values, dtype=np.int64) for values in (begins, ends, numbers))
    return LineIndex(first, last, line_numbers, stop=start)


def _json_lines(path: Path) -> LineIndex:
    """The places of the entries of a list. Raises `BadTable` where the file is no JSON list."""
    size = path.stat().st_size
    if size > MAX_JSON_BYTES:
        raise BadTable(f"{path}: {size:,} bytes of JSON; at most {MAX_JSON_BYTES:,} are read. Write it as .jsonl")
    try:
        text = path.read_bytes().decode("utf-8")
        spans = array("q", itertools.chain.from_iterable(_entries(text, at=1 if text.startswith("\ufeff") else 0)))
    except (ValueError, RecursionError) as error:
        raise BadTable(f"{path}: no JSON list ({error}). Is it JSON lines? Then name it .jsonl") from None
    begins, ends = np.array(spans, dtype=np.int64).reshape(-1, 2).T
    return LineIndex(begins.copy(), ends.copy(), np.array([], dtype=np.int64), stop=size)


def _entries(text: str, at: int) -> Iterator[tuple[int, int]]:
    """(begin, end) in bytes of each entry of the list that `text` is."""
    decoder, seen, bytes_seen = json.JSONDecoder(), 0, 0
    at = _next_sign(text, at, "[")
    first = True
    while True:
        at = _skip(text, at)
        if first and text[at : at + 1] == "]":
            at += 1
            break
        _, end = decoder.raw_decode(text, at)
        begin_bytes = bytes_seen + len(text[seen:at].encode())
        bytes_seen = begin_bytes + len(text[at:end].encode())
        seen = end
        yield begin_bytes, bytes_seen
        at, first = _skip(text, end), False
        if text[at : at + 1] == "]":
            at += 1
            break
        at = _next_sign(text, at, ",")
    if _skip(text, at) < len(text):
        raise ValueError(f"something follows the list at letter {at}")


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def _next_sign(text: str, at: int, sign: str) -> int:
    at = _skip(text, at)
    if text[at : at + 1] != sign:
        raise ValueError(f"wanted {sign} at letter {at}")
    return at + 1


@lru_cache(maxsize=8)
def _columns(table: Table) -> tuple[str, ...]:
    if table.kind in _SEPARATORS:
        return _header(table.path, table.size, table.changed)[0]
    for row in itertools.islice(table.rows(), _TRIED):
        if row is not None:
            return tuple(row)
    raise BadTable(f"{table.path}: none of its first rows is a JSON object with named columns")


def _list(names: Sequence[str]) -> str:
    return ", ".join(names)
