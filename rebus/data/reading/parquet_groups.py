"""Row groups of Parquet files, each read separately and cached; damaged files are reported separately."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rebus.core.errors import MissingExtra, RebusError
from rebus.data.reading.byte_lru_cache import ByteLRU
from rebus.data.reading.shard_files import shards
from rebus.data.record import BadRecord

HELD_BYTES = 1 << 30  # of row groups, for each process that reads


class ParquetGroups:
    """The row groups of the files that `path` means, those of a file that cannot be read being one of one row.

    Raises `MissingExtra` without pyarrow, `MissingFile` and `UsageError` for no files or no such split, `RebusError`
    when none of the files can be read.
    """

    def __init__(self, path: Path, split: str | None, needed: Sequence[str], optional: Sequence[str] = ()):
        self._columns = (*needed, *optional)
        self._groups: list[tuple[Path, int, str]] = []  # file, row group, why it cannot be read
        sizes = []
        for file in shards(path, [".parquet"], split):
            for group, rows, reason in _groups(file, needed):
                self._groups.append((file, group, reason))
                sizes.append(rows)
        if all(reason for _, _, reason in self._groups):
            file, _, reason = self._groups[0]
            raise RebusError(f"{file}: {reason}")
        self.sizes = tuple(sizes)
        self._held: ByteLRU[Any] = ByteLRU(HELD_BYTES)

    def key(self, block: int, row: int) -> str:
        """How messages name a row."""
        file, group, _ = self._groups[block]
        return f"{file.name}:{group}:{row}"

    def row(self, block: int, row: int) -> dict[str, Any]:
        """Raises `BadRecord` for what cannot be read."""
        file, group, reason = self._groups[block]
        if reason:
            raise BadRecord(self.key(block, row), reason)
        if not 0 <= row < self.sizes[block]:
            raise IndexError(row)
        try:
            table = self._held.get(block, lambda: _table(file, group, self._columns))
            found: dict[str, Any] = table.slice(row, 1).to_pylist()[0]
        except damage() as error:
            raise BadRecord(self.key(block, row), f"damaged Parquet file: {_first_line(error)}") from None
        return found


def first_schema(path: Path) -> Any:
    """The columns of the first Parquet file at `path`, in it or in its `data/`; None where there is none to read."""
    near = [path] if path.is_file() else [*sorted(path.glob("*.parquet")), *sorted(path.glob("data/*.parquet"))]
    if not near or near[0].suffix != ".parquet":
        return None
    parquet = _parquet()
    try:
        return parquet.read_schema(near[0])
    except damage():
        return None


def damage() -> tuple[type[Exception], ...]:
    """What pyarrow raises for damaged files."""
    import pyarrow

    return pyarrow.ArrowException, OSError, UnicodeDecodeError


def _groups(file: Path, needed: Sequence[str]) -> Iterator[tuple[int, int, str]]:
    """Number, rows and what is wrong, for each row group of a file."""
    parquet = _parquet()
    try:
        with parquet.ParquetFile(file) as opened:
            about = opened.metadata
            lost = set(needed) - set(opened.schema_arrow.names)
            if lost:
                yield 0, 1, f"no column {' and no column '.join(sorted(lost))}"
                return
            yield from ((group, about.row_group(group).num_rows, "") for group in range(about.num_row_groups))
    except damage() as error:
        yield 0, 1, f"damaged Parquet file: {_first_line(error)}"


def _table(file: Path, group: int, columns: Sequence[str]) -> tuple[Any, int]:
    with _parquet().ParquetFile(file) as opened:
        names = [name for name in columns if name in opened.schema_arrow.names]
        table = opened.read_row_group(group, columns=names, use_threads=False)
    return table, table.nbytes


def _parquet() -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise MissingExtra("data", "reading Parquet files") from None
    return pyarrow.parquet


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
