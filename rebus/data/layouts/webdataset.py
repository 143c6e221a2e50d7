"""Tars of images with texts, as webdataset and img2dataset write them: 000000012.jpg, 000000012.txt, 000000012.json.

Each tar is scanned once, headers only, and the places of its members are kept, so that every record can be read alone.
Members of one key (the name up to its ending) are one record: an image, its texts (`.txt`, `.caption`, a caption a
line; of the JSON, `captions`, or `caption`, `text`, `title` where there is neither), its label (`.cls`, a name or the
number of a line of `classnames.txt` beside the tars), and its facts, with the `boxes`, `questions` and `phrases` that
rebus writes (`.json`). Texts may be gzipped (`.json.gz`). Further images of a sample (`1.seg.png` beside `1.jpg` and
`1.txt`) are counted and left out; other members, and what img2dataset leaves beside the tars, are no records. A tar
that is cut or damaged gives what comes before the damage and is named in `faults`. The sentences of CLIP_benchmark's
`zeroshot_classification_templates.txt` beside the tars are `templates`.

https://github.com/webdataset/webdataset, https://github.com/rom1504/img2dataset
"""

import logging
import os
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from rebus.core.errors import MissingFile, RebusError
from rebus.data.reading.disk_cache import Arrays, kept, stamp
from rebus.data.reading.packed_names import PackedNames
from rebus.data.reading.row_to_record import LISTS, record_of, texts_of
from rebus.data.reading.row_to_record import TEXTS as TEXT_COLUMNS
from rebus.data.reading.shard_files import is_pattern, shards
from rebus.data.reading.tables import json_row
from rebus.data.reading.tar_index import ENDINGS, IMAGES, TEXTS, Index, check_plain, index_of, kept_scan
from rebus.data.record import BadRecord, Record

NAME = "webdataset"
WHAT = "tars of images with texts, as webdataset and img2dataset write them"
# Forms that are read, and what each was checked against: a public reader, a dataset card, or memory
CHECKED = (
    ("tars of `.jpg`, `.txt`, `.json`, `.cls`", "memory; samples written by hand"),
    (
        "CLIP_benchmark's `classnames.txt` and `zeroshot_classification_templates.txt` beside them",
        "memory; samples written by hand",
    ),
)

CLASSES = "classnames.txt"
TEMPLATES = "zeroshot_classification_templates.txt"
ZIPPED = (".tar.gz", ".tgz", ".tar.zst", ".tar.xz", ".tar.bz2")
MAX_TEXT_BYTES = 16 << 20  # of a member that is no image
MAX_IMAGE_BYTES = 1 << 30  # of an image here; what may be decoded has its own limit

Progress = Callable[[int, int], None]  # tars done, tars in all

log = logging.getLogger("rebus")


def recognises(path: Path) -> bool:
    if path.is_dir():
        return any(name.endswith((".tar", *ZIPPED)) for _, _, names in os.walk(path) for name in names)
    return path.name.endswith((".tar", *ZIPPED))


def open(path: Path, split: str | None, progress: Progress | None = None) -> "WebDataset":
    """A reader of the tars that `path` means: a folder, one tar, or a pattern ("train-{00000..00010}.tar").

    The first opening scans every tar; `progress` hears how far that is. Raises `MissingFile`, `UsageError` for
    compressed tars and for splits that no name tells, `RebusError` when there is nothing readable in any tar.
    """
    endings = (".tar",) if path.is_file() or is_pattern(path) or _any_tar(path) else (".tar", *ZIPPED)
    files = shards(path, endings, split)
    if files[0].name.endswith(ZIPPED):
        check_plain(files[0])
    found = kept("tar-sizes", files, lambda: _scan_all(files, progress))
    stamps = tuple(stamp(file) for file in files)
    damage = PackedNames.from_arrays(found, "faults")
    reader = WebDataset(
        tuple(files), stamps, found["sizes"], damage, _lines_of(CLASSES, files[0]), _templates(files[0])
    )
    if len(extras := PackedNames.from_arrays(found, "extras")):
        _tell(f"{path}: {int(found['more'].sum()):,} further images of samples are not read, the first {extras[0]}")
    if not sum(reader.sizes):
        raise RebusError(next(iter(reader.faults), f"{path}: no images or texts in these tars ({', '.join(ENDINGS)})"))
    return reader


