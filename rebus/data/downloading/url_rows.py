"""The rows of files of web addresses, numbered over all files, and which of them say the same address."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rebus.core.errors import UsageError
from rebus.data.downloading.url_sources import ListSource, Row, Source, holds_lists, source_of
from rebus.data.reading.shard_files import shards
from rebus.data.reading.tables import ENDINGS

URLS = ("url", "URL", "image_url", "images")
TEXTS = ("text", "TEXT", "caption", "alt_text")
PHASH = "image_phash"


class Rows:
    """Numbered rows of one or more files; `lists`: whether the column of addresses has a list of them a row, each of
    which is then a row. Raises `MissingExtra`, `MissingFile`, `UsageError`, `RebusError`."""

    def __init__(self, paths: Sequence[Path], url: str | None = None, text: str | None = None):
        self.files = [file for path in paths for file in shards(path, _endings(path))]
        sources: list[Source] = [source_of(file) for file in self.files]
        self.columns = sources[0].columns
        other = next((source for source in sources if list(source.columns) != list(self.columns)), None)
        if other is not None:
            raise UsageError(
                f"{other.file}: its columns differ from those of {self.files[0].name}; download them separately"
            )
        self.url = _column(self.columns, url, URLS, self.files[0])
        self.text = _column(self.columns, text, TEXTS, self.files[0], needed=text is not None)
        self.lists = holds_lists(sources[0], self.url)
        self._sources = [ListSource(source, self.url) for source in sources] if self.lists else sources
        counts = [source.counts() for source in self._sources]
        self._groups = [(n, g, rows) for n, own in enumerate(counts) for g, rows in enumerate(own)]
        self._counts = [sum(own) for own in counts]
        self._ends = np.cumsum([rows for _, _, rows in self._groups], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def describe(self) -> list[dict[str, Any]]:
        """What tells these files from others, for the plan of a download."""
        return [
            {"name": file.name, "bytes": file.stat().st_size, "rows": rows}
            for file, rows in zip(self.files, self._counts, strict=True)
        ]

    def between(self, start: int, stop: int) -> Iterator[tuple[int, Row]]:
        """(number, row) of a stretch; None where the file is damaged."""
        at = start
        while at < stop:
            which = int(np.searchsorted(self._ends, at, side="right"))
            source, group, rows = self._groups[which]
            first = int(self._ends[which]) - rows
            end = min(stop, first + rows)
            yield from enumerate(self._sources[source].rows(group, at - first, end - first), start=at)
            at = end

    def in_words(self, number: int, row: Mapping[str, Any], key: str) -> dict[str, Any]:
        """Row `number` as `Annotations.in_words` has it. Raises `BadRecord`."""
        which = int(np.searchsorted(self._ends, number, side="right"))
        return self._sources[self._groups[which][0]].annotations.in_words(row, key)

    def same_urls(self) -> np.ndarray:
        """(rows,) int64: the first row with the address of each row; its own number where there is no address.

        URLs are compared by a 64-bit hash: among 100 million, two collide with a probability of 1 in 4,000.
        """
        digests = np.empty(len(self), dtype=np.uint64)
        at = 0
        for source, group, rows in self._groups:
            column = self._sources[source].column(group, self.url)
            for n in range(rows):
                url = column[n] if column is not None else None
                name = url.partition("#")[0] if isinstance(url, str) and url else f"\0{at + n}"
                data = name.encode("utf-8", "surrogatepass")
                digests[at + n] = int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
            at += rows
        _, first, inverse = np.unique(digests, return_index=True, return_inverse=True)
        return first[inverse].astype(np.int64)


def _endings(path: Path) -> Sequence[str]:
    """In a folder, Parquet files where there are any, else tables."""
    return (".parquet",) if any(path.rglob("*.parquet")) else (".parquet", *ENDINGS)


def _column(names: Sequence[str], asked: str | None, known: Sequence[str], file: Path, needed: bool = True) -> str:
    found = next((name for name in ((asked,) if asked else known) if name in names), "")
    if needed and not found:
        if any("://" in name for name in names):
            raise UsageError(f"{file}: its first line names no columns; write a line such as caption, url above it")
        wanted = asked or " or ".join(known)
        raise UsageError(f"{file}: no column {wanted}; it has {', '.join(names)}")
    return found
