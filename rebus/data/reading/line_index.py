"""Where the lines of a file begin, so that each can be read alone: eight bytes a line, however long the lines are."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from rebus.core.errors import LimitExceeded
from rebus.data.record import BadRecord

MAX_LINE = 64 << 20  # bytes of one line that are read
_PIECE = 4 << 20


@dataclass(frozen=True)
class LineIndex:
    """Rows of a file by place. Empty lines are no rows, but count in the numbers that people see."""

    begins: np.ndarray  # int64 (rows,): where each begins, in bytes
    ends: np.ndarray  # int64 (rows,), or empty: each ends where the next begins
    numbers: np.ndarray  # int64 (rows,), or empty: the line of each row, counted from 1; row n is else line n + 1
    stop: int  # where the last ends

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "LineIndex":
        return cls(arrays["begins"], arrays["ends"], arrays["numbers"], int(arrays["stop"][0]))

    def to_arrays(self) -> dict[str, np.ndarray]:
        return {"begins": self.begins, "ends": self.ends, "numbers": self.numbers, "stop": np.array([self.stop])}

    def __len__(self) -> int:
        return len(self.begins)

    def number(self, row: int) -> int:
        return int(self.numbers[row]) if len(self.numbers) else row + 1

    def span(self, row: int) -> tuple[int, int]:
        if len(self.ends):
            return int(self.begins[row]), int(self.ends[row])
        return int(self.begins[row]), int(self.begins[row + 1]) if row + 1 < len(self.begins) else self.stop

    def read(self, file: IO[bytes], row: int, key: str) -> bytes:
        """The bytes of a row. Raises `BadRecord` where they are too many, or are not there any more."""
        begin, end = self.span(row)
        if end - begin > MAX_LINE:
            raise BadRecord(key, f"a line of {end - begin:,} bytes; at most {MAX_LINE:,} are read")
        file.seek(begin)
        data = file.read(end - begin)
        if len(data) < end - begin:
            raise BadRecord(key, "the file has become shorter since it was opened")
        return data


def pieces_of(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while piece := file.read(_PIECE):
            yield piece


def find_lines(pieces: Iterator[bytes], is_cut: Callable[[], bool] = lambda: False) -> LineIndex:
    """The lines in the pieces of a file. `is_cut`, asked at the end: what follows the last line break is no line."""
    breaks, blanks, size, last, previous = [], [], 0, -1, 0
    for piece in pieces:
        codes = np.frombuffer(piece, dtype=np.uint8)
        at = np.flatnonzero(codes == 10)
        carriage = np.where(at > 0, codes[at - 1], previous) == 13
        lengths = np.diff(at + size, prepend=last) - 1 - carriage
        breaks.append(at + size)
        blanks.append(lengths <= 0)
        size, previous = size + len(piece), piece[-1]
        last = int(breaks[-1][-1]) if len(at) else last
    ends = np.concatenate([*breaks, np.array([], dtype=np.int64)]).astype(np.int64) + 1
    blank = np.concatenate([*blanks, np.array([], dtype=bool)])
    if last + 1 < size and not is_cut():
        ends, blank = np.append(ends, size), np.append(blank, False)
    begins = np.concatenate([[0], ends[:-1]]).astype(np.int64) if len(ends) else ends
    none = np.array([], dtype=np.int64)
    stop = int(ends[-1]) if len(ends) else 0
    if not blank.any():
        return LineIndex(begins, none, none, stop)
    rows = np.flatnonzero(~blank)
    return LineIndex(begins[rows], ends[rows], rows + 1, stop)


def first_line(pieces: Iterator[bytes]) -> bytes:
    """The first line that is not empty. Raises `LimitExceeded` when it does not end within `MAX_LINE` bytes."""
    data = b""
    for piece in pieces:
        data = (data + piece).lstrip() if not data.strip() else data + piece
        if b"\n" in data:
            break
        if len(data) > MAX_LINE:
            raise LimitExceeded(f"a first line of more than {MAX_LINE:,} bytes")
    return data.split(b"\n", 1)[0]
