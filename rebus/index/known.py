"""The rows that an index has, and how the folder differs from them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rebus.index.arrow_numbers import numbers
from rebus.index.scan import Scan, Seen, excluder


class Known:
    """Rows without vectors, found by path and by the hash of their content."""

    def __init__(self, rows: Any = None):
        """`rows`: an Arrow table of `rebus.index.store.METADATA`."""
        self.rows = rows

        def column(name: str) -> np.ndarray:
            return np.empty(0, dtype=np.int64) if rows is None else numbers(rows[name])

        self.ids, self.sizes, self.mtimes = column("id"), column("size"), column("mtime")
        self.missing = column("missing").astype(bool)
        self.bad = np.empty(0, dtype=bool) if rows is None else numbers(rows["error"].is_valid())
        self._unfit = self.bad.copy()  # as a source of vectors
        self.paths: list[bytes] = [] if rows is None else rows["path"].to_pylist()
        self.at: Mapping[bytes, int] = {path: row for row, path in enumerate(self.paths)}
        joined = b"" if rows is None else b"".join(rows["hash"].to_pylist())
        self._halves = np.frombuffer(joined, dtype=np.uint64)[::2]
        self._order = np.argsort(self._halves, kind="stable")
        self._sorted = self._halves[self._order]

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def next_id(self) -> int:
        return int(self.ids.max(initial=-1)) + 1

    def hash(self, row: int) -> bytes:
        return bytes(self.rows["hash"][row].as_py())

    def with_content(self, content: bytes) -> int | None:
        """A row whose file has this hash, and whose vector stays what it is in this run."""
        half = np.frombuffer(content, dtype=np.uint64)[0]
        first, last = np.searchsorted(self._sorted, half, "left"), np.searchsorted(self._sorted, half, "right")
        rows = map(int, self._order[first:last])
        return next((row for row in rows if not self._unfit[row] and self.hash(row) == content), None)

    def unfit(self, rows: Iterable[int]) -> None:
        """These will be dropped, or get another vector: no other row may copy theirs."""
        self._unfit[list(rows)] = True


@dataclass
class Difference:
    """Rows by number, files by path."""

    same: int = 0
    again: list[int] = field(default_factory=list)  # were missing, and are there as they were
    new: list[bytes] = field(default_factory=list)
    changed: dict[bytes, int] = field(default_factory=dict)  # of another size or time
    gone: list[int] = field(default_factory=list)  # not seen
    newly_gone: list[int] = field(default_factory=list)  # of these, not marked missing yet
    excluded: list[int] = field(default_factory=list)  # which the patterns leave out now
    moved: dict[int, tuple[bytes, Seen]] = field(default_factory=dict)  # under another name


def differences(known: Known, scan: Scan, exclude: tuple[str, ...], verify: bool) -> Difference:
    """`verify`: files are read again though their size and time are those of their row."""
    found, left_out = Difference(), excluder(exclude)
    for path, seen in scan.files.items():
        row = known.at.get(path)
        if row is None:
            found.new.append(path)
        elif verify or (int(known.sizes[row]), int(known.mtimes[row])) != seen:
            found.changed[path] = row
        elif known.missing[row]:
            found.again.append(row)
        else:
            found.same += 1
    for row, path in enumerate(known.paths):
        if path in scan.files:
            continue
        if exclude and left_out(path):
            found.excluded.append(row)
        elif not scan.unknown(path):
            found.gone.append(row)
            if not known.missing[row]:
                found.newly_gone.append(row)
    found.new.sort()
    return found
