"""The source of truth of an index: a LanceDB table with one row per file and atomic commits."""

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from rebus.core.atomic_write import DISK_FULL
from rebus.core.errors import CannotWrite, MissingExtra, RebusError

METADATA = (
    "id", "path", "size", "mtime", "hash", "missing", "error", "width", "height", "format", "taken", "look", "caption",
)  # fmt: skip
_AT_ONCE = 5_000  # ids in one condition
_ROWS = 4_096  # of a batch that is read


def arrow_schema(width: int) -> Any:
    """Columns of a row. `path` is bytes, as names need not be text; `taken` is in seconds; `vector` is zeros where
    `error` says why there is none."""
    import pyarrow as pa

    kinds = {
        "id": pa.int64(),
        "path": pa.binary(),
        "size": pa.int64(),
        "mtime": pa.int64(),
        "hash": pa.binary(16),
        "missing": pa.bool_(),
        "error": pa.string(),
        "width": pa.int32(),
        "height": pa.int32(),
        "format": pa.string(),
        "taken": pa.int64(),
        "look": pa.binary(64),
        "caption": pa.string(),
        "vector": pa.list_(pa.float32(), width),
    }
    return pa.schema([pa.field(name, kind) for name, kind in kinds.items()])


class Store:
    """One table at an address. Raises `MissingExtra` without LanceDB; each method `CannotWrite` or `RebusError`."""

    def __init__(self, uri: str, name: str):
        try:
            import lancedb
        except ImportError:
            raise MissingExtra("index", "an index") from None
        self.uri, self.name = uri, name
        with _told(uri):
            self._db = lancedb.connect(uri)
            self._table = self._db.open_table(name) if name in self._names() else None

    def _names(self) -> list[str]:
        return list(self._db.list_tables().tables)

    @property
    def exists(self) -> bool:
        return self._table is not None

    def create(self, width: int) -> None:
        """An empty table for vectors of `width` numbers, where there is none."""
        if self._table is None:
            with _told(self.uri):
                self._table = self._db.create_table(self.name, schema=arrow_schema(width))

    def drop_others(self) -> None:
        """All other tables at the address: of models that were replaced, or of runs that were given up."""
        with _told(self.uri):
            for name in self._names():
                if name != self.name:
                    self._db.drop_table(name)

    def add(self, rows: Any) -> None:
        """New rows, as one commit."""
        with _told(self.uri):
            self._open().add(rows)

    def put(self, rows: Any) -> None:
        """Other values for rows that are there, by `id`, as one commit; columns that are left out stay."""
        if rows.num_rows:
            with _told(self.uri):
                self._open().merge_insert("id").when_matched_update_all().execute(rows)

    def delete(self, ids: Sequence[int]) -> None:
        for some in _chunks(ids):
            with _told(self.uri):
                self._open().delete(some)

    def metadata(self) -> Any:
        """All rows without their vectors."""
        with _told(self.uri):
            return self._open().search().select(list(METADATA)).limit(max(1, self.count())).to_arrow().combine_chunks()

    def take(self, ids: Sequence[int]) -> dict[int, dict[str, Any]]:
        """Rows by id, all columns; `vector` as a list."""
        found: dict[int, dict[str, Any]] = {}
        for some in _chunks(ids):
            with _told(self.uri):
                rows = self._open().search().where(some).limit(_AT_ONCE).to_arrow().to_pylist()
            found |= {row["id"]: row for row in rows}
        return found

    def count(self) -> int:
        return int(self._open().count_rows()) if self.exists else 0

    def vectors(self) -> Iterator[Any]:
        """Batches of `id` and `vector`."""
        with _told(self.uri):
            yield from self._open().search().select(["id", "vector"]).limit(max(1, self.count())).to_batches(_ROWS)

    def optimize(self) -> None:
        """Few large files in the place of many small ones, and none of what is no longer used."""
        with _told(self.uri), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # searches read snapshots, so that nobody reads old versions
            self._open().optimize(cleanup_older_than=timedelta(0))

    @property
    def partitioned(self) -> bool:
        """Whether the vectors have an index for approximate search; `optimize` keeps it up to date."""
        with _told(self.uri):
            return any("vector" in one.columns for one in self._open().list_indices())

    def partition(self, number: int | None = None) -> None:
        """Make that index: partitions by k-means (None: as many as the root of the rows), in them a byte a number."""
        from lancedb.index import IvfSq

        config = IvfSq(distance_type="dot", num_partitions=number, max_iterations=20, sample_rate=64)
        with _told(self.uri):
            self._open().create_index("vector", config=config)

    def nearest(self, vector: Any, number: int, probes: int, refine: int) -> list[int]:
        """Ids of about the nearest rows, the nearest first: `probes` partitions are looked into, and `refine` times as
        many rows as are wanted are compared in full."""
        with _told(self.uri):
            query = self._open().search(vector, vector_column_name="vector").distance_type("dot")
            query = query.select(["id", "_distance"]).nprobes(probes).refine_factor(refine).limit(number)
            found: list[int] = query.to_arrow()["id"].to_pylist()
            return found

    def _open(self) -> Any:
        assert self._table is not None
        return self._table


def _chunks(ids: Sequence[int]) -> Iterator[str]:
    for first in range(0, len(ids), _AT_ONCE):
        yield f"id IN ({', '.join(str(int(one)) for one in ids[first : first + _AT_ONCE])})"


@contextmanager
def _told(uri: str) -> Iterator[None]:
    """What LanceDB raises, in one line."""
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        if isinstance(error, RebusError):
            raise
        found = re.search(r"\(os error (\d+)\)", str(error))
        number = int(found[1]) if found else getattr(error, "errno", None)
        said = " ".join(str(error).split()).split(", /")[0][:200]
        if number in DISK_FULL or "No space left" in said:
            raise CannotWrite(f"{uri}: no space left on the disk; earlier commits are kept") from error
        raise RebusError(f"{uri}: {said}") from error
