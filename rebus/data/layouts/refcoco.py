"""RefCOCO, RefCOCO+ and RefCOCOg: words that fit one object of an image of COCO, as the UNC tools give them.

Yu et al., "Modeling Context in Referring Expressions", 2016; https://github.com/lichengunc/refer. A folder holds
`instances.json` and `refs(unc).p`, a pickle, or `refs.json`, the same as JSON.
"""

import io
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np

from rebus.core.errors import RebusError, UsageError
from rebus.data.layouts.coco import image_facts
from rebus.data.reading.annotations import categories, thing
from rebus.data.reading.checked_fields import identity, is_identity, listed, mapping, named, words
from rebus.data.reading.json_spans import JsonFile, Span, read_json
from rebus.data.reading.media_paths import MediaPaths
from rebus.data.record import BadRecord, Phrase, Record

NAME = "refcoco"
WHAT = "RefCOCO, RefCOCO+, RefCOCOg: refs(*).p or refs.json, with instances.json"
# Forms that are read, and what each was checked against: a public reader, a dataset card, or memory
CHECKED = (("`refs(unc).p` or `refs.json`, with `instances.json`", "memory; samples written by hand"),)

MAX_PICKLE_BYTES = 500_000_000  # the largest released is 20 MB
_REFS = re.compile(r"refs(\(\w+\))?\.(p|json)")


def recognises(path: Path) -> bool:
    return _REFS.fullmatch(path.name) is not None if path.is_file() else bool(_refs(path))


def open(path: Path, split: str | None = None) -> "RefCOCO":
    return RefCOCO(path, split)


class RefCOCO:
    """One record an image with its phrases, each with the thing it fits.

    `path`: the folder, or one file of phrases in it where there are several. `split`: "val" by default, "train",
    "testA", "testB", "test". Raises `UsageError` for a split that is not there, `RebusError` for damaged files, also
    for a pickle that holds anything but lists, dictionaries, texts and numbers: nothing of it is run.
    """

    def __init__(self, path: Path, split: str | None = None):
        self._file = path if path.is_file() else _only(path)
        self._instances = JsonFile.open(self._file.parent / "instances.json")
        images: dict[int | str, Span] = {}
        annotations: dict[int | str, Span] = {}
        rest = self._instances.scan({"images": (["id"], _keep(images)), "annotations": (["id"], _keep(annotations))})
        self._names = categories(self._instances.path, rest)
        self.labels = tuple(dict.fromkeys(item["name"] for item in self._names.values()))
        self._owners: list[int | str] = []
        self._phrases: list[list[tuple[str, int | str]]] = []  # of an image: words and the id of the object
        self._damaged: list[tuple[str, str]] = []
        self._sort_out(_load(self._file), split or "val")
        own = {number for phrases in self._phrases for _, number in phrases}
        self._things = {number: annotations[number] for number in own if number in annotations}
        self._images = np.array([images.get(owner, (-1, -1)) for owner in self._owners], dtype=np.int64)
        self.sizes = (len(self._owners) + len(self._damaged),)
        self._places = MediaPaths(_folders(self._file.parent))

    def read(self, block: int, row: int) -> Record:
        if row >= len(self._owners):
            raise BadRecord(*self._damaged[row - len(self._owners)])
        owner, phrases = self._owners[row], self._phrases[row]
        key = f"{self._file.name}:{owner}"
        try:
            start, end = self._images[row].tolist()
            if start < 0:
                raise RebusError(f"the image is not in {self._instances.path.name}")
            image = mapping(self._instances.elements([(start, end)])[0], "the image")
            things = self._things_of(owner, {number for _, number in phrases})
            return Record(
                key=key,
                image=self._places.find(words(image, "file_name")),
                phrases=tuple(Phrase(text=text, thing=things[number]) for text, number in phrases),
                things=tuple(things.values()),
                facts=image_facts(image),
            )
        except RebusError as error:
            raise BadRecord(key, str(error)) from None

    def _things_of(self, owner: int | str, numbers: set[int | str]) -> dict[int | str, Any]:
        lost = numbers - self._things.keys()
        if lost:
            raise RebusError(f"annotation {next(iter(lost))} is not in {self._instances.path.name}")
        order = sorted(numbers, key=lambda number: self._things[number])
        found = {}
        for number, item in zip(order, self._instances.elements([self._things[number] for number in order])):
            found[number] = thing(mapping(item, f"annotation {number}"), self._names)
            if item.get("image_id") != owner:
                raise RebusError(f"annotation {number} belongs to image {named(item, 'image_id')}")
        return found

    def _sort_out(self, refs: Any, wanted: str) -> None:
        """Phrases of the split by image, in the order of the file."""
        if not isinstance(refs, list):
            raise RebusError(f"{self._file}: expected a list of phrases; got {type(refs).__name__}")
        rows: dict[int | str, int] = {}
        splits: set[str] = set()
        for at, ref in enumerate(refs):
            name = f"{self._file.name}:{named(ref, 'ref_id', f'entry {at}')}"
            try:
                split = words(mapping(ref, "an entry"), "split")
                splits.add(split)
                if not _fits(split, wanted):
                    continue
                owner, number = identity(ref, "image_id"), identity(ref, "ann_id")
                texts = [words(mapping(one, "a sentence"), "sent") for one in listed(ref, "sentences")]
            except RebusError as error:
                self._damaged.append((name, str(error)))
                continue
            if owner not in rows:
                rows[owner] = len(rows)
                self._owners.append(owner)
                self._phrases.append([])
            self._phrases[rows[owner]] += [(text, number) for text in texts]
        if not any(_fits(split, wanted) for split in splits):
            raise UsageError(f'{self._file}: no split "{wanted}"; there are {", ".join(sorted(splits)) or "none"}')