@dataclass(frozen=True)
class WebDataset:
    """A block is a tar."""

    files: tuple[Path, ...]
    stamps: tuple[tuple[int, int], ...]
    counts: np.ndarray
    damage: PackedNames  # of each tar; "" for whole ones
    classes: tuple[str, ...] = ()  # what the numbers in `.cls` mean
    templates: tuple[str, ...] = ()  # sentences with {} around a class, for zero-shot classification

    @property
    def sizes(self) -> Sequence[int]:
        """Of a damaged tar, the records before the damage."""
        return self.counts.tolist()

    @property
    def labels(self) -> Sequence[str]:
        """The lines of `classnames.txt` beside the tars, or what the `.cls` and the JSON members say, numbers in their
        order. The first time, this reads them all."""
        if self.classes:
            return self.classes
        names = kept("tar-labels", self.files, lambda: {"names": np.array([*self._said()], dtype=np.str_)})["names"]
        return tuple(sorted({str(name) for name in names}, key=lambda name: (len(name) if name.isdigit() else 0, name)))

    @property
    def faults(self) -> tuple[str, ...]:
        """A line for each damaged tar."""
        return tuple(self.damage[n] for n in range(len(self.damage)) if self.damage[n])

    def read(self, block: int, row: int) -> Record:
        file = self.files[block]
        try:
            index = index_of(file, *self.stamps[block])
        except MissingFile as error:
            raise BadRecord(f"{file.name}[{row}]", str(error)) from None
        key = f"{file.name}:{index.keys[row]}"
        try:
            with file.open("rb") as tar:
                members = _members_of(tar, index, row, key)
        except OSError as error:
            raise BadRecord(key, f"cannot be read: {error.strerror}") from None
        return _record(members, key, self.classes)

    def _said(self) -> set[str]:
        """All labels of things and of images; damaged records say none."""
        names: set[str] = set()
        for file, (size, changed) in zip(self.files, self.stamps):
            index = index_of(file, size, changed)
            with file.open("rb") as tar:
                for row in range(len(index.keys)):
                    with suppress(BadRecord):
                        members = _members_of(tar, index, row, "", ("cls", "json"))
                        said = _annotations(members, (), "")
                        names |= {thing.label for thing in said.things} | ({said.label} if said.label else set())
        return names


def _members_of(tar: Any, index: Index, row: int, key: str, wanted: Collection[str] = ENDINGS) -> dict[str, bytes]:
    """Ending → bytes, those of `wanted`, unpacked."""
    members: dict[str, bytes] = {}
    for n in range(int(index.firsts[row]), int(index.firsts[row + 1])):
        ending = ENDINGS[index.kinds[n]]
        plain = ending.removesuffix(".gz")
        if plain not in wanted:
            continue
        if plain in members:
            raise BadRecord(key, f"two members .{plain} of one name")
        data = _read(tar, int(index.starts[n]), int(index.sizes[n]), ending, key)
        members[plain] = data if plain == ending else _inflated(data, ending, key)
    return members


def _record(members: Mapping[str, bytes], key: str, classes: Sequence[str]) -> Record:
    images = [data for ending, data in members.items() if ending in IMAGES]
    if len(images) != 1:
        there = ", ".join(f".{ending}" for ending in members)
        raise BadRecord(key, f"{'no image' if not images else 'more than one image'} among {there}")
    said = _annotations(members, classes, key)
    captions, used = _captions(members, said.facts, key)
    facts = {name: value for name, value in said.facts.items() if name not in used}
    return replace(said, image=images[0], captions=captions, facts=facts)


def _annotations(members: Mapping[str, bytes], classes: Sequence[str], key: str) -> Record:
    """Label, things, questions and phrases; the rest of the JSON as facts."""
    row = json_row(members["json"], key) if "json" in members else {}
    said = {name: row[name] for name in LISTS if isinstance(row.get(name), list)}  # others' JSON may mean else by these
    if isinstance(row.get("label"), str | int):
        said["label"] = row["label"]
    record = record_of(said, key, None)
    label = _class(_text(members["cls"], "cls", key).strip(), classes, key) if "cls" in members else record.label
    return replace(record, label=label, facts={name: value for name, value in row.items() if name not in said})


