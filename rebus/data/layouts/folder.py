"""A folder of images, with a table of captions beside them or with its sub-folders as labels.

The table is called `captions` or `metadata` (as Hugging Face's imagefolder has it), or `annotations`, `qa`, `labels`
where that has these columns, and ends in .csv, .tsv, .jsonl or .json (a list); or the path given is the table:

- `file` (or `file_name`, `filename`, `image`, `path`): the image, from where the table lies;
- texts: `caption`, `captions` (a list), `text`, `title`, all that are there;
- `label`, or `name` beside `class_index`; `split`, by which rows are chosen;
- `question` with `answer` or `answers` (and `qid`, `type`); LLaVA's `conversations`; PaliGemma's `prefix`, `suffix`;
- `boxes`: a list of {"label" or "category", "xyxy" or "bbox_xywh" in pixels}, or null where nobody looked.

Rows about the same image (with the same label) are one record: a table with a row for each caption or each question
gives images with several. Other columns are facts; those that differ from row to row are lists. Where no table has such
a name, the only one whose columns are understood is taken, Kaggle's `captions.txt`, and tables that have the words
train, val, test in their names (`_annotations.train.jsonl`), here or in `annotations/`. Images lie beside the table or
in `images/`. An image `x.jpg` may have its captions, a line each, in `x.txt`, and facts in `x.json`, as img2dataset's
files do. Without a table each image's label is the sub-folder it lies in, however deep. Sub-folders train, val, test
are splits, each with its table or its labels. Without a split everything is read. Tables and JSON files that lie there
and are not understood are named in `unread`: nothing should be learned of the folders' names then.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from rebus.core.errors import MissingFile, RebusError, UsageError
from rebus.data.reading.box_form import table_has_corners
from rebus.data.reading.disk_cache import kept
from rebus.data.reading.json_spans import read_json
from rebus.data.reading.media_paths import MediaPaths
from rebus.data.reading.packed_names import PackedNames
from rebus.data.reading.row_to_record import LABELS, WEB, file_column, is_known, record_of, texts_of, wanted
from rebus.data.reading.rows_by_image import RowGroups, by_image, merged
from rebus.data.reading.shard_files import SPLITS, NoSplits, names_of, words_of
from rebus.data.reading.tables import ENDINGS, BadTable, Table
from rebus.data.record import BadRecord, LeftOut, Reader, Record

NAME = "folder"
WHAT = "images with a table of captions (CSV, TSV, JSONL, JSON), or in sub-folders that are labels"
# Forms that are read, and what each was checked against: a public reader, a dataset card, or memory
CHECKED = (
    ("a table of image files and texts, questions, labels or boxes (CSV, TSV, JSONL, JSON)", "our own form"),
    ("`x.jpg` with `x.txt`, `x.json`: img2dataset's output format `files`", "memory; samples written by hand"),
    ("Kaggle's `captions.txt` with `Images/`; open_clip's `filepath` and `title`", "memory; samples written by hand"),
    ("PaliGemma's JSONL of `image`, `prefix`, `suffix`", "maestro's documentation; samples written by hand"),
    ("LLaVA's JSON of `image`, `conversations`", "LLaVA's Finetune_Custom_Data.md; samples written by hand"),
    ("VizWiz's `Annotations/train.json`, `val.json`, `test.json`", "HELM's reader; samples written by hand"),
    ("sub-folders as labels, split folders with a `metadata` table each", "memory; samples written by hand"),
)

TABLES = ("captions", "metadata")
PERHAPS = ("annotations", "qa", "labels")  # names that other files have too
IMAGES = tuple(
    ".jpg .jpeg .png .webp .gif .bmp .tif .tiff .ppm .pgm .avif .heic .heif".split()  # those of codec.formats
)
_ANNOTATIONS = ("annotations", "Annotations")
IMAGE_FOLDERS = ("", "images", "Images")  # where a table's images may lie, from the table
_MOST_UNREAD = 20  # tables that are looked at and named
_SAMPLED = 100  # images looked at for texts of their own beside them
BLOCK = 8_192  # images that are read near each other when the order is shuffled


def recognises(path: Path) -> bool:
    if path.is_file():
        return path.suffix.lower() in ENDINGS
    return path.is_dir() and any(chain(_tables(path, None), _other_tables(path), _walk(path)))


def open(path: Path, split: str | None) -> Reader:
    """Raises `BadTable` for columns that are not understood, `UsageError` for no such split, `MissingFile`."""
    if path.is_file():
        return _open_tables([path], split)
    own = _table_in(path)
    tables = [own] if own else _tables(path, split)
    if tables:
        return _open_tables(tables, split if own else None, path)
    return _open_images(path, split)


@dataclass(frozen=True)
class TableReader:
    """Images that tables have rows about, each with what all its rows say."""

    tables: tuple[Table, ...]
    unread: tuple[str, ...]  # tables beside them, and why they are not read
    places: tuple[MediaPaths, ...]  # of each table, where its images may lie
    groups: tuple[RowGroups, ...]  # of each table, its rows by image
    blocks: np.ndarray  # int64 (blocks, 3): table, begin, end among its images
    corners: tuple[bool, ...]  # of each table, whether boxes in `objects` are left, top, right, bottom

    @property
    def sizes(self) -> Sequence[int]:
        return (self.blocks[:, 2] - self.blocks[:, 1]).tolist()

    @property
    def labels(self) -> Sequence[str]:
        """In order of the alphabet. The first time, this reads all rows."""
        found: set[str] = set()
        for table in self.tables:
            if {*LABELS, "class_index", "boxes", "objects"} & set(table.columns):
                found |= {str(name) for name in kept("labels", [table.path], partial(_labels, table))["names"]}
        return tuple(sorted(found))

    def read(self, block: int, row: int) -> Record:
        which, begin, end = (int(n) for n in self.blocks[block])
        if not 0 <= row < end - begin:
            raise IndexError(f"block {block} has {end - begin} rows; there is no {row}")
        table = self.tables[which]
        own, places, corners = self.groups[which].rows_of(begin + row), self.places[which], self.corners[which]
        return merged([_record(table.row(n), places, table.key(n), corners) for n in own])


@dataclass(frozen=True)
class ImageReader:
    """Images whose folders are their labels, or that have texts of their own beside them."""

    places: MediaPaths
    names: PackedNames
    labels: tuple[str, ...]
    own: np.ndarray  # int32 (images,): the label of each, -1 for none
    unread: tuple[str, ...]  # tables and JSON files that are not understood, and why
    captioned: bool  # x.txt or x.json beside x.jpg

    @property
    def labelled_by_folder(self) -> bool:
        return not self.captioned

    @property
    def sizes(self) -> Sequence[int]:
        return [min(BLOCK, len(self.names) - start) for start in range(0, len(self.names), BLOCK)]

    def read(self, block: int, row: int) -> Record:
        number = block * BLOCK + row
        name, label = self.names[number], int(self.own[number])
        image = _image(self.places, name, name)
        if self.captioned:
            return _with_texts(image, name)
        return Record(key=name, image=image, label=None if label < 0 else self.labels[label])


def _open_tables(paths: list[Path], split: str | None, folder: Path | None = None) -> TableReader:
    """`folder`: what was asked for, where it was not a table itself: others in it are named."""
    tables = tuple(Table.open(path) for path in paths)
    for table in tables:
        if not _understood(table):
            raise BadTable(f"{table.path}: {_reason(table)}")
    groups = tuple(by_image(table, split) for table in tables)
    blocks = [
        (which, begin, min(begin + BLOCK, len(own)))
        for which, own in enumerate(groups)
        for begin in range(0, len(own), BLOCK)
    ]
    folders = [] if folder is None else dict.fromkeys([folder, *(path.parent for path in paths)])
    unread = tuple(line for at in folders for line in _unread(at, paths))
    places = tuple(_places(path) for path in paths)
    corners = tuple(table_has_corners(table) for table in tables)
    return TableReader(tables, unread, places, groups, np.array(blocks, dtype=np.int64).reshape(-1, 3), corners)


def _places(table: Path) -> MediaPaths:
    """Where the images of a table may lie: beside it or in `images/`, in folders of its split."""
    folder, root = table.parent, table.parent
    if folder.name.lower() in (*SPLITS, *_ANNOTATIONS):
        root = folder.parent
    bases = [folder, root] if folder.name in _ANNOTATIONS else [folder]
    splits = [word for word in words_of(Path(table.stem)) if word in SPLITS]
    names = [*IMAGE_FOLDERS, *(name for word in splits for name in sorted(names_of(word)))]
    return MediaPaths([base / name for base in bases for name in names], [root])


def _record(row: dict[str, Any], places: MediaPaths, key: str, corners: bool) -> Record:
    column = file_column(tuple(row))
    if column is None:
        error = LeftOut if "conversations" in row else BadRecord  # LLaVA's mixture holds texts without images
        raise error(key, f"names no image; its columns are {', '.join(row) or 'none'}")
    return record_of(row, key, _image(places, row[column], key), used=(column,), corners=corners)


def _image(places: MediaPaths, name: Any, key: str) -> Path:
    if not isinstance(name, str) or not name:
        raise BadRecord(key, f"the image's file must be a name; got {name!r}")
    if "://" in name:
        raise BadRecord(key, f"{name[:80]!r} is a URL; download the images first: rebus data download")
    try:
        return places.find(name)
    except RebusError as error:
        raise BadRecord(key, str(error)) from None


def _with_texts(image: Path, key: str) -> Record:
    """An image with what lies beside it by its name: captions, and facts."""
    text, facts = image.with_suffix(".txt"), image.with_suffix(".json")
    said: dict[str, Any] = {}
    try:
        if facts.is_file():
            content = read_json(facts)
            said = content if isinstance(content, dict) else {}
        lines = text.read_text("utf-8-sig").splitlines() if text.is_file() else []
    except (OSError, ValueError) as error:
        raise BadRecord(key, f"the file next to it cannot be read: {error}") from None
    captions = tuple(line.strip() for line in lines if line.strip()) or texts_of(said, key)
    return Record(key=key, image=image, captions=captions, facts=said)


def _has_texts(image: Path) -> bool:
    return image.with_suffix(".txt").is_file() or image.with_suffix(".json").is_file()


def _unread(folder: Path, read: Sequence[Path] = ()) -> tuple[str, ...]:
    """A line for each table or JSON file in a folder that is not read, with the reason."""
    found = []
    for file in islice(_other_tables(folder), _MOST_UNREAD):
        if file in read:
            continue
        reason = "another table is read; give this one as the path" if read else "several tables; give one as the path"
        try:
            table = Table.open(file)
            if not _understood(table):
                reason = _reason(table)
        except RebusError as error:
            reason = str(error).removeprefix(f"{file}: ")
        found.append(f"{file}: not read: {reason}")
    return tuple(found)


def _other_tables(folder: Path) -> Iterator[Path]:
    """Tables by their ending, in order of name, but for those that belong to an image."""
    with suppress(OSError), os.scandir(folder) as entries:
        names = {entry.name for entry in entries}
        stems = {name.rpartition(".")[0] for name in names if name.lower().endswith(IMAGES)}
        for name in sorted(names):
            stem, _, ending = name.rpartition(".")
            if f".{ending.lower()}" in ENDINGS and stem not in stems and not name.startswith("."):
                yield folder / name


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


def _reason(table: Table) -> str:
    """Why a table is not understood, and what to do."""
    if file_column(table.columns) is None:
        fetch = f"download the images (rebus data download {table.path} --out DIR) and read DIR"
        web = next((name for name in table.columns if name.lower() in WEB), None)
        if web is not None:
            return f"its column {web} has URLs and none names a file here: {fetch}"
        if any("://" in name for name in table.columns):
            return f"its first line names no columns; write a line such as caption, url above it, then {fetch}"
    return f"its columns are {', '.join(table.columns[:12])}; wanted {wanted()}"


def _table_in(folder: Path) -> Path | None:
    names = ((name, folder / (name + ending)) for name in (*TABLES, *PERHAPS) for ending in ENDINGS)
    there = ((name, path) for name, path in names if path.is_file())
    named = next((path for name, path in there if name in TABLES or _may_be_table(path)), None)
    kaggle = folder / "captions.txt"
    if named is None and kaggle.is_file() and _may_be_table(kaggle):
        return kaggle
    if named is None:
        others = [path for path in islice(_other_tables(folder), _MOST_UNREAD) if _may_be_table(path)]
        return others[0] if len(others) == 1 else None
    return named


def _may_be_table(path: Path) -> bool:
    try:
        return _understood(Table.open(path))
    except BadTable:
        return False


def _tables(path: Path, split: str | None) -> list[Path]:
    """The table of the folder, or those of its splits."""
    own = _table_in(path)
    folders = [folder for folder in _folders(path) if folder.name.lower() in SPLITS]
    named = [] if own else _named_by_split(path)
    tables = [own] if own else named or [table for folder in folders if (table := _table_in(folder))]
    words = [words_of(Path(table.stem) if named else Path(table.parent.name)) for table in tables]
    if own or split is None:
        return tables
    chosen = [table for table, own_words in zip(tables, words) if not names_of(split).isdisjoint(own_words)]
    if tables and not chosen:
        raise _no_split(path, split, sorted({word for own_words in words for word in own_words if word in SPLITS}))
    return chosen


def _named_by_split(path: Path) -> list[Path]:
    """Tables with the words train, val, test in their names."""
    for folder in (path, *(path / name for name in _ANNOTATIONS)):
        tables = [
            file for file in islice(_other_tables(folder), _MOST_UNREAD) if set(words_of(Path(file.stem))) & {*SPLITS}
        ]
        if found := [file for file in tables if _may_be_table(file)]:
            return found
    return []


def _open_images(path: Path, split: str | None) -> ImageReader:
    roots = _roots(path, split)
    found = [(root, file) for root in roots for file in _walk(root)]
    if not found:
        other = "; ".join(_unread(path)) or f"no table of them and no images here ({' '.join(IMAGES)})"
        raise MissingFile(f"{path}: {other}")
    classes = [_class_of(file, root) for root, file in found]
    labels = tuple(sorted({name for name in classes if name is not None}))
    number = {name: n for n, name in enumerate(labels)} | {None: -1}
    own = np.array([number[name] for name in classes], dtype=np.int32)
    captioned = any(_has_texts(file) for _, file in islice(found, _SAMPLED))
    if captioned:  # the folders of img2dataset are numbers
        labels, own = (), np.full(len(found), -1, dtype=np.int32)
    unread = tuple(line for folder in dict.fromkeys([path, *roots]) for line in _unread(folder))
    names = PackedNames.of(str(file.relative_to(path)) for _, file in found)
    return ImageReader(MediaPaths([path]), names, labels, own, unread, captioned)


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
    if not there:
        return NoSplits(f'{path}: no split "{split}"; it has no splits; leave it out')
    return UsageError(f'{path}: no split "{split}"; it has {", ".join(there)}')


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
        elif entry.name.lower().endswith(IMAGES):
            yield folder / entry.name
