"""LVIS: many labels, few images of most. `lvis_v1_val.json` with the images of COCO 2017.

Gupta et al., "LVIS: A Dataset for Large Vocabulary Instance Segmentation", 2019. An image was searched for some labels
only: those on it, those said to be absent (`neg_category_ids`), and nothing is known of the others.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from rebus.core.errors import RebusError, UsageError
from rebus.data.layouts.coco import image_facts
from rebus.data.reading.annotations import Annotations, categories, thing
from rebus.data.reading.checked_fields import listed, shown, words
from rebus.data.reading.media_paths import MediaPaths
from rebus.data.record import BadRecord, Record

NAME = "lvis"
WHAT = "LVIS: lvis_v1_*.json, boxes and outlines of 1203 labels, rare to frequent, in the images of COCO"
# Forms that are read, and what each was checked against: a public reader, a dataset card, or memory
CHECKED = (("`lvis_v1_*.json`", "memory; samples written by hand"),)

Frequency: TypeAlias = Literal["r", "c", "f"]  # on at most 10 training images, at most 100, more

_FILE = re.compile(r"lvis_v\d[\d.]*_(.+)\.json")


def recognises(path: Path) -> bool:
    return _FILE.fullmatch(path.name) is not None if path.is_file() else bool(_files(path))


def open(path: Path, split: str | None = None) -> "Lvis":
    return Lvis(path, split)


class Lvis:
    """One record an image: things, absent labels, and labels not marked everywhere. `frequencies`: label → r, c or f.

    `split`: "val" by default. Raises `UsageError` for a split that is not there, `RebusError` for damaged JSON or
    categories without a frequency.
    """

    def __init__(self, path: Path, split: str | None = None):
        file = path if path.is_file() else _chosen(path, split)
        self._annotations = Annotations([file])
        self._names = categories(file, self._annotations.rest[0])
        self.labels = tuple(item["name"] for item in self._names.values())
        self.frequencies: Mapping[str, Frequency] = _frequencies(file, self._names)
        self.sizes = (len(self._annotations),)
        root = file.parent.parent if file.parent.name == "annotations" else file.parent
        self._places = MediaPaths([root, root / "images", root / "coco", file.parent, root.parent])

    def read(self, block: int, row: int) -> Record:
        key, image, (annotations,) = self._annotations.read(row)
        try:
            return Record(
                key=key,
                image=self._places.find(_image(image)),
                things=tuple(thing(item, self._names) for item in annotations),
                absent=self._labels_of(image, "neg_category_ids"),
                incomplete=self._labels_of(image, "not_exhaustive_category_ids"),
                facts=image_facts(image),
            )
        except RebusError as error:
            raise BadRecord(key, str(error)) from None

    def _labels_of(self, image: dict[str, Any], name: str) -> tuple[str, ...]:
        if name not in image:  # the test files have none
            return ()
        try:
            return tuple(self._names[number]["name"] for number in listed(image, name))
        except (KeyError, TypeError) as error:
            raise RebusError(f"{name}: there is no category {error}") from None


def _image(image: dict[str, Any]) -> str:
    """Folder and name of the image: the end of its address, for v1 names no file."""
    if "coco_url" in image:
        return "/".join(words(image, "coco_url").split("/")[-2:])
    return words(image, "file_name")


def _frequencies(file: Path, names: Mapping[int | str, Mapping[str, Any]]) -> dict[str, Frequency]:
    for number, item in names.items():
        if item.get("frequency") not in get_args(Frequency):
            raise RebusError(
                f'{file}: category {number} expects a frequency "r", "c" or "f"; got {shown(item.get("frequency"))}'
            )
    return {item["name"]: item["frequency"] for item in names.values()}


def _files(path: Path) -> dict[str, Path]:
    """Split → file, of the newest version."""
    folders = [path, path / "annotations", path / "lvis"]
    files = sorted(file for folder in folders for file in folder.glob("lvis_v*.json"))
    found = sorted((file.name, match[1], file) for file in files if (match := _FILE.fullmatch(file.name)))
    return {split: file for _, split, file in found}


def _chosen(path: Path, split: str | None) -> Path:
    files, wanted = _files(path), split or "val"
    if wanted not in files and split is None and len(files) == 1:
        return next(iter(files.values()))
    if wanted not in files:
        raise UsageError(f"{path}: no lvis_v1_{wanted}.json; there are the splits {', '.join(files) or 'none'}")
    return files[wanted]