def _captions(members: Mapping[str, bytes], row: Mapping[str, Any], key: str) -> tuple[tuple[str, ...], Sequence[str]]:
    """The texts of a sample, and the names of the JSON that said them.

    A text file with more lines has a caption a line, as CLIP_benchmark's sets do, unless the JSON says the same text
    in one piece, as img2dataset does for a text with line breaks in it.
    """
    if isinstance(row.get("captions"), list):
        return texts_of({"captions": row["captions"]}, key), ("captions", "caption")
    texts = [_text(members[ending], ending, key).strip() for ending in TEXTS if ending in members]
    if not texts:
        return texts_of(row, key), TEXT_COLUMNS
    whole = str(row.get("caption") or "").strip()
    found: list[str] = []
    for text in texts:
        lines = [text] if text == whole else [line.strip() for line in text.split("\n")]
        before = set(found)
        found += [line for line in lines if line and line not in before]
    return tuple(found), ("caption",)  # img2dataset writes the text twice


def _class(text: str, classes: Sequence[str], key: str) -> str | None:
    if not classes or not text.isdecimal():
        return text or None
    if int(text) >= len(classes):
        raise BadRecord(key, f"class {text[:20]}; {CLASSES} names {len(classes)}")
    return classes[int(text)]


def _inflated(data: bytes, ending: str, key: str) -> bytes:
    member = zlib.decompressobj(wbits=31)
    try:
        plain = member.decompress(data, MAX_TEXT_BYTES + 1)
    except zlib.error as error:
        raise BadRecord(key, f".{ending} is damaged ({error})") from None
    if len(plain) > MAX_TEXT_BYTES:
        raise BadRecord(key, f".{ending} has more than the {MAX_TEXT_BYTES:,} bytes that are read")
    if not member.eof:
        raise BadRecord(key, f".{ending} is truncated")
    return plain


def _text(data: bytes, ending: str, key: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadRecord(key, f".{ending} is not UTF-8 (byte {error.start})") from None


def _read(tar: Any, start: int, size: int, ending: str, key: str) -> bytes:
    most = MAX_IMAGE_BYTES if ending in IMAGES else MAX_TEXT_BYTES
    if size > most:
        raise BadRecord(key, f".{ending} has {size:,} bytes; at most {most:,} are read")
    tar.seek(start)
    data = tar.read(size)
    if len(data) < size:
        raise BadRecord(key, "the tar has become shorter since it was opened")
    return data


def _templates(file: Path) -> tuple[str, ...]:
    """CLIP_benchmark's sentences around a class, its {c} as our {}."""
    lines = _lines_of(TEMPLATES, file)
    for line in lines:
        if "{c}" not in line:
            raise RebusError(f"{TEMPLATES} beside {file}: a sentence has {{c}} where the class goes; got {line[:80]!r}")
    return tuple(line.replace("{c}", "{}") for line in lines)


def _lines_of(name: str, file: Path) -> tuple[str, ...]:
    """The lines of a file in the folder of a tar or the one above, where CLIP_benchmark keeps it; () without it."""
    path = next((p for p in (file.parent / name, file.parent.parent / name) if p.is_file()), None)
    if path is None:
        return ()
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RebusError(f"{path}: cannot be read: {error}") from None
    return tuple(line.strip() for line in lines if line.strip())


def _any_tar(path: Path) -> bool:
    return any(name.endswith(".tar") for _, _, names in os.walk(path) for name in names)


def _scan_all(files: Sequence[Path], progress: Progress | None) -> Arrays:
    sizes, faults, more, extras = [], [], [], []
    for number, file in enumerate(files):
        arrays = kept_scan(file)
        sizes.append(len(arrays["firsts"]) - 1)
        faults.append(PackedNames.from_arrays(arrays, "fault")[0])
        names = PackedNames.from_arrays(arrays, "extras")
        more.append(len(names))
        if len(names):
            extras.append(f"{file.name}:{names[0]}")
        if progress is not None:
            progress(number + 1, len(files))
    return {
        "sizes": np.array(sizes, dtype=np.int64),
        "more": np.array(more, dtype=np.int64),
        **PackedNames.of(faults).to_arrays("faults"),
        **PackedNames.of(extras).to_arrays("extras"),
    }


@lru_cache(maxsize=1_000)  # once, however often a data set is opened
def _tell(line: str) -> None:
    log.warning("%s", line)
