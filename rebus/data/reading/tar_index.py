"""Where the records of a tar lie: found by its headers alone, once, and kept, so that each can be read alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from rebus.core.errors import MissingFile, UsageError
from rebus.data.reading.disk_cache import Arrays, check_unchanged, kept
from rebus.data.reading.packed_names import PackedNames
from rebus.data.reading.tar_members import TarDamage
from rebus.data.reading.tar_members import members as tar_members

IMAGES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "heic", "ppm")
TEXTS = ("txt", "caption")
ENDINGS = (*IMAGES, *TEXTS, "json", "cls", *(f"{ending}.gz" for ending in (*TEXTS, "json", "cls")))


@dataclass(frozen=True)
class Index:
    """Where the members of a tar's records lie."""

    keys: PackedNames
    firsts: np.ndarray  # int64 (records + 1,): the first member of each
    kinds: np.ndarray  # uint8 (members,): numbers of ENDINGS
    starts: np.ndarray  # int64 (members,): bytes
    sizes: np.ndarray  # int64 (members,): bytes


@lru_cache(maxsize=64)
def index_of(file: Path, size: int, changed: int) -> Index:
    check_unchanged(file, (size, changed))
    arrays = kept_scan(file)
    return Index(
        PackedNames.from_arrays(arrays, "keys"), *(arrays[name] for name in ("firsts", "kinds", "starts", "sizes"))
    )


def kept_scan(file: Path) -> Arrays:
    return kept("tar-index", [file], lambda: scan(file))


def scan(file: Path) -> Arrays:
    """The arrays of an `Index`; `fault`: one text, empty for a whole tar; `extras`: names of images that are left out
    since they are further ones of a sample."""
    check_plain(file)
    records: dict[str, list[tuple[int, int, int]]] = {}
    fault = ""
    try:
        for key, kind, start, size in _members(file):
            records.setdefault(key, []).append((kind, start, size))
    except _Cut as cut:
        _drop_unfinished(records, cut.key)
        fault = str(cut)
    extras = _take_extras(records)
    if fault:
        fault = f"{file}: {fault}; the {len(records):,} records before that are read"
    members = np.array([m for own in records.values() for m in own], dtype=np.int64).reshape(-1, 3)
    return {
        **PackedNames.of(records).to_arrays("keys"),
        "firsts": np.cumsum([0, *(len(own) for own in records.values())]).astype(np.int64),
        "kinds": members[:, 0].astype(np.uint8),
        "starts": members[:, 1].copy(),
        "sizes": members[:, 2].copy(),
        **PackedNames.of([fault]).to_arrays("fault"),
        **PackedNames.of(extras).to_arrays("extras"),
    }


class _Cut(Exception):
    """Where a tar ends too early. `key`: of the record in which it does, if that is known."""

    def __init__(self, reason: str, key: str = ""):
        super().__init__(reason)
        self.key = key


def _members(file: Path) -> Iterator[tuple[str, int, int, int]]:
    """(key, number of the ending, first byte, bytes) of each member that we know. Raises `_Cut`."""
    whole = file.stat().st_size
    try:
        for member in tar_members(file):
            key, ending = _parted(member.name)
            if not member.plain or ending not in ENDINGS:
                continue
            if member.start + member.size > whole:
                raise _Cut(f"truncated at byte {whole:,}, within {member.name}", key)
            yield key, ENDINGS.index(ending), member.start, member.size
    except TarDamage as damage:
        raise _Cut(str(damage), _parted(damage.name)[0]) from None
    except OSError as error:
        raise _Cut(f"cannot be read: {error.strerror}") from None


def _parted(name: str) -> tuple[str, str]:
    """Key and ending: "a/b.jpg" is "a/b" and "jpg", as webdataset has it; "b.v2.jpg" is "b.v2" and "jpg" here."""
    folder, slash, base = name.rpartition("/")
    lower = base.lower()
    for ending in ENDINGS:
        key = base[: -len(ending) - 1]
        if key and lower.endswith(f".{ending}"):
            return folder + slash + key, ending
    return name, ""


def _take_extras(records: dict[str, list[tuple[int, int, int]]]) -> list[str]:
    """Remove further images of a sample ("1.seg.png" of the sample "1"), and give their names: dotted names that have
    images alone, beside a record of the key that webdataset sees there, the name up to its first dot. In a tar of
    images alone nothing tells that they belong to others, and each is a record."""
    alone = {key for key, members in records.items() if all(ENDINGS[kind] in IMAGES for kind, _, _ in members)}
    if len(alone) == len(records):
        return []
    found: list[str] = []
    for key in [key for key in records if key in alone]:
        folder, slash, base = key.rpartition("/")
        first = folder + slash + base.partition(".")[0]
        if first != key and first in records:
            found += [f"{key}.{ENDINGS[kind]}" for kind, _, _ in records.pop(key)]
    return found


def _drop_unfinished(records: dict[str, list[tuple[int, int, int]]], key: str) -> None:
    """Remove the record in which a tar ends: the one named, or the last unless it has as many members as the others."""
    if key:
        records.pop(key, None)
        return
    tail = [len(own) for own in records.values()][-2:]
    if len(tail) == 1 or (len(tail) == 2 and tail[1] < tail[0]):
        records.popitem()


def check_plain(file: Path) -> None:
    try:
        with file.open("rb") as tar:
            first = tar.read(6)
    except OSError as error:
        raise MissingFile(f"{file}: cannot be read: {error.strerror}") from None
    packed = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ": "xz", b"BZh": "bzip2"}
    for sign, name in packed.items():
        if first.startswith(sign):
            raise UsageError(
                f"{file}: a tar compressed with {name}, in which no record can be found without reading all before it; "
                "unpack it to a plain .tar first (images in it are compressed already)"
            )
