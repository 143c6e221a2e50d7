"""OBELICS: web pages as texts and images in turn, in Parquet files; images by address, or with their bytes.

Laurençon et al., "OBELICS: An Open Web-Scale Filtered Dataset of Interleaved Image-Text Documents", 2023;
https://huggingface.co/datasets/HuggingFaceM4/OBELICS. Of the lists `images` and `texts`, one holds null wherever the
other does not. Images fetched beforehand lie in `pictures/` or `images/`, named by the SHA-256 of their address, with
or without an ending, at once or in folders of its first two digits; or `pictures.json` maps addresses to files.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rebus.core.errors import MissingExtra, RebusError
from rebus.data.reading.byte_lru_cache import ByteLRU
from rebus.data.reading.checked_fields import mapping
from rebus.data.reading.json_spans import read_json
from rebus.data.reading.media_paths import MediaPaths
from rebus.data.reading.shard_files import shards
from rebus.data.record import BadRecord, Encoded, Record

NAME = "obelics"
WHAT = "OBELICS: Parquet files with the columns images and texts, and a folder of the images fetched"
# Forms that are read, and what each was checked against: a public reader, a dataset card, or memory
CHECKED = (
    ("Parquet with lists `images` and `texts` of addresses, bytes and texts", "memory; samples written by hand"),
)

HELD_BYTES = 1 << 30  # of row groups, for each process that reads
_COLUMNS = ("images", "texts", "metadata", "general_metadata")
_ENDINGS = ("", ".jpg", ".jpeg", ".png", ".webp", ".gif")


def recognises(path: Path) -> bool:
    near = [path] if path.is_file() else [*sorted(path.glob("*.parquet")), *sorted(path.glob("data/*.parquet"))]
    if not near or near[0].suffix != ".parquet":
        return False
    parquet = _parquet()
    try:
        return _is_page(parquet.read_schema(near[0]))
    except _damage():
        return False


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

    A page without any of its images is a `BadRecord`. A file that is no Parquet file counts as one damaged record.
    Raises `MissingExtra` without pyarrow, `MissingFile` and `UsageError` for no files or no such split, `RebusError`
    when none of the files can be read.
    """

    labels: tuple[str, ...] = ()

    def __init__(self, path: Path, split: str | None = None):
        self._root = path if path.is_dir() else path.parent
        self._groups: list[tuple[Path, int, str]] = []  # file, row group, why it cannot be read
        sizes = []
        for file in shards(path, [".parquet"], split):
            for group, rows, reason in _groups(file):
                self._groups.append((file, group, reason))
                sizes.append(rows)
        if all(reason for _, _, reason in self._groups):
            file, _, reason = self._groups[0]
            raise RebusError(f"{file}: {reason}")
        self.sizes = tuple(sizes)
        self._pictures = _Fetched(self._root)
        self._held: ByteLRU[Any] = ByteLRU(HELD_BYTES)

    def read(self, block: int, row: int) -> Record:
        file, group, reason = self._groups[block]
        key = f"{file.name}:{group}:{row}"
        if reason:
            raise BadRecord(key, reason)
        if not 0 <= row < self.sizes[block]:
            raise IndexError(row)
        try:
            table = self._held.get(block, lambda: _table(file, group))
            page = table.slice(row, 1).to_pylist()[0]
            document, missing = self._document(page)
        except _damage() as error:
            raise BadRecord(key, f"damaged Parquet file: {_first_line(error)}") from None
        except RebusError as error:
            raise BadRecord(key, str(error)) from None
        facts = {name: page[name] for name in ("metadata", "general_metadata") if name in page}
        return Record(key=key, document=tuple(document), facts={**facts, "missing": missing})

    def _document(self, page: dict[str, Any]) -> tuple[list[str | Encoded], int]:
        images, texts = page["images"], page["texts"]
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
                document.append(self._pictures.find(image))
            except RebusError as error:
                missing.append(str(error))
        if len(missing) == sum(image is not None for image in images):
            raise RebusError(f"none of its images: {missing[0]}" if missing else "a page without images")
        return document, len(missing)


class _Fetched:
    """Images by address, as they were fetched."""

    def __init__(self, root: Path):
        self._root = root
        self._folders = [f for f in (root / "pictures", root / "images", root.parent / "images") if f.is_dir()]
        self._map = next((f for f in (root / "pictures.json", root.parent / "pictures.json") if f.is_file()), None)
        self._names: dict[str, Any] | None = None

    def find(self, image: Any) -> Encoded:
        """Raises `RebusError` when it is not there."""
        if isinstance(image, dict):  # an image as the Hub's tools write it
            if image.get("bytes"):
                return bytes(image["bytes"])
            image = image.get("path")
        if isinstance(image, bytes):
            return image
        if not isinstance(image, str) or not image:
            raise RebusError("an image without bytes and address")
        named = self._named().get(image)
        if isinstance(named, str) and self._map is not None:
            return MediaPaths([self._map.parent]).find(named)
        digest = hashlib.sha256(image.encode()).hexdigest()
        for folder in self._folders:
            for name in (digest, f"{digest[:2]}/{digest}"):
                for ending in _ENDINGS:
                    path = folder / f"{name}{ending}"
                    if path.is_file():
                        return path
        raise RebusError(f"{image} was not fetched: there is no {digest[:12]}… in pictures/ or images/")

    def _named(self) -> dict[str, Any]:
        if self._names is None:
            self._names = mapping(read_json(self._map), self._map.name) if self._map else {}
        return self._names

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_names": None}  # read again where it is needed


def _groups(file: Path) -> Iterator[tuple[int, int, str]]:
    """Number, rows and what is wrong, for each row group of a file."""
    parquet = _parquet()
    try:
        with parquet.ParquetFile(file) as opened:
            about = opened.metadata
            lost = {"images", "texts"} - set(opened.schema_arrow.names)
            if lost:
                yield 0, 1, f"no column {' and no column '.join(sorted(lost))}"
                return
            yield from ((group, about.row_group(group).num_rows, "") for group in range(about.num_row_groups))
    except _damage() as error:
        yield 0, 1, f"damaged Parquet file: {_first_line(error)}"


def _table(file: Path, group: int) -> tuple[Any, int]:
    with _parquet().ParquetFile(file) as opened:
        names = [name for name in _COLUMNS if name in opened.schema_arrow.names]
        table = opened.read_row_group(group, columns=names, use_threads=False)
    return table, table.nbytes


def _parquet() -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise MissingExtra("data", "reading Parquet files") from None
    return pyarrow.parquet


def _damage() -> tuple[type[Exception], ...]:
    """What pyarrow raises for damaged files."""
    import pyarrow

    return pyarrow.ArrowException, OSError, UnicodeDecodeError


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
