"""A folder of images, with a table of captions beside them or with its sub-folders as labels.

The table is called `captions` or `metadata` (as Hugging Face's imagefolder has it), or `annotations`, `qa`, `labels`
where that has these columns, and ends in .csv, .tsv, .jsonl or .json (a list); or the path given is the table:

- `file` (or `file_name`, `filename`, `image`, `path`): the image, from where the table lies;
- texts: `caption`, `captions` (a list), `text`, `title`, all that are there;
- `label`; `question` with `answer` or `answers` (and `qid`, `type`); `split`, by which rows are chosen;
- `boxes`: a list of {"label" or "category", "xyxy" or "bbox_xywh" in pixels}, or null where nobody looked.

Other columns are facts. Without a table each image's label is the sub-folder it lies in, however deep. Sub-folders
train, val, test are splits, each with its table or its labels. Without a split everything is read.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rebus.core.errors import MissingFile, RebusError, UsageError
from rebus.data.reading.disk_cache import kept
from rebus.data.reading.media_paths import MediaPaths
from rebus.data.reading.packed_names import PackedNames
from rebus.data.reading.row_to_record import file_column, is_known, record_of, wanted
from rebus.data.reading.shard_files import SPLITS, names_of
from rebus.data.reading.tables import ENDINGS, BadTable, Table
from rebus.data.record import BadRecord, Reader, Record

NAME = "folder"
WHAT = "images with a table of captions (CSV, TSV, JSONL, JSON), or in sub-folders that are labels"

TABLES = ("captions", "metadata")
PERHAPS = ("annotations", "qa", "labels")  # names that other files have too
PICTURES = tuple(
    ".jpg .jpeg .png .webp .gif .bmp .tif .tiff .ppm .pgm .avif .heic .heif".split()  # those of codec.formats
)
BLOCK = 8_192  # rows that are read near each other when the order is shuffled


def recognises(path: Path) -> bool:
    if path.is_file():
        return path.suffix.lower() in ENDINGS
    return path.is_dir() and (bool(_tables(path, None)) or any(True for _ in _walk(path)))


def open(path: Path, split: str | None) -> Reader:
    """Raises `BadTable` for columns that are not understood, `UsageError` for no such split, `MissingFile`."""
    if path.is_file():
        return _open_tables([path], split)
    own = _table_in(path)
    tables = [own] if own else _tables(path, split)
    if tables:
        return _open_tables(tables, split if own else None)
    return _open_pictures(path, split)


@dataclass(frozen=True)
class TableReader:
    """Rows of tables about images."""

    tables: tuple[Table, ...]
    rows: tuple[np.ndarray, ...]  # of each table, the numbers of those of the split; empty: all
    blocks: np.ndarray  # int64 (blocks, 3): table, begin, end among its rows

    @property
    def sizes(self) -> Sequence[int]:
        return (self.blocks[:, 2] - self.blocks[:, 1]).tolist()

    @property
    def labels(self) -> Sequence[str]:
        """In order of the alphabet. The first time, this reads all rows."""
        found: set[str] = set()
        for table in self.tables:
            if {"label", "boxes"} & set(table.columns):
                found |= {str(name) for name in kept("labels", [table.path], partial(_labels, table))["names"]}
        return tuple(sorted(found))

    def read(self, block: int, row: int) -> Record:
        which, begin, end = (int(n) for n in self.blocks[block])
        if not 0 <= row < end - begin:
            raise IndexError(f"block {block} has {end - begin} rows; there is no {row}")
        table, rows = self.tables[which], self.rows[which]
        number = int(rows[begin + row]) if len(rows) else begin + row
        return _record(table.row(number), table, table.key(number))


@dataclass(frozen=True)
class PictureReader:
    """Images whose folders are their labels."""

    root: Path
    names: PackedNames
    labels: tuple[str, ...]
    own: np.ndarray  # int32 (images,): the label of each, -1 for none

    @property
    def sizes(self) -> Sequence[int]:
        return [min(BLOCK, len(self.names) - start) for start in range(0, len(self.names), BLOCK)]

    def read(self, block: int, row: int) -> Record:
        number = block * BLOCK + row
        name, label = self.names[number], int(self.own[number])
        return Record(key=name, image=_picture(self.root, name, name), label=None if label < 0 else self.labels[label])


def _open_tables(paths: list[Path], split: str | None) -> TableReader:
    tables = tuple(Table.open(path) for path in paths)
    for table in tables:
        if not _understood(table):
            raise BadTable(f"{table.path}: its columns are {', '.join(table.columns)}; wanted {wanted()}")
    rows = tuple(table.rows_of(split) if split else np.array([], dtype=np.int64) for table in tables)
    counts = [len(own) if split else len(table) for table, own in zip(tables, rows)]
    blocks = [
        (which, begin, min(begin + BLOCK, count))
        for which, count in enumerate(counts)
        for begin in range(0, count, BLOCK)
    ]
    return TableReader(tables, rows, np.array(blocks, dtype=np.int64).reshape(-1, 3))


def _record(row: dict[str, Any], table: Table, key: str) -> Record:
    column = file_column(tuple(row))
    if column is None:
        raise BadRecord(key, f"names no image; its columns are {', '.join(row) or 'none'}")
    return record_of(row, key, _picture(table.path.parent, row[column], key), used=(column,))


def _picture(folder: Path, name: Any, key: str) -> Path:
    if not isinstance(name, str) or not name:
        raise BadRecord(key, f"the image's file must be a name; got {name!r}")
    if "://" in name:
        raise BadRecord(key, f"{name[:80]!r} is a web address; fetch the images first")
    root = folder.parent if folder.name.lower() in SPLITS else folder
    try:
        return MediaPaths([folder], [root]).find(name)
    except RebusError as error:
        raise BadRecord(key, str(error)) from None


def _labels(table: Table) -> dict[str, np.ndarray]:
    names: set[str] = set()
    for row in table.rows():
        try:
            record = record_of(row or {}, "", None)
        except BadRecord:
            continue
        names |= {thing.label for thing in record.things} | ({record.label} if record.label is not None else set())
    return {"names": np.array(sorted(names), dtype=np.str_)}


def _understood(table: Table) -> bool:
    return file_column(table.columns) is not None and is_known(table.columns)


def _table_in(folder: Path) -> Path | None:
    names = ((name, folder / (name + ending)) for name in (*TABLES, *PERHAPS) for ending in ENDINGS)
    there = ((name, path) for name, path in names if path.is_file())
    return next((path for name, path in there if name in TABLES or _may_be_table(path)), None)


def _may_be_table(path: Path) -> bool:
    try:
        return _understood(Table.open(path))
    except BadTable:
        return False


def _tables(path: Path, split: str | None) -> list[Path]:
    """The table of the folder, or those of its splits."""
    own = _table_in(path)
    folders = [folder for folder in _folders(path) if folder.name.lower() in SPLITS]
    tables = [own] if own else [table for folder in folders if (table := _table_in(folder))]
    chosen = tables if own or split is None else [t for t in tables if t.parent.name.lower() in names_of(split)]
    if tables and not chosen:
        raise _no_split(path, split, [table.parent.name for table in tables])
    return chosen


def _open_pictures(path: Path, split: str | None) -> PictureReader:
    roots = _roots(path, split)
    found = [(root, file) for root in roots for file in _walk(root)]
    if not found:
        raise MissingFile(f"{path}: no images here ({' '.join(PICTURES)}), and no table of them")
    classes = [_class_of(file, root) for root, file in found]
    labels = tuple(sorted({name for name in classes if name is not None}))
    number = {name: n for n, name in enumerate(labels)} | {None: -1}
    own = np.array([number[name] for name in classes], dtype=np.int32)
    return PictureReader(path, PackedNames.of(str(file.relative_to(path)) for _, file in found), labels, own)


def _roots(path: Path, split: str | None) -> list[Path]:
    """The folders in which sub-folders are labels."""
    folders = _folders(path)
    splits = [folder for folder in folders if folder.name.lower() in SPLITS]
    if split is None:
        return splits if splits and len(splits) == len(folders) else [path]
    chosen = [folder for folder in folders if folder.name.lower() in names_of(split)]
    if not chosen and path.name.lower() in names_of(split):
        return [path]
    if not chosen:
        raise _no_split(path, split, [folder.name for folder in splits])
    return chosen


def _no_split(path: Path, split: str | None, there: Sequence[str]) -> UsageError:
    has = f"it has {', '.join(there)}" if there else "it has no splits; leave it out"
    return UsageError(f'{path}: no split "{split}"; {has}')


def _class_of(file: Path, root: Path) -> str | None:
    parts = file.relative_to(root).parts
    return parts[0] if len(parts) > 1 else None


def _folders(path: Path) -> list[Path]:
    return sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _walk(folder: Path, above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[Path]:
    """The images in a folder and in its folders, in order of name. Links are followed, but never in a circle."""
    try:
        status = os.stat(folder)
        with os.scandir(folder) as entries:
            shown = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise MissingFile(f"{folder}: cannot be listed: {error.strerror}") from None
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    for entry in shown:
        if entry.is_dir():
            yield from _walk(folder / entry.name, above | {here})
        elif entry.name.lower().endswith(PICTURES):
            yield folder / entry.name
