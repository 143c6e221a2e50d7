"""Snapshots for searches: all vectors in one memory-mapped file and the rows, derived from the table, written
atomically.

Exact search is a product of that matrix and a vector. Above `SCREENED` rows it goes first over vectors of one byte a
number, a quarter of the memory to be read, with a bound on what rounding can change; what may be among the nearest is
then compared in full, so that the answer is the exact one.
"""

import hashlib
import json
import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from rebus.core.atomic_write import write_folder_atomically
from rebus.core.errors import MissingExtra, RebusError
from rebus.core.small_files import read_small
from rebus.core.strict_json import to_json
from rebus.index.arrow_numbers import numbers
from rebus.index.store import Store

_FILE, _ROWS, _VECTORS, _CODES, _SCALES = "snapshot.json", "rows.arrow", "vectors.f32", "codes.i8", "scales.f32"
SCREENED = 100_000  # rows from which searches go over bytes first
_BLOCK = 65_536  # rows
_STEP = 32  # numbers of a row that PyTorch's product of bytes takes at a time; it reads beyond a row of another width


class Snapshot:
    """An open snapshot. Rows with a vector come first, in the order of their paths."""

    def __init__(self, folder: Path):
        try:
            import pyarrow as pa
        except ImportError:
            raise MissingExtra("index", "an index") from None
        self.folder = folder
        try:
            self.about: dict[str, Any] = json.loads(read_small(folder / _FILE))
            with pa.memory_map(str(folder / _ROWS)) as file:
                self.rows = pa.ipc.open_file(file).read_all()
            sizes = {name: (folder / name).stat().st_size for name in self.about["files"]}
        except (OSError, ValueError, KeyError) as error:
            raise RebusError(f"{folder}: incomplete snapshot ({error}). Run: rebus index --verify") from None
        wrong = [name for name, (size, _) in self.about["files"].items() if sizes[name] != size]
        if wrong:
            raise RebusError(f"{folder}: {wrong[0]} is damaged. Run: rebus index --verify")

    def __len__(self) -> int:
        """Rows that have a vector."""
        return int(self.about["vectors"])

    @property
    def width(self) -> int:
        return int(self.about["width"])

    @cached_property
    def vectors(self) -> np.ndarray:
        """(N, E) float32 of unit length, mapped."""
        return self._mapped(_VECTORS, np.float32, self.width)

    @cached_property
    def paths(self) -> list[bytes]:
        """Of all rows, below the root."""
        return self.rows["path"].to_pylist()

    def column(self, name: str) -> np.ndarray:
        """Numbers of the rows that have a vector, or their texts."""
        rows = self.rows[name].slice(0, len(self))
        if str(rows.type) not in ("int32", "int64", "bool") or rows.null_count:
            return np.array(rows.to_pylist(), dtype=object)
        return numbers(rows)

    @cached_property
    def missing(self) -> np.ndarray:
        """(N,) whether a file was not seen when the folder was last read."""
        return self.column("missing").astype(bool)

    def looks(self) -> np.ndarray:
        """(N, 64) uint8, see `rebus.index.look`."""
        return np.frombuffer(b"".join(self.rows["look"].to_pylist()[: len(self)]), dtype=np.uint8).reshape(-1, 64)

    def scores(self, query: np.ndarray) -> np.ndarray:
        """(N,) products with a vector (E,)."""
        found: np.ndarray = self.vectors @ query.astype(np.float32)
        return found

    def screened(self, query: np.ndarray) -> tuple[np.ndarray, float] | None:
        """(N,) products that are wrong by at most the number beside them; None for few rows."""
        if _CODES not in self.about["files"]:
            return None
        import torch

        codes = self._mapped(_CODES, np.int8, _padded(self.width))
        scales = self._mapped(_SCALES, np.float32, 1)[:, 0]
        found = np.empty(len(self), dtype=np.float32)
        short = torch.zeros(1, _padded(self.width), dtype=torch.bfloat16)
        short[0, : self.width] = torch.from_numpy(query.astype(np.float32))
        lost = float(np.linalg.norm(query - short[0, : self.width].float().numpy()))
        ones = torch.ones(_BLOCK, dtype=torch.bfloat16)
        for first in range(0, len(self), _BLOCK):
            block = torch.from_numpy(codes[first : first + _BLOCK])
            product = torch._weight_int8pack_mm(short, block, ones[: len(block)])[0].float().numpy()
            found[first : first + _BLOCK] = product * scales[first : first + _BLOCK]
        norm = float(np.linalg.norm(query))
        # rounding of the rows and of the query, by Cauchy and Schwarz; of the sums, given as bfloat16
        slack = float(self.about["slack"]) * norm + 1.01 * lost + float(np.abs(found).max(initial=0)) * 2.0**-8 + 1e-5
        return found, slack

    def verify(self) -> list[str]:
        """Files whose content is not what was written."""
        return [name for name, (_, digest) in self.about["files"].items() if _digest(self.folder / name) != digest]

    def _mapped(self, name: str, kind: Any, width: int) -> np.ndarray:
        file = self.folder / name
        if not len(self):
            return np.empty((0, width), dtype=kind)
        # copied on writing, which nobody does: PyTorch warns of memory that cannot be written
        return np.memmap(file, dtype=kind, mode="c", shape=(len(self), width))


