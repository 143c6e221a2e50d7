"""Scenes on disk in the layouts of released data sets, and models that know them, or answer as they are told."""

import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rebus.codec.images import open_image
from rebus.core.answers import Box, Mask, Ranking
from rebus.data.outlines import outline_of
from rebus.data.record import BadRecord, Record
from rebus.data.scenes import SHAPES, Scene, scene


class ByteLRU:
    """A reader of records in memory; an error in place of a record is raised when it is read."""

    def __init__(self, records: Sequence[Record | BadRecord], labels: Sequence[str] = (), **more: Any):
        self.records, self.labels = list(records), tuple(labels)
        self.sizes = (len(self.records),)
        self.__dict__.update(more)

    def read(self, block: int, row: int) -> Record:
        record = self.records[row]
        if isinstance(record, BadRecord):
            raise record
        return record


class Told:
    """A model whose tasks are the functions given: `Told(ask=lambda images, questions: …)`."""

    def __init__(self, **tasks: Callable[..., Any]):
        self.tasks = frozenset(tasks)
        self.calls: list[str] = []
        for name, work in tasks.items():
            setattr(self, name, self._counted(name, work))

    def _counted(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            self.calls.append(name)
            return work(*args, **options)

        return call


def png(folder: Path, number: int, split: str = "test", count: int | None = None) -> Path:
    """One scene as a file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{split}_{number:04d}.png"
    scene(number, split, count=count).image.save(path)
    return path


def write_json(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return path


def write_lines(path: Path, rows: Sequence[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def coco(root: Path, scenes: Sequence[Scene]) -> Path:
    """instances_val2017.json and captions_val2017.json with their images."""
    images, things, captions = [], [], []
    for number, one in enumerate(scenes, 1):
        name = png(root / "val2017", one.seed, one.split).name
        images.append({"id": number, "file_name": name, "width": one.size, "height": one.size})
        captions.append({"id": number, "image_id": number, "caption": one.captions[0]})
        for thing in one.objects:
            left, top, right, bottom = thing.box
            things.append(
                {
                    "id": len(things) + 1,
                    "image_id": number,
                    "category_id": SHAPES.index(thing.shape) + 1,
                    "bbox": [left, top, right - left, bottom - top],
                    "area": float(thing.mask.sum()),
                    "iscrowd": 0,
                    "segmentation": outline_of(thing.mask),
                }
            )
    categories = [{"id": n, "name": name} for n, name in enumerate(SHAPES, 1)]
    notes = root / "annotations"
    write_json(notes / "instances_val2017.json", {"images": images, "annotations": things, "categories": categories})
    write_json(notes / "captions_val2017.json", {"images": images, "annotations": captions})
    return root


def labelled(root: Path, number: int) -> Path:
    """The first test scenes of one object, in folders that are their labels."""
    for seed in range(number):
        one = scene(seed, "test", count=1)
        folder = root / str(one.label)
        folder.mkdir(parents=True, exist_ok=True)
        one.image.save(folder / f"{seed:05d}.png")
    return root


def coloured(root: Path, split: str, each: int, colours: Sequence[str] = ("red", "green", "blue")) -> Path:
    """So many scenes of one object of each colour, in folders that are the colours."""
    left = dict.fromkeys(colours, each)
    for seed in itertools.count():
        one = scene(seed, split, count=1)
        colour = one.objects[0].colour
        if left.get(colour):
            left[colour] -= 1
            (root / colour).mkdir(parents=True, exist_ok=True)
            one.image.save(root / colour / f"{seed:05d}.png")
        if not any(left.values()):
            return root
    raise AssertionError


class Seeing:
    """Recognises scenes by their pixels, and errs by their number: some boxes are moved, some are missing."""

    tasks = frozenset({"detect", "segment", "caption", "classify"})

    def __init__(self, scenes: Sequence[Scene]):
        self.known = {one.image.tobytes(): one for one in scenes}

    def see(self, images: Any) -> list[Scene]:
        return [self.known[open_image(image).tobytes()] for image in images]

    def classify(self, images: Any, labels: Sequence[str], templates: Any = None) -> list[Ranking]:
        rows = []
        for one in self.see(images):
            best = one.label if one.seed % 4 else labels[0]
            rest = [label for label in labels if label != best]
            rows.append(Ranking((str(best), *rest), (0.9, *[0.1 / len(rest)] * len(rest))))
        return rows

    def caption(self, images: Any, prompt: str | None = None) -> list[str]:
        return [one.captions[0].replace("solid", "striped") for one in self.see(images)]

    def boxes(self, one: Scene, labels: Sequence[str]) -> list[Box]:
        found = []
        for at, thing in enumerate(one.objects):
            if thing.shape in labels and (one.seed + at) % 5:
                shift = float((one.seed + 3 * at) % 7)
                left, top, right, bottom = thing.box
                score = 0.3 + 0.1 * ((one.seed + at) % 7)
                found.append(Box((left + shift, top, right + shift, bottom), thing.shape, score))
        return found

    def detect(self, images: Any, labels: Sequence[str]) -> list[list[Box]]:
        return [self.boxes(one, labels) for one in self.see(images)]

    def segment(self, images: Any, phrases: Sequence[str]) -> list[list[Mask]]:
        rows = []
        for one, phrase in zip(self.see(images), phrases, strict=True):
            own = [thing for thing in one.objects if thing.shape == phrase]
            rows.append(
                [Mask(np.roll(t.mask, one.seed % 5, axis=1), t.box, phrase, 0.5 + 0.1 * n) for n, t in enumerate(own)]
            )
        return rows
