"""Embeddings of many images or texts in one file, with what each row is of; resumed after any interruption.

Items are embedded in units of a hundred or so. What is done lies in `<file>.partial/` until the whole is written
atomically: `.npy` (the names in `<file>.jsonl`, a line a row), `.parquet` (columns `name` and `vector`) or
`.safetensors` (the tensor `vectors`, the names as JSON in the metadata).
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple, Protocol

import numpy as np

from rebus.core.atomic_write import write_file_atomically
from rebus.core.errors import MissingExtra, RebusError, UsageError
from rebus.core.strict_json import to_json
from rebus.data.over_ray import over_ray
from rebus.data.resumable_units import Units

ENDINGS = (".npy", ".parquet", ".safetensors")
PARTIAL = ".partial"
_MOST_HEADER = 100_000_000  # bytes of a safetensors header that readers accept


class Embedder(Protocol):
    """What embeds items. For Ray it can be pickled, and loads its model where it is called."""

    def __call__(self, items: Sequence[str], /) -> tuple[np.ndarray, Mapping[int, str]]:
        """Vectors (n, E) float32 of the items that have one, in order, and by index why the others have none."""
        ...


class Written(NamedTuple):
    """`rows`: how many vectors are in the file. `failures`: the names of items without one, and why."""

    rows: int
    failures: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class EmbeddingFileSettings:
    """`unit`: items of which an interruption loses the work at most. `most_failed`: the share of items that may fail.
    `gpus`: of a task under Ray."""

    unit: int = 128
    most_failed: float = 0.5
    engine: Literal["process", "ray"] = "process"
    gpus: int = 0


class EmbeddingFile:
    """Fills the file `out` with the embeddings of `items` (paths, or texts). `source` tells this work from other work:
    the model and how it is loaded.

    The bytes of the file are those of an uninterrupted run. Raises `UsageError` for an ending of no known format, and
    where `<file>.partial` was begun with another model or other items.
    """

    def __init__(
        self,
        items: Sequence[str],
        out: str | os.PathLike[str],
        embed: Embedder,
        source: Mapping[str, Any],
        settings: EmbeddingFileSettings | None = None,
    ):
        self.items, self.out, self.embed = list(items), Path(out), embed
        self.settings = settings or EmbeddingFileSettings()
        check_ending(self.out)
        if not self.items:
            raise UsageError("there is nothing to embed")
        plan = {**source, "items": len(self.items), "unit": self.settings.unit, "digest": _digest(self.items)}
        self.units = Units(self.out.with_name(self.out.name + PARTIAL), plan, "finished")
        self.count = -(-len(self.items) // self.settings.unit)

    @property
    def total(self) -> int:
        return len(self.items)

    @property
    def done(self) -> int:
        """Items whose unit is done already."""
        return self.total - sum(len(self._items_of(unit)) for unit in self.units.missing(self.count))

    def run(self, report: Callable[[int], None] = lambda count: None) -> Written:
        """Embed what is left and write the file. `report` hears how many items were just done.

        Raises `RebusError` where more than the share `most_failed` fails: these are tried again by the next run.
        """
        with self.units.opened():
            self._embed(self.units.missing(self.count), report)
            failures = self._failures()
            rows = sum(map(len, self._names()))
            if not rows:
                raise RebusError(f"not one of {self.total:,} items could be embedded: {next(iter(failures.values()))}")
            _WRITERS[self.out.suffix](self.out, self._vectors, self._names, (rows, self._width()), self.units.plan)
            shutil.rmtree(self.units.folder, ignore_errors=True)
        return Written(rows, failures)

    def _embed(self, missing: Sequence[int], report: Callable[[int], None]) -> None:
        rows = [{"unit": unit, "items": to_json(self._items_of(unit))} for unit in missing]
        work = _Unit(self.units, self.embed)
        if self.settings.engine == "ray" and rows:
            found: Iterator[Mapping[str, Any]] = over_ray(rows, work, gpus=self.settings.gpus)
        else:
            found = map(work, rows)
        failed = len(self._failures())
        seen = self.done
        for row in found:
            seen += int(row["items"])
            failed += int(row["failed"])
            if failed > self.settings.most_failed * seen:
                reason = next(iter(self._failures().values()))
                self._forget_failures()
                raise RebusError(
                    f"{failed:,} of {seen:,} items could not be embedded, more than the fraction "
                    f"{self.settings.most_failed:g}; the first: {reason}. Allow more with --max-bad"
                )
            report(int(row["items"]))

    def _items_of(self, unit: int) -> list[str]:
        return self.items[unit * self.settings.unit : (unit + 1) * self.settings.unit]

    def _finished(self) -> Iterator[int]:
        return (unit for unit in range(self.count) if self.units.journal(unit).exists())

    def _failures(self) -> dict[str, str]:
        rows = (row for unit in self._finished() for row in self.units.rows(unit))
        return {row["name"]: row["error"] for row in rows if "error" in row}

    def _forget_failures(self) -> None:
        """Units in which something failed are done again next time."""
        for unit in list(self._finished()):
            if any("error" in row for row in self.units.rows(unit)):
                self.units.journal(unit).unlink()

    def _names(self) -> Iterator[list[str]]:
        for unit in range(self.count):
            yield [row["name"] for row in self.units.rows(unit) if "error" not in row]

    def _vectors(self) -> Iterator[np.ndarray]:
        for unit in range(self.count):
            found = np.load(_vectors_of(self.units, unit), allow_pickle=False)
            if len(found):
                yield found

    def _width(self) -> int:
        return int(next(self._vectors()).shape[1])


@dataclass
class _Unit:
    """Does one unit, as a function of a row of a Ray data set: its vectors first, then its journal."""

    units: Units
    embed: Embedder

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        items = json.loads(row["items"])
        vectors, failures = self.embed(items)
        unit = int(row["unit"])
        with write_file_atomically(_vectors_of(self.units, unit)) as file:
            np.save(file, np.ascontiguousarray(vectors, dtype=np.float32), allow_pickle=False)
        self.units.commit(
            unit,
            ({"name": name, **({"error": failures[i]} if i in failures else {})} for i, name in enumerate(items)),
        )
        return {"unit": unit, "items": len(items), "failed": len(failures)}


def check_ending(out: Path) -> None:
    """Raise `UsageError` for an ending of no known format, `MissingExtra` where what writes it is not installed."""
    if out.suffix not in ENDINGS:
        raise UsageError(f"{out}: embeddings are written to {', '.join(ENDINGS)}; got {out.suffix or 'no ending'}")
    if out.suffix == ".parquet":
        try:
            import pyarrow  # noqa: F401 - whether it is there
        except ImportError:
            raise MissingExtra("data", "writing .parquet") from None


def _vectors_of(units: Units, unit: int) -> Path:
    return units.folder / f"{unit:05d}.npy"


def _digest(items: Sequence[str]) -> str:
    """Of the items, and of files their sizes and times: a changed image is embedded anew."""
    digest = hashlib.sha256()
    for item in items:
        state = ""
        with suppress(OSError, ValueError):  # a text, or a file that fails by itself
            status = os.stat(item)
            state = f"{status.st_size} {status.st_mtime_ns}"
        digest.update(f"{item}\0{state}\0".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


Shape = tuple[int, int]
Vectors = Callable[[], Iterator[np.ndarray]]
Names = Callable[[], Iterator[list[str]]]


def _write_npy(out: Path, vectors: Vectors, names: Names, shape: Shape, plan: Mapping[str, Any]) -> None:
    with write_file_atomically(out.with_name(out.name + ".jsonl")) as file:  # first: vectors alone mean nothing
        for row, name in enumerate(name for some in names() for name in some):
            file.write((to_json({"row": row, "name": name}) + "\n").encode())
    with write_file_atomically(out, 4 * shape[0] * shape[1]) as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        _write_bytes(file, vectors)


def _write_safetensors(out: Path, vectors: Vectors, names: Names, shape: Shape, plan: Mapping[str, Any]) -> None:
    size = 4 * shape[0] * shape[1]
    listed = to_json([name for some in names() for name in some])
    header = {
        "__metadata__": {"names": listed, "model": str(plan.get("model", ""))},
        "vectors": {"dtype": "F32", "shape": list(shape), "data_offsets": [0, size]},
    }
    text = to_json(header).encode("ascii")
    text += b" " * (-len(text) % 8)
    if len(text) > _MOST_HEADER:
        raise UsageError(f"{out}: {shape[0]:,} names are too many for the header of a .safetensors; use .parquet")
    with write_file_atomically(out, size + len(text) + 8) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        _write_bytes(file, vectors)


def _write_parquet(out: Path, vectors: Vectors, names: Names, shape: Shape, plan: Mapping[str, Any]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    fields = [("name", pa.string()), ("vector", pa.list_(pa.float32(), shape[1]))]
    schema = pa.schema(fields, metadata={"model": str(plan.get("model", ""))})
    with write_file_atomically(out, 4 * shape[0] * shape[1]) as file, parquet.ParquetWriter(file, schema) as writer:
        for own, some in zip((own for own in names() if own), vectors(), strict=True):
            printable = [name.encode("utf-8", "backslashreplace").decode() for name in own]
            rows = pa.FixedSizeListArray.from_arrays(pa.array(some.ravel()), shape[1])
            writer.write_table(pa.table([pa.array(printable), rows], schema=schema))


def _write_bytes(file: IO[bytes], vectors: Vectors) -> None:
    for some in vectors():
        file.write(some.astype("<f4", copy=False).tobytes())


_WRITERS: dict[str, Callable[[Path, Vectors, Names, Shape, Mapping[str, Any]], None]] = {
    ".npy": _write_npy,
    ".safetensors": _write_safetensors,
    ".parquet": _write_parquet,
}
