"""Multimodal C4: web pages as sentences, each image matched to one; `*.jsonl`, or `*.jsonl.zip` as released.

Zhu et al., "Multimodal C4: An Open, Billion-scale Corpus of Images Interleaved with Text", 2023;
https://github.com/allenai/mmc4. Images fetched beforehand lie by their `image_name` in `images/`, in a folder of it for
each file, or in a folder `<file>_images` beside it, where the authors' `download_images.py` saves them.

Where a page has its similarities, the images that are there are matched again, as OpenFlamingo was trained (Awadalla et
al., 2023): one sentence each, so that the similarities add up to the most, and none below `LEAST_SIMILARITY`.
"""

import json
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from rebus.core.errors import RebusError
from rebus.data.reading.assignment import assign
from rebus.data.reading.byte_lru_cache import ByteLRU
from rebus.data.reading.checked_fields import listed, mapping, number, shown, words
from rebus.data.reading.disk_cache import kept
from rebus.data.reading.line_index import LineIndex, find_lines, first_line, pieces_of
from rebus.data.reading.media_paths import MediaPaths
from rebus.data.reading.shard_files import shards
from rebus.data.record import BadRecord, Record

NAME = "mmc4"
WHAT = "Multimodal C4: docs_*.jsonl or .jsonl.zip, and a folder images/ of the downloaded images"
# Forms that are read, and what each was checked against: a public reader, a dataset card, or memory
CHECKED = (
    ("`docs_*.jsonl`, `docs_*.jsonl.zip`; images in `images/`", "memory; samples written by hand"),
    ("MMC4's images in `docs_*_images/`, `docs_*.jsonl_images/`", "the authors' `scripts/download_images.py`"),
)

LEAST_SIMILARITY = 0.24  # of an image and its sentence, by CLIP
MAX_UNPACKED_BYTES = 4 << 30  # of one zipped file
HELD_BYTES = 1 << 30  # of unpacked files, for each process that reads
_PIECE = 1 << 20
_ENDINGS = (".jsonl", ".jsonl.zip")
_DAMAGE = (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)


def recognises(path: Path) -> bool:
    files = [path] if path.is_file() else sorted(path.glob("*.jsonl*"))
    if not files or not files[0].name.endswith(_ENDINGS):
        return False
    try:
        page = json.loads(first_line(_pieces(files[0])))
    except (*_DAMAGE, ValueError):
        return False
    return isinstance(page, dict) and {"text_list", "image_info"} <= page.keys()


def open(path: Path, split: str | None = None) -> "MMC4":
    return MMC4(path, split)


class MMC4:
    """One record a page: each image before the sentence it is matched to; sentences in between joined by a space.

    Images that are not there are left out and counted in `facts["missing"]`, those that fit no sentence in
    `facts["unmatched"]`; a page without any is a `BadRecord`. A
    file that cannot be unpacked counts as one damaged record. The first opening reads all files to find their lines,
    which the cache keeps. Unzip the files to read pages in any order without holding whole files in memory. Raises
    `MissingFile` and `UsageError` for no files or no such split, `RebusError` when none can be read.
    """

    labels: tuple[str, ...] = ()

    def __init__(self, path: Path, split: str | None = None):
        self._files = shards(path, _ENDINGS, split)
        self._broken: dict[int, str] = {}
        sizes = []
        for block, file in enumerate(self._files):
            try:
                sizes.append(len(_lines(file)))
            except (*_DAMAGE, RebusError) as error:
                self._broken[block] = f"cannot be unpacked: {error}"
                sizes.append(1)
        if len(self._broken) == len(self._files):
            raise RebusError(f"{self._files[0]}: {self._broken[0]}")
        self.sizes = tuple(sizes)
        self._places = [_places(file) for file in self._files]
        self._held: ByteLRU[Any] = ByteLRU(HELD_BYTES)

    def read(self, block: int, row: int) -> Record:
        file = self._files[block]
        if block in self._broken:
            raise BadRecord(file.name, self._broken[block])
        lines = self._held.get((block, "lines"), lambda: (found := _lines(file), found.begins.nbytes))
        if not 0 <= row < len(lines):
            raise IndexError(row)
        key = f"{file.name}:{lines.number(row)}"
        try:
            return _record(key, self._line(block, lines, row, key), self._places[block])
        except BadRecord:
            raise
        except (*_DAMAGE, RebusError) as error:
            raise BadRecord(key, str(error)) from None

    def _line(self, block: int, lines: LineIndex, row: int, key: str) -> bytes:
        file = self._files[block]
        if file.suffix != ".zip":
            with file.open("rb") as opened:
                return lines.read(opened, row, key)
        begin, end = lines.span(row)
        content: bytes = self._held.get(block, lambda: (b"".join(_pieces(file)), lines.stop))[begin:end]
        return content


