"""Parquet files of images' addresses and texts, as COYO-700M has them, or of the images themselves.

COYO's columns are id, url, text, width, height, image_phash, text_length, word_count, num_tokens_bert, num_tokens_gpt,
num_faces, clip_similarity_vitb32, clip_similarity_vitl14, nsfw_score_opennsfw2, nsfw_score_gantman, watermark_score and
aesthetic_score_laion_v2. It has no images: records then have `image=None` and the facts hold the address and the
scores, by which `rebus.data.filters` chooses. A column `image`, `jpg`, `png`, `webp` or `img` that holds the bytes of
images, also as {"bytes", "path"} as Hugging Face writes it, is used where it is there.

Byeon et al., "COYO-700M: Image-Text Pair Dataset", 2022, https://github.com/kakaobrain/coyo-dataset
"""

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rebus.core.errors import MissingExtra, MissingFile, RebusError
from rebus.data.reading.byte_lru_cache import ByteLRU
from rebus.data.reading.disk_cache import check_unchanged, stamp
from rebus.data.reading.row_to_record import record_of
from rebus.data.reading.shard_files import shards
from rebus.data.reading.tables import BadTable
from rebus.data.record import BadRecord, Record
from rebus.data.shuffle import WINDOW

if TYPE_CHECKING:
    import pyarrow as pa

NAME = "coyo"
WHAT = "Parquet files of addresses and texts (COYO-700M), or of images and texts"
# Forms that are read, and what each was checked against: a public reader, a dataset card, or memory
CHECKED = (
    ("Parquet of `url`, `text` and scores (COYO-700M), or with images as bytes", "memory; samples written by hand"),
)

PICTURES = ("image", "jpg", "png", "webp", "img")
HELD_BYTES = 512 << 20  # of row groups held in memory by one process


def recognises(path: Path) -> bool:
    if path.is_file() and path.suffix != ".parquet":
        return False
    if path.is_dir() and any(path.glob("*.tar")):  # img2dataset leaves its Parquet beside its tars
        return False
    try:
        schema = next(_schemas(shards(path, (".parquet",))), None)
    except MissingExtra:
        return True  # so that opening says so
    except RebusError:
        return False
    return schema is not None and ({"url", "text"} <= set(schema.names) or _picture_column(schema) is not None)


def open(path: Path, split: str | None) -> "Parquet":
    """A reader of the *.parquet files that `path` means.

    Raises `MissingExtra` without pyarrow, `MissingFile`, `UsageError` for a split that no name tells, `BadTable` for
    columns that are not understood or when no file can be read.
    """
    files = shards(path, (".parquet",), split)
    groups, faults = [], []
    columns: list[str] | None = None
    labels: tuple[str, ...] = ()
    picture: str | None = None
    for number, file in enumerate(files):
        try:
            with _parquet(file) as opened:
                schema, metadata = opened.schema_arrow, opened.metadata
                if columns is None:
                    columns, labels, picture = schema.names, _class_names(schema), _picture_column(schema)
                    _check_columns(file, schema)
                elif schema.names != columns:
                    raise BadTable(f"{file}: its columns ({', '.join(schema.names)}) are not those of {files[0].name}")
                first = 0
                for group in range(metadata.num_row_groups):
                    rows = metadata.row_group(group).num_rows
                    groups.append((number, group, first, rows))
                    first += rows
        except _Damaged as damage:
            faults.append(f"{file}: {damage}")
    if not groups:
        raise BadTable(next(iter(faults), f"{path}: no rows in these files"))
    stamps = tuple(stamp(file) for file in files)
    return Parquet(tuple(files), stamps, np.array(groups, dtype=np.int64), labels, picture, tuple(faults))