def write_snapshot(store: Store, place: Path, width: int) -> str:
    """A new snapshot of a table in a folder; gives its name. Nothing refers to it yet. Raises `CannotWrite`."""
    import pyarrow as pa

    rows = store.metadata()
    bad = numbers(rows["error"].is_valid())
    paths = rows["path"].to_pylist()
    order = sorted(range(len(paths)), key=lambda i: (bad[i], paths[i]))
    rows = rows.take(pa.array(order, pa.int64()))
    number = int((~bad).sum())
    at = {one: place for place, one in enumerate(rows["id"].to_pylist()[:number])}
    name = f"snapshot-{secrets.token_hex(6)}"
    with write_folder_atomically(place / name) as draft:
        slack = _write_vectors(store.vectors(), at, draft, width)
        with pa.OSFile(str(draft / _ROWS), "wb") as file, pa.ipc.new_file(file, rows.schema) as writer:
            writer.write_table(rows)
        files = {one.name: (one.stat().st_size, _digest(one)) for one in sorted(draft.iterdir())}
        about = {"vectors": number, "width": width, "slack": slack, "files": files}
        (draft / _FILE).write_text(to_json(about, indent=1))
    return name


def _write_vectors(batches: Iterator[Any], at: dict[int, int], draft: Path, width: int) -> float:
    """Each vector at its place, by seeking: a mapped file would count as memory. Gives the largest length of
    what rounding to bytes takes from a row."""
    slack, screens = 0.0, len(at) >= SCREENED
    names = (_VECTORS, _CODES, _SCALES) if screens else (_VECTORS,)
    with ExitStack() as stack:
        files = {name: stack.enter_context((draft / name).open("wb", buffering=0)) for name in names}

        def put(name: str, place: int, row: np.ndarray) -> None:
            files[name].seek(place * row.nbytes)
            files[name].write(row.tobytes())

        for batch in batches:
            values = batch["vector"].flatten().to_numpy().reshape(-1, width)
            kept = [(at[one], row) for row, one in enumerate(batch["id"].to_pylist()) if one in at]
            rows = values[[row for _, row in kept]]
            for row, (place, _) in enumerate(kept):
                put(_VECTORS, place, rows[row])
            if screens and kept:
                scale = (np.maximum(np.abs(rows).max(axis=1), 1e-30) / 127).astype(np.float32)
                codes = np.zeros((len(rows), _padded(width)), dtype=np.int8)
                codes[:, :width] = np.rint(rows / scale[:, None])
                lost = rows - codes[:, :width] * scale[:, None]
                slack = max(slack, float(np.linalg.norm(lost, axis=1).max()))
                for row, (place, _) in enumerate(kept):
                    put(_CODES, place, codes[row])
                    put(_SCALES, place, scale[row : row + 1])
    return slack


def _padded(width: int) -> int:
    return -(-width // _STEP) * _STEP


def remove_others(place: Path, name: str | None) -> None:
    """Snapshots that are no longer read, and drafts. Who has them mapped goes on reading them."""
    for folder in [*place.glob("snapshot-*"), *place.glob(".snapshot-*")]:
        if folder.name != name:
            shutil.rmtree(folder, ignore_errors=True)


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
