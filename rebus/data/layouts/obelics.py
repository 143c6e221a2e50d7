"""OBELICS: web pages as texts and images in turn, in Parquet files or lines of JSON; images by address, or with their
bytes.

Laurençon et al., "OBELICS: An Open Web-Scale Filtered Dataset of Interleaved Image-Text Documents", 2023;
https://huggingface.co/datasets/HuggingFaceM4/OBELICS. Of the lists `images` and `texts`, one holds null wherever the
other does not. Images fetched beforehand lie in `images/` or `images/`, named by the SHA-256 of their address, with
or without an ending, at once or in folders of its first two digits; or `pictures.json` maps addresses to files.
"""

import json
from pathlib import Path
from typing import Any

from rebus.core.errors import RebusError
from rebus.data.reading.fetched_images import FetchedImages
from rebus.data.reading.line_index import first_line, pieces_of
from rebus.data.reading.parquet_groups import ParquetGroups, first_schema
from rebus.data.reading.shard_files import shards
from rebus.data.reading.tables import Table
from rebus.data.record import BadRecord, Encoded, Record

NAME = "obelics"
WHAT = "OBELICS: Parquet files with the columns images and texts, and a folder of the downloaded images"
# Forms that are read, and what each was checked against: a public reader, a dataset card, or memory
CHECKED = (
    (
        "Parquet with lists `images` and `texts` of addresses, bytes and texts",
        "the dataset card; samples written by hand",
    ),
    ("JSONL with the same lists", "what `rebus data download` takes; samples written by hand"),
)


def recognises(path: Path) -> bool:
    tables = _tables(path)
    if tables:
        return _is_page_of_json(tables[0])
    schema = first_schema(path)
    return schema is not None and _is_page(schema)


def _tables(path: Path) -> list[Path]:
    """The lines of JSON there, where there is no Parquet file."""
    if path.is_file():
        return [path] if path.suffix == ".jsonl" else []
    near = [sorted(folder.glob(name)) for name in ("*.parquet", "*.jsonl") for folder in (path, path / "data")]
    return [] if near[0] or near[1] else near[2] or near[3]


def _is_page_of_json(file: Path) -> bool:
    try:
        page = json.loads(first_line(pieces_of(file)))
    except (OSError, ValueError, RecursionError):
        return False
    images, texts = (page.get("images"), page.get("texts")) if isinstance(page, dict) else (None, None)
    if not isinstance(images, list) or not isinstance(texts, list) or len(images) != len(texts):
        return False
    return None in images + texts and all(text is None or isinstance(text, str) for text in texts)


def _is_page(schema: Any) -> bool:
    """Whether `texts` are texts: The Cauldron's columns have the same names, and its texts are conversations."""
    from pyarrow import types

    if not {"images", "texts"} <= set(schema.names):
        return False
    kind = schema.field("texts").type
    listed = types.is_list(kind) or types.is_large_list(kind)
    return listed and (types.is_string(kind.value_type) or types.is_large_string(kind.value_type))


def open(path: Path, split: str | None = None) -> "Obelics":
    return Obelics(path, split)


class Obelics:
    """One record a page; images that are not there are left out and counted in `facts["missing"]`.

    A page without any of its images is a `BadRecord`. A Parquet file that is none counts as one damaged record.
    Raises `MissingExtra` without pyarrow, `MissingFile` and `UsageError` for no files or no such split, `RebusError`
    when none of the files can be read.
    """

    labels: tuple[str, ...] = ()

    def __init__(self, path: Path, split: str | None = None):
        self._rows: ParquetGroups | _Lines
        if _tables(path):
            self._rows = _Lines(_tables(path), split)
        else:
            self._rows = ParquetGroups(path, split, ("images", "texts"), ("metadata", "general_metadata"))
        self.sizes = self._rows.sizes
        self._fetched = FetchedImages(path if path.is_dir() else path.parent)

    def read(self, block: int, row: int) -> Record:
        key, page = self._rows.key(block, row), self._rows.row(block, row)
        try:
            document, missing = self._document(page)
        except RebusError as error:
            raise BadRecord(key, str(error)) from None
        facts: dict[str, Any] = {name: page[name] for name in ("metadata", "general_metadata") if name in page}
        return Record(key=key, document=tuple(document), facts={**facts, "missing": missing})

    def _document(self, page: dict[str, Any]) -> tuple[list[str | Encoded], int]:
        images, texts = page.get("images"), page.get("texts")
        if not isinstance(images, list) or not isinstance(texts, list) or len(images) != len(texts):
            raise RebusError("images and texts are not lists of the same length")
        document: list[str | Encoded] = []
        missing: list[str] = []
        for at, (image, text) in enumerate(zip(images, texts)):
            if (image is None) == (text is None):
                raise RebusError(f"item {at} should be either a text or an image")
            if text is not None:
                document.append(text)
                continue
            try:
                document.append(self._fetched.find(image))
            except RebusError as error:
                missing.append(str(error))
        if len(missing) == sum(image is not None for image in images):
            raise RebusError(f"none of its images: {missing[0]}" if missing else "a page without images")
        return document, len(missing)


class _Lines:
    """Tables of JSON, read as `ParquetGroups` is."""

    def __init__(self, files: list[Path], split: str | None):
        if split is not None:
            files = [file for file in files if file in shards(files[0].parent, [".jsonl"], split)]
        self._tables = [Table.open(file) for file in files]
        self.sizes = tuple(len(table) for table in self._tables)

    def key(self, block: int, row: int) -> str:
        return self._tables[block].key(row)

    def row(self, block: int, row: int) -> dict[str, Any]:
        return self._tables[block].row(row)