@dataclass(frozen=True)
class Parquet:
    """A block is a row group. `faults`: a line for each file that cannot be read at all."""

    files: tuple[Path, ...]
    stamps: tuple[tuple[int, int], ...]
    groups: np.ndarray  # int64 (blocks, 4): file, row group in it, its first row in the file, its rows
    labels: tuple[str, ...]  # names of classes, where the files say them as Hugging Face does
    picture: str | None  # the column with the images
    faults: tuple[str, ...]

    @property
    def sizes(self) -> Sequence[int]:
        return self.groups[:, 3].tolist()

    @property
    def window(self) -> int:
        """Rows to be shuffled together: a row group is read whole, so that with images few may be open at once."""
        return WINDOW if self.picture is None else 2 * int(self.groups[:, 3].max())

    def read(self, block: int, row: int) -> Record:
        number, group, first, rows = (int(n) for n in self.groups[block])
        if not 0 <= row < rows:
            raise IndexError(f"block {block} has {rows} rows; there is no {row}")
        file = self.files[number]
        key = f"{file.name}[{first + row}]"
        values = _row(_held(file, self.stamps[number], group), row, key)
        label = values.get("label")
        if self.labels and isinstance(label, int):
            if not 0 <= label < len(self.labels):
                raise BadRecord(key, f"label {label}; the file names {len(self.labels)} classes")
            values["label"] = self.labels[label]
        image = None if self.picture is None else _bytes(values[self.picture], self.picture, key)
        record = record_of(values, key, image, used=() if self.picture is None else (self.picture,))
        if image is None and not record.captions:
            raise BadRecord(key, "has no text")
        return record


def _row(group: "pa.Table | str", row: int, key: str) -> dict[str, Any]:
    if isinstance(group, str):
        raise BadRecord(key, group)
    try:
        return {name: group.column(name)[row].as_py() for name in group.column_names}
    except (ValueError, OverflowError) as error:
        raise BadRecord(key, f"a value that cannot be read ({error})") from None


def _bytes(value: Any, column: str, key: str) -> bytes:
    if isinstance(value, Mapping):
        if value.get("bytes") is None and value.get("path"):
            raise BadRecord(key, f"{column} holds only the name {str(value['path'])[:80]!r}, not the image")
        value = value.get("bytes")
    if not value:
        raise BadRecord(key, f"no image in the column {column}")
    return value


def _schemas(files: Sequence[Path]) -> "Iterator[pa.Schema]":
    for file in files:
        try:
            with _parquet(file) as opened:
                yield opened.schema_arrow
        except _Damaged:
            continue


def _check_columns(file: Path, schema: "pa.Schema") -> None:
    if "text" not in schema.names and _picture_column(schema) is None:
        raise BadTable(
            f"{file}: its columns are {', '.join(schema.names)}; wanted url and text, as COYO has them, "
            f"or images as bytes in one of {', '.join(PICTURES)}"
        )


def _picture_column(schema: "pa.Schema") -> str | None:
    from pyarrow import types

    def holds_bytes(kind: Any) -> bool:
        if types.is_struct(kind):
            place = kind.get_field_index("bytes")
            return place >= 0 and holds_bytes(kind.field(place).type)
        return types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind)

    return next((name for name in PICTURES if name in schema.names and holds_bytes(schema.field(name).type)), None)


def _class_names(schema: "pa.Schema") -> tuple[str, ...]:
    """The names of the column `label` in the notes that Hugging Face's datasets leave in a file."""
    try:
        notes = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        names = notes["info"]["features"]["label"]["names"]
    except (ValueError, KeyError, TypeError):
        return ()
    return tuple(str(name) for name in names) if isinstance(names, list) else ()


class _Damaged(Exception):
    """A file that is no whole Parquet file."""


@contextmanager
def _parquet(file: Path) -> Iterator[Any]:
    try:
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingExtra("data", f"{file.name}: a Parquet file") from None
    try:
        with pq.ParquetFile(file) as opened:
            yield opened
    except RebusError:
        raise
    except (OSError, ValueError, KeyError) as error:  # those of pyarrow derive from these
        raise _Damaged(f"cannot be read as Parquet ({str(error).splitlines()[0]})") from None


_GROUPS: "ByteLRU[pa.Table | str]" = ByteLRU(HELD_BYTES)
_READING = threading.Lock()  # or every thread would read the row group that all of them want


def _held(file: Path, when: tuple[int, int], group: int) -> "pa.Table | str":
    """A row group, or why it cannot be read."""
    with _READING:
        return _GROUPS.get((file, when, group), lambda: _read_group(file, when, group))


def _read_group(file: Path, when: tuple[int, int], group: int) -> "tuple[pa.Table | str, int]":
    try:
        check_unchanged(file, when)
        with _parquet(file) as opened:
            table = opened.read_row_group(group, use_threads=False)
        return table, table.nbytes
    except (_Damaged, MissingFile) as damage:
        return f"row group {group}: {damage}", 0