class _PlainUnpickler(pickle._Unpickler):
    """Reads lists, dictionaries, texts and numbers, which need no lookup; whatever looks up a name is refused.

    The one written in Python: for a number in twelve bytes, the one in C makes a list of that many places.
    """

    def find_class(self, module: str, name: str) -> Any:
        raise RebusError(f"it asks for {module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        raise RebusError("it asks for an object kept elsewhere")


def _load(file: Path) -> Any:
    if file.suffix == ".json":
        return read_json(file)
    try:
        if file.stat().st_size > MAX_PICKLE_BYTES:
            raise RebusError(f"it is larger than {MAX_PICKLE_BYTES:,} bytes")
        return _PlainUnpickler(io.BytesIO(file.read_bytes()), encoding="utf-8").load()
    except Exception as error:  # a damaged pickle can raise nearly anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RebusError(f"{file}: not a pickle of only lists, dictionaries, strings and numbers: {reason}") from None


def _keep(found: dict[int | str, Span]) -> Any:
    def see(element: dict[str, Any], start: int, end: int) -> None:
        number = element.get("id")
        if is_identity(number):  # one without an id cannot be asked for
            found[number] = (start, end)

    return see


def _fits(split: str, wanted: str) -> bool:
    """RefClef writes "testAB" for what is in both."""
    return split == wanted or (wanted[:4] == split[:4] == "test" and len(wanted) == 5 and wanted[4] in split[4:])


def _refs(path: Path) -> list[Path]:
    return sorted(file for file in path.glob("refs*") if _REFS.fullmatch(file.name))


def _only(path: Path) -> Path:
    files = _refs(path)
    if not files:
        raise UsageError(f"{path}: no refs(unc).p or refs.json here")
    if len(files) > 1:
        raise UsageError(f"{path}: several files of phrases, give one as the path: {', '.join(f.name for f in files)}")
    return files[0]


def _folders(folder: Path) -> list[Path]:
    """The images are COCO's of 2014, which many keep beside."""
    bases = [folder, folder.parent, folder.parent.parent]
    names = ("train2014", "images/train2014", "images/mscoco/images/train2014", "images", "coco/train2014", "")
    return [base / name for base in bases for name in names]
