"""Karpathy's splits of COCO and Flickr: `dataset_coco.json`, `dataset_flickr8k.json`, `dataset_flickr30k.json`.

Karpathy and Fei-Fei, "Deep Visual-Semantic Alignments for Generating Image Descriptions", 2015.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from rebus.core.errors import RebusError, UsageError
from rebus.data.reading.checked_fields import listed, mapping, named, words
from rebus.data.reading.json_spans import JsonFile
from rebus.data.reading.media_paths import MediaPaths
from rebus.data.record import BadRecord, Record

NAME = "karpathy"
WHAT = "Karpathy's splits of COCO, Flickr8k and Flickr30k: dataset_*.json with the images beside it"
# Forms that are read, and what each was checked against: a public reader, a dataset card, or memory
CHECKED = (
    (
        "`dataset_coco.json`, `dataset_flickr8k.json`, `dataset_flickr30k.json`, `dataset.json`",
        "memory; samples written by hand",
    ),
)

_NAMES = ("dataset_coco.json", "dataset_flickr30k.json", "dataset_flickr8k.json", "dataset.json")
_HEAD = 1 << 16
_FOLDERS = ("images", "flickr30k-images", "flickr30k_images", "Flicker8k_Dataset", "Flickr8k_Dataset")


def recognises(path: Path) -> bool:
    return _is_own(path) if path.is_file() else _file(path) is not None


def open(path: Path, split: str | None = None) -> "Karpathy":
    return Karpathy(path, split)


class Karpathy:
    """One record an image with its sentences as they were typed.

    `split`: "val" by default, "train", "test" or "restval". As the papers do, "train" takes "restval" in. Raises
    `UsageError` for a split that is not there, `RebusError` for damaged JSON.
    """

    labels: tuple[str, ...] = ()

    def __init__(self, path: Path, split: str | None = None):
        file = path if path.is_file() else _file(path)
        if file is None:
            raise UsageError(f"{path}: none of {', '.join(_NAMES)} here")
        self._file, wanted = JsonFile.open(file), split or "val"
        found: Counter[str] = Counter()
        spans: list[tuple[int, int]] = []

        def image(element: dict[str, Any], start: int, end: int) -> None:
            own = element.get("split")
            if isinstance(own, str):
                found[own] += 1
            if not isinstance(own, str) or own == wanted or (wanted, own) == ("train", "restval"):
                spans.append((start, end))  # what has no split is damaged, and shows in each

        self._file.scan({"images": (["split"], image)})
        if wanted not in found:
            raise UsageError(f'{file}: no split "{wanted}"; there are {", ".join(sorted(found)) or "none"}')
        self._spans = np.array(spans, dtype=np.int64)
        self.sizes = (len(spans),)
        root = file.parent
        self._places = MediaPaths([root, *(root / name for name in _FOLDERS), root.parent, root.parent / "images"])

    def read(self, block: int, row: int) -> Record:
        start, end = self._spans[row].tolist()
        key = f"{self._file.path.name}:byte {start}"
        try:
            image = mapping(self._file.elements([(start, end)])[0], "the image")
            key = f"{self._file.path.name}:{named(image, 'cocoid', named(image, 'imgid', f'byte {start}'))}"
            name = words(image, "filename")
            folder = words(image, "filepath") if "filepath" in image else ""
            captions = [words(mapping(item, "a sentence"), "raw") for item in listed(image, "sentences")]
            facts = {"image_id": image.get("cocoid", image.get("imgid")), "file_name": name}
            return Record(
                key=key,
                image=self._places.find(f"{folder}/{name}" if folder else name),
                captions=tuple(captions),
                facts={**facts, "split": words(image, "split")},
            )
        except RebusError as error:
            raise BadRecord(key, str(error)) from None


def _file(path: Path) -> Path | None:
    return next((path / name for name in _NAMES if _is_own(path / name)), None)


def _is_own(file: Path) -> bool:
    """By its name; a `dataset.json`, as the archives hold it, by what is in it."""
    if file.name not in _NAMES or not file.is_file():
        return False
    if file.name != "dataset.json":
        return True
    with file.open("rb") as opened:
        head = opened.read(_HEAD)
    return b'"images"' in head and b'"sentences"' in head
