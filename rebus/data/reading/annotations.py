"""Images and annotations in the form of MS COCO: lists "images", "annotations" and "categories" joined by ids.

https://cocodataset.org/#format-data
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rebus.core.errors import RebusError
from rebus.core.strict_json import to_json
from rebus.data.reading.checked_fields import box, identity, is_identity, mapping, named, number, words
from rebus.data.reading.disk_cache import kept
from rebus.data.reading.json_spans import JsonFile, Span
from rebus.data.record import BadRecord, Thing


class Annotations:
    """The images of several such files, the same id being the same image, each with its annotations by file.

    Numbers 0 to `len()` - 1 are the images as they come, then what belongs to no image: damaged records. Only
    places in the files are held, 16 bytes for each annotation; these go to worker processes, and to the cache, for to
    find them is to read the files through.
    """

    def __init__(self, paths: Sequence[Path]):
        self._files = [JsonFile.open(path) for path in paths]
        arrays = kept("annotations", paths, lambda: _Index(self._files).to_arrays())
        self._images = arrays["images"]  # int64 (images, 3): file, start, end
        self._owned = [(arrays[f"begins.{n}"], arrays[f"places.{n}"]) for n in range(len(paths))]
        self._damaged, self.rest = json.loads(arrays["others"].tobytes())  # `rest`: what else each file has

    def __len__(self) -> int:
        return len(self._images) + len(self._damaged)

    def read(self, index: int) -> tuple[str, dict[str, Any], list[list[dict[str, Any]]]]:
        """Key, image and its annotations for each file. Raises `BadRecord`."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        if index >= len(self._images):
            raise self._bad(*self._damaged[index - len(self._images)])
        file, start, end = (int(value) for value in self._images[index])
        name = self._files[file].path.name
        try:
            image = mapping(self._files[file].elements([(start, end)])[0], "the image")
            key = f"{name}:{identity(image)}"
        except RebusError as error:
            raise BadRecord(f"{name}:byte {start}", str(error)) from None
        found = []
        for source, (begins, spans) in zip(self._files, self._owned):
            mine = spans[begins[index] : begins[index + 1]].tolist()
            try:
                found.append([mapping(item, "an annotation") for item in source.elements(mine)])
            except RebusError as error:
                raise BadRecord(key, str(error)) from None
        return key, image, found

    def _bad(self, file: int, span: Span, reason: str) -> BadRecord:
        source = self._files[file]
        try:
            place = f"annotation {identity(source.elements([span])[0])}"
        except (RebusError, AttributeError):
            place = f"byte {span[0]}"
        return BadRecord(f"{source.path.name}:{place}", reason)


class _Index:
    """Where the images of the files lie, and the annotations of each."""

    def __init__(self, files: Sequence[JsonFile]):
        self._images: dict[int | str, int] = {}  # id → number
        self._places: list[tuple[int, int, int]] = []
        self._damaged: list[tuple[int, Span, str]] = []
        self._rest: list[Mapping[str, Any]] = []
        owned = [self._scan(index, file) for index, file in enumerate(files)]
        self._owned = [self._group(index, *pair) for index, pair in enumerate(owned)]

    def to_arrays(self) -> dict[str, np.ndarray]:
        arrays = {"images": np.array(self._places, dtype=np.int64).reshape(-1, 3)}
        for index, (begins, places) in enumerate(self._owned):
            arrays |= {f"begins.{index}": begins, f"places.{index}": places}
        others = to_json([self._damaged, self._rest]).encode()
        return arrays | {"others": np.frombuffer(others, dtype=np.uint8)}

    def _scan(self, index: int, file: JsonFile) -> tuple[list[int | str], list[Span]]:
        """The images of each annotation, and where it lies."""
        owners: list[int | str] = []
        spans: list[Span] = []
        here: set[int | str] = set()

        def image(element: dict[str, Any], start: int, end: int) -> None:
            number = element.get("id")
            if not is_identity(number):
                self._damaged.append((index, (start, end), "an image without an id"))
            elif number in here:
                self._damaged.append((index, (start, end), f"another image has the id {number}"))
            else:
                here.add(number)
                if number not in self._images:
                    self._images[number] = len(self._places)
                    self._places.append((index, start, end))

        def annotation(element: dict[str, Any], start: int, end: int) -> None:
            owner = element.get("image_id")
            if is_identity(owner):
                owners.append(owner)
                spans.append((start, end))
            else:
                self._damaged.append((index, (start, end), "an annotation without an image_id"))

        self._rest.append(file.scan({"images": (["id"], image), "annotations": (["image_id"], annotation)}))
        if not here:
            raise RebusError(f'{file.path}: no images: a list "images"  with ids is missing')
        return owners, spans

    def _group(self, index: int, owners: list[int | str], spans: list[Span]) -> tuple[np.ndarray, np.ndarray]:
        """Where each image's annotations begin among the spans, and the spans in the order of images."""
        numbers = np.array([self._images.get(owner, -1) for owner in owners], dtype=np.int64)
        places = np.array(spans, dtype=np.int64).reshape(-1, 2)
        for lost in np.flatnonzero(numbers < 0):
            self._damaged.append((index, spans[lost], f"there is no image {owners[lost]}"))
        order = np.argsort(numbers, kind="stable")[int((numbers < 0).sum()) :]
        begins = np.searchsorted(numbers[order], np.arange(len(self._places) + 1))
        return begins, places[order]


def categories(path: Path, rest: Mapping[str, Any]) -> dict[int | str, dict[str, Any]]:
    """The categories by id, in the order of ids. Raises `RebusError` naming the file."""
    found: dict[int | str, dict[str, Any]] = {}
    try:
        for item in rest.get("categories") or ():
            words(mapping(item, "a category"), "name")
            if found.setdefault(identity(item), item) is not item:
                raise RebusError(f"the id {item['id']} comes twice")
        return dict(sorted(found.items(), key=lambda pair: (isinstance(pair[0], str), pair[0])))
    except (RebusError, TypeError) as error:
        raise RebusError(f"{path}: categories: {error}") from None


def thing(item: Mapping[str, Any], names: Mapping[int | str, Mapping[str, Any]]) -> Thing:
    """An annotation with a box. Raises `RebusError` naming its id."""
    try:
        category = identity(item, "category_id")
        if category not in names:
            raise RebusError(f"there is no category {category}")
        return Thing(
            label=names[category]["name"],
            box=box(item),
            outline=item.get("segmentation") or None,
            crowd=bool(item.get("iscrowd", 0)),
            area=number(item, "area") if item.get("area") is not None else None,
            id=named(item, otherwise=""),
        )
    except RebusError as error:
        raise RebusError(f"annotation {named(item)}: {error}") from None
