"""Parquet files of images' addresses and texts, as COYO-700M has them, or of the images themselves.

COYO's columns are id, url, text, width, height, image_phash, text_length, word_count, num_tokens_bert, num_tokens_gpt,
num_faces, clip_similarity_vitb32, clip_similarity_vitl14, nsfw_score_opennsfw2, nsfw_score_gantman, watermark_score and
aesthetic_score_laion_v2. It has no images: records then have `image=None` and the facts hold the address and the
scores, by which `rebus.data.filters` chooses. A column `image`, `jpg`, `png`, `webp` or `img` that holds the bytes of
images, also as {"bytes", "path"} as Hugging Face writes it, is used where it is there. Names of columns are understood
in any case (LAION's URL, TEXT). Rows with the same image and label are one record, as a row for each caption gives
them. A column `split` chooses rows; rows that img2dataset failed to fetch are no records. Numbers in `label`,
`labels`, `fine_label` and in `objects` {"bbox", "category"} are named as Hugging Face's notes say.

Byeon et al., "COYO-700M: Image-Text Pair Dataset", 2022, https://github.com/kakaobrain/coyo-dataset
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rebus.core.errors import MissingExtra, MissingFile, RebusError, UsageError
from rebus.data.reading.byte_lru_cache import ByteLRU
from rebus.data.reading.disk_cache import check_unchanged, stamp
from rebus.data.reading.parquet_annotations import Annotations
from rebus.data.reading.parquet_by_image import by_image
from rebus.data.reading.row_to_record import any_case, record_of
from rebus.data.reading.rows_by_image import RowGroups, merged
from rebus.data.reading.shard_files import names_of, shards
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

IMAGES = ("image", "jpg", "png", "webp", "img")
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
    return schema is not None and (
        {"url", "text"} <= {name.lower() for name in schema.names} or _image_column(schema) is not None
    )


def open(path: Path, split: str | None) -> "Parquet":
    """A reader of the *.parquet files that `path` means.

    Raises `MissingExtra` without pyarrow, `MissingFile`, `UsageError` for a split that no name tells, `BadTable` for
    columns that are not understood or when no file can be read.
    """
    by_name, files = _files_of(path, split)
    groups, faults = [], []
    columns: list[str] | None = None
    annotations = Annotations()
    image: str | None = None
    for number, file in enumerate(files):
        try:
            with _parquet(file) as opened:
                schema, metadata = opened.schema_arrow, opened.metadata
                if columns is None:
                    columns, image = schema.names, _image_column(schema)
                    _check_columns(file, schema)
                    annotations = Annotations.of(opened, file)
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
    places = np.array(groups, dtype=np.int64)
    told_by = [name for name in ("split", "status") if name in (columns or ())]
    chosen = _chosen_rows(files, places, split, told_by)
    if chosen is None:  # no column tells the split: the names of the files do
        own = {files.index(file) for file in by_name or shards(path, (".parquet",), split)}
        places = places[[number in own for number in places[:, 0]]]
        chosen = _chosen_rows(files, places, None, told_by) or {}
    together = None if image is None else by_image(files, places, image, chosen)
    if together is not None:
        starts, firsts = np.cumsum([0, *places[:, 3]]), together.rows[together.begins[:-1]]
        chosen = {n: firsts[(firsts >= a) & (firsts < b)] - a for n, (a, b) in enumerate(pairwise(starts.tolist()))}
    return Parquet(tuple(files), stamps, places, annotations, image, tuple(faults), chosen, together)


def _files_of(path: Path, split: str | None) -> tuple[list[Path], list[Path]]:
    """The files whose names tell the split, none where no name does; and all that may hold it by a column."""
    everything = shards(path, (".parquet",))
    if split is None:
        return everything, everything
    try:
        named = shards(path, (".parquet",), split)
    except UsageError:
        named = []
    with suppress(_Damaged), _parquet(everything[0]) as opened:
        if "split" in opened.schema_arrow.names:
            return named, everything
    return named, named or shards(path, (".parquet",), split)


@dataclass(frozen=True)
class Parquet:
    """A block is a row group. `faults`: a line for each file that cannot be read at all."""

    files: tuple[Path, ...]
    stamps: tuple[tuple[int, int], ...]
    groups: np.ndarray  # int64 (blocks, 4): file, row group in it, its first row in the file, its rows
    annotations: Annotations
    image: str | None  # the column with the images
    faults: tuple[str, ...]
    chosen: Mapping[int, np.ndarray] = field(default_factory=dict)  # of a block, its rows where not all are read

    together: RowGroups | None = None  # rows by image, numbered over all blocks, where some are about the same one

    @property
    def labels(self) -> Sequence[str]:
        """Names of classes, where the files say them as Hugging Face does."""
        return self.annotations.names

    @property
    def sizes(self) -> Sequence[int]:
        return [len(self.chosen.get(n, range(rows))) for n, rows in enumerate(self.groups[:, 3].tolist())]

    @property
    def window(self) -> int:
        """Rows to be shuffled together: a row group is read whole, so that with images few may be open at once."""
        return WINDOW if self.image is None else 2 * int(self.groups[:, 3].max())

    def row_in_group(self, block: int, row: int) -> int:
        """Which row of the row group is row `row` of those that are read. Raises `IndexError`."""
        mine = self.chosen.get(block, range(int(self.groups[block, 3])))
        if not 0 <= row < len(mine):
            raise IndexError(f"block {block} has {len(mine)} rows; there is no {row}")
        return int(mine[row])

    def read(self, block: int, row: int) -> Record:
        row = self.row_in_group(block, row)
        if self.together is None:
            return self._read(block, row)
        starts = np.cumsum([0, *self.groups[:, 3]])
        firsts = self.together.rows[self.together.begins[:-1]]
        own = self.together.rows_of(int(np.searchsorted(firsts, starts[block] + row)))
        blocks = np.searchsorted(starts, own, side="right") - 1
        return merged([self._read(int(n), at - int(starts[n])) for n, at in zip(blocks, own)])

    def _read(self, block: int, row: int) -> Record:
        number, group, first, _ = (int(n) for n in self.groups[block])
        file = self.files[number]
        key = f"{file.name}[{first + row}]"
        values = _row(_held(file, self.stamps[number], group), row, key)
        values = self.annotations.in_words(values, key)
        image = None if self.image is None else _bytes(values[self.image.lower()], self.image, key)
        record = record_of(values, key, image, used=() if self.image is None else (self.image.lower(),))
        if image is None and not record.captions:
            raise BadRecord(key, "has no text")
        return record


def _row(group: "pa.Table | str", row: int, key: str) -> dict[str, Any]:
    if isinstance(group, str):
        raise BadRecord(key, group)
    try:
        return any_case({name: group.column(name)[row].as_py() for name in group.column_names})
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
    if "text" not in {name.lower() for name in schema.names} and _image_column(schema) is None:
        raise BadTable(
            f"{file}: its columns are {', '.join(schema.names)}; expected url and text, as in COYO, "
            f"or images as bytes in one of {', '.join(IMAGES)}"
        )


def _image_column(schema: "pa.Schema") -> str | None:
    from pyarrow import types

    def holds_bytes(kind: Any) -> bool:
        if types.is_struct(kind):
            place = kind.get_field_index("bytes")
            return place >= 0 and holds_bytes(kind.field(place).type)
        return types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind)

    columns = {name.lower(): name for name in reversed(schema.names)}
    found = (columns[name] for name in IMAGES if name in columns)
    return next((name for name in found if holds_bytes(schema.field(name).type)), None)


def _chosen_rows(
    files: Sequence[Path], groups: np.ndarray, split: str | None, told_by: list[str]
) -> dict[int, np.ndarray] | None:
    """Block → its rows of the split, without those that img2dataset failed to fetch; None where no row says the split.

    `told_by`: which of the columns `split` and `status` there are. Blocks of which all rows are read are left out.
    """
    chosen: dict[int, np.ndarray] = {}
    said = split is None
    wanted = names_of(split) if split else frozenset()
    for block, (number, group, _, rows) in enumerate(groups.tolist() if told_by else ()):
        try:
            with _parquet(files[number]) as opened:
                columns = opened.read_row_group(group, columns=told_by, use_threads=False).to_pydict()
        except _Damaged:
            continue  # its rows are damaged records
        keep = np.ones(rows, dtype=bool)
        if split is not None and "split" in columns:
            keep &= np.array([str(value).lower() in wanted for value in columns["split"]])
            said = said or bool(keep.any())
        if "status" in columns:
            keep &= np.array([not str(value).startswith("failed_") for value in columns["status"]])
        if not keep.all():
            chosen[block] = np.flatnonzero(keep)
    return chosen if said else None


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