def _record(key: str, line: bytes, places: MediaPaths) -> Record:
    """Raises `RebusError` for a damaged page, and for one without any of its images."""
    try:
        content = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RebusError(f"damaged JSON: {error}") from None
    page = mapping(content, "a page")
    texts, images = listed(page, "text_list"), listed(page, "image_info")
    for at, text in enumerate(texts):
        if not isinstance(text, str):
            raise RebusError(f"text_list: item {at} is not a text")
    found: dict[int, tuple[Path, int, float | None]] = {}  # its place → its file, its sentence, how well they match
    missing: list[str] = []
    for place, item in enumerate(images):
        at, name, match = _matched(mapping(item, "an entry of image_info"), len(texts))
        try:
            found[place] = places.find(name), at, match
        except RebusError as error:
            missing.append(str(error))
    if not found:
        raise RebusError(f"none of its images: {missing[0]}" if missing else "a page without images")
    there = len(found)
    if page.get("similarity_matrix") is not None:
        found = _matched_anew(found, _similarities(page, len(images), len(texts)))
    before: dict[int, list[tuple[Path, float | None]]] = {}
    for path, at, match in found.values():
        before.setdefault(at, []).append((path, match))
    document: list[str | Path] = []
    for at, text in enumerate(texts):
        document += [path for path, _ in before.get(at, ())]
        last = document[-1] if document else None
        if isinstance(last, str):
            document[-1] = f"{last} {text}"
        else:
            document.append(text)
    facts: dict[str, Any] = {name: page[name] for name in ("url", "could_have_url_duplicate") if name in page}
    matches = tuple(match for at in sorted(before) for _, match in before[at])
    facts |= {"matched_sim": matches, "missing": len(missing), "unmatched": there - len(found)}
    return Record(key=key, document=tuple(document), facts=facts)


def _similarities(page: dict[str, Any], images: int, texts: int) -> np.ndarray:
    """(images, sentences), as a page states them."""
    rows = listed(page, "similarity_matrix")
    try:
        values = np.array(rows, dtype=np.float64)
    except (ValueError, TypeError, OverflowError):
        values = np.empty(0)
    if values.shape != (images, texts) or not np.isfinite(values).all():
        raise RebusError(f"similarity_matrix should hold {images} rows of {texts} numbers")
    return values


def _matched_anew(
    images: dict[int, tuple[Path, int, float | None]], similarities: np.ndarray
) -> dict[int, tuple[Path, int, float | None]]:
    """Raises `RebusError` where no image is like its sentence."""
    there = list(images)
    found: dict[int, tuple[Path, int, float | None]] = {}
    for row, at in assign(similarities[there]):
        match = float(similarities[there[row], at])
        if match >= LEAST_SIMILARITY:
            found[there[row]] = images[there[row]][0], at, match
    if not found:
        raise RebusError(f"none of its images matches a sentence: similarities below {LEAST_SIMILARITY}")
    return found


def _matched(item: dict[str, Any], num_texts: int) -> tuple[int, str, float | None]:
    """The sentence, the name of the image, and how well they match."""
    at = item.get("matched_text_index")
    if not isinstance(at, int) or isinstance(at, bool) or not 0 <= at < num_texts:
        raise RebusError(f"matched_text_index should be 0 to {num_texts - 1}; got {shown(at)}")
    return at, words(item, "image_name"), number(item, "matched_sim") if "matched_sim" in item else None


def _places(file: Path) -> MediaPaths:
    """Names of different files may be the same image, so a folder of the file's own comes first."""
    stem = file.name.removesuffix(".zip").removesuffix(".jsonl")
    own = [stem, *(match[1] for match in [re.search(r"shard_(\d+)", stem)] if match)]
    bases = [base / "images" for base in (file.parent, file.parent.parent)]
    names = (
        stem,
        file.name.removesuffix(".zip"),
        Path(file.name).stem,
    )  # as the script names them, of zipped files too
    saved = [base / f"{name}_images" for base in (file.parent, *bases) for name in dict.fromkeys(names)]
    return MediaPaths([*saved, *(base / name for base in bases for name in own), *bases])


def _lines(file: Path) -> LineIndex:
    return LineIndex.from_arrays(kept("mmc4", [file], lambda: find_lines(_pieces(file)).to_arrays()))


def _pieces(file: Path) -> Iterator[bytes]:
    if file.suffix != ".zip":
        yield from pieces_of(file)
        return
    with zipfile.ZipFile(file) as archive:
        inside = next((i for i in archive.infolist() if i.filename.endswith((".jsonl", ".json"))), None)
        if inside is None:
            raise RebusError(f"{file}: no .jsonl inside")
        if inside.file_size > MAX_UNPACKED_BYTES:
            raise RebusError(f"{file}: {inside.file_size:,} bytes unpacked; at most {MAX_UNPACKED_BYTES:,} are read")
        with archive.open(inside) as content:
            yield from _until_end(content)


def _until_end(content: IO[bytes]) -> Iterator[bytes]:
    while piece := content.read(_PIECE):
        yield piece
