"""The rows of Parquet files of web addresses, numbered over all files, and which of them say the same address."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from rebus.core.errors import MissingExtra, RebusError, UsageError
from rebus.data.reading.parquet_annotations import Annotations
from rebus.data.reading.shard_files import shards

URLS = ("url", "URL", "image_url")
TEXTS = ("text", "TEXT", "caption", "alt_text")
PHASH = "image_phash"


class Rows:
    """Numbered rows of one or more files. Raises `MissingExtra`, `MissingFile`, `UsageError`, `RebusError`."""

    def __init__(self, paths: Sequence[Path], url: str | None = None, text: str | None = None):
        self.files = [file for path in paths for file in shards(path, (".parquet",))]
        self.groups: list[tuple[int, int, int]] = []  # file, row group in it, rows
        names: list[str] = []
        self.annotations: list[Annotations] = []  # of each file
        self.counts: list[int] = []
        for number, file in enumerate(self.files):
            opened = _opened(file)
            metadata = opened.metadata
            if number and opened.schema_arrow.names != names:
                raise UsageError(f"{file}: its columns are not those of {self.files[0].name}; download them apart")
            names = opened.schema_arrow.names
            self.annotations.append(_annotations(opened, file))
            self.groups += [(number, g, metadata.row_group(g).num_rows) for g in range(metadata.num_row_groups)]
            self.counts.append(metadata.num_rows)
        self.ends = np.cumsum([rows for _, _, rows in self.groups], dtype=np.int64)
        self.columns = names
        self.url = _column(names, url, URLS, self.files[0])
        self.text = _column(names, text, TEXTS, self.files[0], needed=text is not None)

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def describe(self) -> list[dict[str, Any]]:
        """What tells these files from others, for the plan of a download."""
        return [
            {"name": file.name, "bytes": file.stat().st_size, "rows": rows}
            for file, rows in zip(self.files, self.counts, strict=True)
        ]

    def between(self, start: int, stop: int) -> Iterator[tuple[int, Mapping[str, Any] | None]]:
        """(number, row) of a stretch; None where the file is damaged."""
        at = start
        while at < stop:
            which = int(np.searchsorted(self.ends, at, side="right"))
            file, group, rows = self.groups[which]
            first = int(self.ends[which]) - rows
            table = _group(self.files[file], group)
            end = min(stop, first + rows)
            if table is None:
                yield from ((number, None) for number in range(at, end))
            else:
                yield from enumerate(_plain(table, at - first, end - first), start=at)
            at = end

    def in_words(self, number: int, row: Mapping[str, Any], key: str) -> dict[str, Any]:
        """Row `number` as `Annotations.in_words` has it. Raises `BadRecord`."""
        which = int(np.searchsorted(self.ends, number, side="right"))
        return self.annotations[self.groups[which][0]].in_words(row, key)

    def same_urls(self) -> np.ndarray:
        """(rows,) int64: the first row with the address of each row; its own number where there is no address.

        Addresses are told apart by 64 bits of a hash: among 100 million, two others look alike once in 4,000 times.
        """
        digests = np.empty(len(self), dtype=np.uint64)
        at = 0
        for file, group, rows in self.groups:
            column = _urls(self.files[file], group, self.url)
            for n in range(rows):
                url = column[n] if column is not None else None
                name = url.partition("#")[0] if isinstance(url, str) and url else f"\0{at + n}"
                data = name.encode("utf-8", "surrogatepass")
                digests[at + n] = int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
            at += rows
        _, first, inverse = np.unique(digests, return_index=True, return_inverse=True)
        return first[inverse].astype(np.int64)


def _plain(table: Any, start: int, stop: int) -> list[dict[str, Any] | None]:
    """Rows as Python values; all of them at once, or one by one where one of them is damaged."""
    try:
        return list(table.slice(start, stop - start).to_pylist())
    except (ValueError, OverflowError):
        pass
    rows: list[dict[str, Any] | None] = []
    for number in range(start, stop):
        try:
            rows += table.slice(number, 1).to_pylist()
        except (ValueError, OverflowError):
            rows.append(None)
    return rows


def _opened(file: Path) -> Any:
    try:
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingExtra("data", f"{file.name}: a Parquet file") from None
    try:
        return pq.ParquetFile(file)
    except (OSError, ValueError) as error:  # those of pyarrow derive from these
        raise RebusError(f"{file}: cannot be read as Parquet ({str(error).splitlines()[0]})") from None


def _annotations(opened: Any, file: Path) -> Annotations:
    try:
        return Annotations.of(opened, file)
    except (OSError, ValueError):  # a damaged row group, which its rows will say
        return Annotations()


@lru_cache(maxsize=1)  # neighbouring units want the same one
def _group(file: Path, group: int) -> Any:
    try:
        return _opened(file).read_row_group(group, use_threads=False)
    except (OSError, ValueError, RebusError):
        return None


def _urls(file: Path, group: int, column: str) -> list[Any] | None:
    try:
        values: list[Any] = _opened(file).read_row_group(group, columns=[column], use_threads=False)[column].to_pylist()
    except (OSError, ValueError, RebusError):
        return None
    return values


def _column(names: Sequence[str], asked: str | None, known: Sequence[str], file: Path, needed: bool = True) -> str:
    found = next((name for name in ((asked,) if asked else known) if name in names), "")
    if needed and not found:
        wanted = asked or " or ".join(known)
        raise UsageError(f"{file}: no column {wanted}; it has {', '.join(names)}")
    return found
