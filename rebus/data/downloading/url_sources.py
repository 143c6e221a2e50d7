"""Files of web addresses: Parquet, with an address or a list of them a row, or a table (CSV, TSV, JSONL, JSON)."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from rebus.core.errors import MissingExtra, RebusError
from rebus.data.reading.box_form import table_has_corners
from rebus.data.reading.parquet_annotations import Annotations
from rebus.data.reading.tables import Table
from rebus.data.record import BadRecord

Row = Mapping[str, Any] | None  # None where the file is damaged
GROUP = 10_000  # rows of a table that are read together


class Source(Protocol):
    """Rows of one file in groups that are read at once. `columns`: their names, in order. `annotations`: what the file
    says of the labels and boxes in it."""

    file: Path
    annotations: Annotations

    @property
    def columns(self) -> Sequence[str]: ...

    def counts(self) -> list[int]:
        """Rows of each group."""
        ...

    def rows(self, group: int, start: int, stop: int) -> list[Row]:
        """A stretch of a group's rows."""
        ...

    def column(self, group: int, name: str) -> list[Any] | None:
        """One value of all rows of a group; None where it is damaged."""
        ...


def source_of(file: Path) -> Source:
    """Raises `MissingExtra` without pyarrow, `RebusError` for what cannot be read."""
    return TableSource(file) if file.suffix.lower() != ".parquet" else ParquetSource(file)


class ParquetSource:
    """The rows of a Parquet file."""

    def __init__(self, file: Path):
        opened = _opened(file)
        self.file, self.columns = file, tuple(opened.schema_arrow.names)
        self.annotations = _annotations(opened, file)
        self._counts = [opened.metadata.row_group(g).num_rows for g in range(opened.metadata.num_row_groups)]

    def counts(self) -> list[int]:
        return self._counts

    def rows(self, group: int, start: int, stop: int) -> list[Row]:
        table = _group(self.file, group)
        return [None] * (stop - start) if table is None else _plain(table, start, stop)

    def column(self, group: int, name: str) -> list[Any] | None:
        try:
            read = _opened(self.file).read_row_group(group, columns=[name], use_threads=False)
            values: list[Any] = read[name].to_pylist()
        except (OSError, ValueError, RebusError):
            return None
        return values


class TableSource:
    """The rows of a table."""

    def __init__(self, file: Path):
        self.file, self._table = file, Table.open(file)
        self.columns = self._table.columns
        self.annotations = Annotations(corners=table_has_corners(self._table))

    def counts(self) -> list[int]:
        total = len(self._table)
        return [min(GROUP, total - start) for start in range(0, total, GROUP)]

    def rows(self, group: int, start: int, stop: int) -> list[Row]:
        return [self._row(group * GROUP + number) for number in range(start, stop)]

    def column(self, group: int, name: str) -> list[Any] | None:
        return [None if row is None else row.get(name) for row in self.rows(group, 0, self.counts()[group])]

    def _row(self, number: int) -> Row:
        try:
            return self._table.row(number)
        except BadRecord:
            return None


class ListSource:
    """The addresses in the lists of another source's column, as rows of {column: address, "page": row of the file}.

    OBELICS' `images` has null where the page has a text; that is no row.
    """

    def __init__(self, source: Source, name: str):
        self.file, self.columns, self._source, self._name = source.file, (name, "page"), source, name
        self.annotations = Annotations()  # its rows have no other columns
        self._first = [0]
        for count in source.counts():
            self._first.append(self._first[-1] + count)

    def counts(self) -> list[int]:
        return [len(self._of(group)) for group in range(len(self._first) - 1)]

    def rows(self, group: int, start: int, stop: int) -> list[Row]:
        return [{self._name: url, "page": page} for page, url in self._of(group)[start:stop]]

    def column(self, group: int, name: str) -> list[Any] | None:
        return [url for _, url in self._of(group)]

    @lru_cache(maxsize=1)  # noqa: B019 — a source lives as long as its download
    def _of(self, group: int) -> list[tuple[int, str]]:
        """(row, address) of a group; a damaged one has none."""
        lists = self._source.column(group, self._name) or []
        return [
            (self._first[group] + row, url)
            for row, urls in enumerate(lists)
            for url in (urls if isinstance(urls, list) else ())
            if isinstance(url, str)
        ]


def holds_lists(source: Source, name: str) -> bool:
    """Whether a column has lists, by the first row that has anything there."""
    for group in range(len(source.counts())):
        for value in source.column(group, name) or ():
            if value is not None:
                return isinstance(value, list)
    return False


def _plain(table: Any, start: int, stop: int) -> list[Row]:
    """Rows as Python values; all of them at once, or one by one where one of them is damaged."""
    try:
        return list(table.slice(start, stop - start).to_pylist())
    except (ValueError, OverflowError):
        pass
    rows: list[Row] = []
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
