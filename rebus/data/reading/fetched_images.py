"""Images of pages by their web address, as they were fetched before."""

import hashlib
import tarfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rebus.core.errors import RebusError
from rebus.data.reading.checked_fields import count, mapping, words
from rebus.data.reading.disk_cache import Arrays, kept
from rebus.data.reading.json_spans import read_json
from rebus.data.reading.media_paths import MediaPaths
from rebus.data.reading.tables import json_row
from rebus.data.record import Encoded

FOLDERS = ("pictures", "images")
_ENDINGS = ("", ".jpg", ".jpeg", ".png", ".webp", ".gif")
_JOURNAL = "journal.jsonl"  # of `rebus data download`


class FetchedImages:
    """Those beside a data set in `root`: shards that `rebus data download` wrote into `pictures/` or `images/` there;
    files there named by the SHA-256 of their address, with or without an ending, at once or in folders of its first two
    digits; or `pictures.json`, which maps addresses to files.
    """

    def __init__(self, root: Path):
        self._folders = [f for f in (*(root / name for name in FOLDERS), root.parent / "images") if f.is_dir()]
        self._map = next((f for f in (root / "pictures.json", root.parent / "pictures.json") if f.is_file()), None)
        self._named_places = None if self._map is None else MediaPaths([self._map.parent])
        self._names: dict[str, Any] | None = None
        self._downloads = [folder for folder in self._folders if (folder / _JOURNAL).is_file()]
        self._indices: list[Arrays] | None = None

    def find(self, image: Any) -> Encoded:
        """`image`: an address, bytes, or a {"bytes", "path"} of the Hub's tools. Raises `RebusError` for no image."""
        if isinstance(image, dict):
            if image.get("bytes"):
                return bytes(image["bytes"])
            image = image.get("path")
        if isinstance(image, bytes):
            return image
        if not isinstance(image, str) or not image:
            raise RebusError("an image without bytes or URL")
        named = self._named().get(image)
        if isinstance(named, str) and self._named_places is not None:
            return self._named_places.find(named)
        downloaded = self._downloaded(image)
        if downloaded is not None:
            return downloaded
        digest = hashlib.sha256(image.encode("utf-8", "surrogatepass")).hexdigest()
        for folder in self._folders:
            for name in (digest, f"{digest[:2]}/{digest}"):
                for ending in _ENDINGS:
                    path = folder / f"{name}{ending}"
                    if path.is_file():
                        return path
        raise RebusError(
            f"{image} was not downloaded: there is no {digest[:12]}… in pictures/ or images/ (rebus data download)"
        )

    def _named(self) -> dict[str, Any]:
        if self._names is None:
            self._names = mapping(read_json(self._map), self._map.name) if self._map else {}
        return self._names

    def _downloaded(self, url: str) -> bytes | None:
        if self._indices is None:
            self._indices = [kept("fetched", [at / _JOURNAL], partial(_index, at)) for at in self._downloads]
        wanted = np.uint64(digest_of(url))
        for folder, index in zip(self._downloads, self._indices, strict=True):
            at = int(np.searchsorted(index["urls"], wanted))
            if at < len(index["urls"]) and index["urls"][at] == wanted:
                shard, begin, size = (int(value) for value in index["places"][at])
                path = folder / str(index["shards"][shard])
                try:
                    with open(path, "rb") as file:
                        file.seek(begin)
                        return file.read(size)
                except OSError as error:
                    raise RebusError(f"{path}: cannot be read: {error.strerror}") from None
        return None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_names": None, "_indices": None}  # read again where they are needed


def digest_of(url: str) -> int:
    """64 bits of a hash: among 100 million addresses, two others look alike once in 4,000 times."""
    return int.from_bytes(hashlib.blake2b(url.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def _index(folder: Path) -> Arrays:
    """Where the image of each address lies: `urls` uint64 sorted, `places` int64 (shard, begin, bytes), `shards`.

    Of the journal, lines of "ok" name a shard and a key, those of images that came before the row that has them.
    Raises `RebusError` for a journal that is damaged, or that names shards elsewhere.
    """
    rows: dict[int, tuple[str, str]] = {}
    same: dict[int, int] = {}
    asked: list[tuple[str, int]] = []
    for said in _journal(folder / _JOURNAL):
        row = count(said, "row", least=0)
        if said.get("outcome") == "ok":
            rows[row] = (words(said, "shard"), words(said, "key"))
        elif "of" in said:
            same[row] = count(said, "of", least=0)
        if said.get("url") is not None:
            asked.append((words(said, "url"), row))
    shards = sorted({shard for shard, _ in rows.values()})
    places = MediaPaths([folder])
    members = {shard: _members(places.find(shard)) for shard in shards}
    found: dict[int, tuple[int, int, int]] = {}
    for url, row in asked:
        passed: set[int] = set()
        while row in same and row not in passed:  # what came before in its unit may have come in another before
            passed.add(row)
            row = same[row]
        shard, key = rows.get(row, ("", ""))
        if key in members.get(shard, ()):
            found[digest_of(url)] = (shards.index(shard), *members[shard][key])
    order = sorted(found)
    spans = np.array([found[url] for url in order], dtype=np.int64).reshape(-1, 3)
    return {"urls": np.array(order, dtype=np.uint64), "places": spans, "shards": np.array(shards, dtype=np.str_)}


def _journal(file: Path) -> Iterator[dict[str, Any]]:
    with file.open("rb") as journal:
        for number, line in enumerate(journal, start=1):
            yield json_row(line, f"{file}:{number}")


def _members(shard: Path) -> dict[str, tuple[int, int]]:
    """Key → where its image begins in the tar, and its bytes."""
    try:
        with tarfile.open(shard, "r:") as tar:
            return {
                member.name.partition(".")[0]: (member.offset_data, member.size)
                for member in tar
                if member.isfile() and not member.name.endswith((".json", ".txt"))
            }
    except (OSError, tarfile.TarError) as error:
        raise RebusError(f"{shard}: cannot be read: {error}") from None
