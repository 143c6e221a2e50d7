"""Commits of a run to the table: each is whole, and `writing` beside the manifest says that it is ahead of the
snapshot."""

import os
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from rebus.core.atomic_write import write_bytes_atomically
from rebus.index.known import Difference, Known
from rebus.index.manifest import NEXT, WRITING, Manifest, Place
from rebus.index.outcome import Embedded, Read, Unread
from rebus.index.report import Report
from rebus.index.store import Store, arrow_schema

_ROWS, _SECONDS = 1_000, 20.0  # of a commit, at most: what a kill can cost


class Writer:
    """Gathers rows and commits them. `wrote`: whether anything was."""

    def __init__(self, place: Place, manifest: Manifest, known: Known, report: Report):
        self.place, self.manifest, self.known, self.report = place, manifest, known, report
        self.wrote = (place.folder / WRITING).exists()
        self._store: Store | None = None
        self._next = known.next_id
        self._new: list[dict[str, Any]] = []
        self._changed: list[dict[str, Any]] = []
        self._since = time.monotonic()

    @property
    def store(self) -> Store:
        """The table; LanceDB is imported when something is written."""
        if self._store is None:
            self._store = Store(self.place.uri, self.manifest.table)
        return self._store

    def note(self, difference: Difference, prune: bool) -> None:
        """What needs no model: moved, gone and found again."""
        import pyarrow as pa

        known, report = self.known, self.report
        known.unfit(difference.changed.values())
        report.unchanged, report.moved = difference.same + len(difference.again), len(difference.moved)
        dropped = [*difference.excluded, *(difference.gone if prune else [])]
        known.unfit(dropped)
        report.pruned, report.excluded = len(difference.gone) if prune else 0, len(difference.excluded)
        marked = dict.fromkeys([] if prune else difference.newly_gone, True) | dict.fromkeys(difference.again, False)
        if difference.moved:
            moved = difference.moved
            rows = {
                "id": pa.array([int(known.ids[row]) for row in moved], pa.int64()),
                "path": pa.array([path for path, _ in moved.values()], pa.binary()),
                "size": pa.array([seen.size for _, seen in moved.values()], pa.int64()),
                "mtime": pa.array([seen.mtime for _, seen in moved.values()], pa.int64()),
                "missing": pa.array([False] * len(moved), pa.bool_()),
            }
            self._begin()
            self.store.put(pa.table(rows))
        if marked:
            self._begin()
            ids = pa.array([int(known.ids[row]) for row in marked], pa.int64())
            self.store.put(pa.table({"id": ids, "missing": pa.array(list(marked.values()), pa.bool_())}))
        if dropped:
            self._begin()
            self.store.delete([int(known.ids[row]) for row in dropped])

    def take(self, one: Embedded, row: int | None) -> None:
        """A file that was read; `row`: its own, where it has one."""
        read, report = one.read, self.report
        if isinstance(read, Unread):
            report.unread[_said(read.path)] = read.reason
            return
        if row is None:
            report.new += 1
            self._new.append({"id": self._next, **_row(read, one.vector)})
            self._next += 1
        elif read.known is not None and self.known.hash(row) == read.hash:
            report.unchanged += 1
            self._changed.append({**_row(read, None), "id": int(self.known.ids[row]), "known": row})
        else:
            report.changed += 1
            self._changed.append({"id": int(self.known.ids[row]), **_row(read, one.vector)})
        report.embedded += one.vector is not None
        if read.error is not None:
            report.damaged[_said(read.path)] = read.error
        if len(self._new) + len(self._changed) >= _ROWS or time.monotonic() - self._since > _SECONDS:
            self.commit()

    def commit(self) -> None:
        """All that was gathered, as a commit of what is new and one of what is changed."""
        self._since = time.monotonic()
        rows = [*self._new, *self._changed]
        width = next((len(row["vector"]) for row in rows if row["vector"] is not None), self.manifest.width)
        if not rows or not width:  # no image could be read yet: how wide vectors are is not known
            return
        self._begin(width)
        self._copy_known(rows)
        if self._new:
            self.store.add(_table(self._new, width))
        if self._changed:
            self.store.put(_table(self._changed, width))
        self._new, self._changed = [], []

    def captions(self, said: Mapping[int, str]) -> None:
        """Captions by the ids of rows, as a commit."""
        import pyarrow as pa

        self._begin()
        texts = pa.array(list(said.values()), pa.string())
        self.store.put(pa.table({"id": pa.array(list(said), pa.int64()), "caption": texts}))

    def _begin(self, width: int | None = None) -> None:
        """Before the first commit: what a killed run leaves must be known."""
        folder = self.place.folder
        if width is not None and width != self.manifest.width:
            self.manifest = replace(self.manifest, width=width)
        if not self.wrote:
            write_bytes_atomically(folder / WRITING, self.manifest.table.encode())
            self.wrote = True
        if not self.store.exists:
            self.manifest.write(folder / NEXT)
            self.store.create(self.manifest.width)

    def _copy_known(self, rows: list[dict[str, Any]]) -> None:
        """Rows whose content another row has get its vector and all that is known of it."""
        known = [row["known"] for row in rows if row["known"] is not None]
        found = self.store.take([int(self.known.ids[one]) for one in sorted(set(known))]) if known else {}
        for row in rows:
            if (source := row.pop("known")) is not None:
                row |= {name: found[int(self.known.ids[source])][name] for name in _OF_CONTENT}


_OF_CONTENT = ("error", "width", "height", "format", "taken", "look", "caption", "vector")


def _row(read: Read, vector: np.ndarray | None) -> dict[str, Any]:
    return {
        "path": read.path,
        "size": read.seen.size,
        "mtime": read.seen.mtime,
        "hash": read.hash,
        "missing": False,
        "error": read.error,
        "width": read.width,
        "height": read.height,
        "format": read.format,
        "taken": read.taken,
        "look": read.look,
        "caption": None,
        "vector": vector,
        "known": read.known,
    }


def _table(rows: list[dict[str, Any]], width: int) -> Any:
    import pyarrow as pa

    schema = arrow_schema(width)
    zeros = np.zeros(width, dtype=np.float32)
    vectors = np.stack([zeros if row["vector"] is None else row["vector"] for row in rows]).astype(np.float32)
    columns = [
        pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), width)
        if name == "vector"
        else pa.array([row[name] for row in rows], schema.field(name).type)
        for name in schema.names
    ]
    return pa.table(columns, schema=schema)


def _said(path: bytes) -> str:
    return os.fsdecode(path)
