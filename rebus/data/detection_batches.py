"""Records with boxes as batches for a detector: images through one view with all that is in them, and the teacher's
regions beside them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from rebus.codec.images import open_image
from rebus.codec.processor import Processor
from rebus.core.errors import UsageError
from rebus.core.labels import IGNORED
from rebus.core.specs import Prompts
from rebus.data.annotated_size import PixelsOfImages
from rebus.data.file_records import FileRecords, Files
from rebus.data.forms import Example
from rebus.data.held_out import open_parts
from rebus.data.outlines import has_area, mask_of
from rebus.data.record import BadRecord, Reader, Record
from rebus.data.record_batches import Plan, RecordBatches
from rebus.data.region_view import View, jittered, whole
from rebus.data.scene_records import SceneReader
from rebus.data.taught_regions import TaughtRegions

SCENES = "scenes"
_HELD_OUT_SCENES = 1000


@dataclass(frozen=True, kw_only=True)
class Detection:
    """Boxes and masks of a data set's labels, for a detector.

    `path`: the data set, or "scenes" for `num_scenes` of the scenes world. `taught`: a folder that `rebus data regions`
    has written for it, with the teacher's embeddings and the texts of the labels; without it there is no teacher, and
    the detector's own text encoder reads the labels. `novel`: labels of which the detector
    is to see no box; `drop_rare`: LVIS's rare ones are. They are dropped, not marked as unknown: their objects are
    background to who learns names (ViLD, Sec. 4.1). `federated`: what is not labelled is background only to labels that
    the image was searched for (LVIS).

    `scales`: large-scale jitter, in parts of the size at which the longer side fills the image. At most `most_objects`
    and `most_taught` random ones of an image are used; masks have `mask_cells` to a side of their box.
    """

    kind: Literal["detection"] = "detection"
    path: str = ""
    root: str | None = None
    layout: str = "auto"
    split: str | None = "train"
    val_split: str | None = "val"
    taught: str = ""
    novel: tuple[str, ...] = ()
    drop_rare: bool = False
    federated: bool = False
    scales: tuple[float, float] = (0.1, 2.0)
    flip: bool = True
    most_objects: int = 100
    most_taught: int = 300
    mask_cells: int = 112
    num_scenes: int = 4000
    threads: int = 1
    most_damaged: float = 0.1


class DetectionBatches:
    """Batches for `rebus.objectives.DistilledDetectionLoss`."""

    def __init__(self, records: "DetectionRecords", processor: Processor):
        self.records, self.processor = records, processor
        self.most_damaged = records.data.most_damaged
        self._batches = RecordBatches(
            records, processor, threads=records.data.threads, most_damaged=self.most_damaged, reads=False
        )

    def batch(
        self, seed: int, index: int, batch_size: int, split: str = "train", share: tuple[int, int] = (0, 1)
    ) -> dict[str, Any]:
        """Batch number `index`, with `classes` for all of its rows."""
        found = self._batches.batch(seed, index, batch_size, split, share)
        return found | {"classes": torch.from_numpy(self.records.classes)}


class DetectionRecords:
    """The records of a `Detection` in shuffled passes, and what a detector with images of `side` pixels learns from
    each. `classes` (C, E): what the labels are called, in the teacher's space; `read` embeds them where there is no
    teacher.

    Raises what opening the data set raises, and `UsageError` for what cannot be learned.
    """

    one_stream = False

    def __init__(
        self,
        data: Detection,
        side: int,
        fill: tuple[int, int, int],
        measured: bool = True,
        read: Callable[[Sequence[str]], np.ndarray] | None = None,
    ):
        _check(data)
        self.data, self.side, self.fill, self.name = data, side, fill, data.path
        parts = _parts(data, measured)
        files = Files(path=data.path, layout=data.layout, root=data.root, form="pairs")
        self._records = FileRecords(files, parts, Prompts(), None)  # forms and images are made here
        self._in_pixels = PixelsOfImages(data.path)
        self.taught = TaughtRegions(data.taught) if data.taught else None
        dropped = {*data.novel, *_rare(parts[0], data)}
        self.labels = [label for label in parts[0].labels if label not in dropped]
        if not self.labels:
            raise UsageError(f"{data.path}: no labels are left to train on")
        self._row = {label: row for row, label in enumerate(self.labels)}
        if self.taught is not None:
            self.classes = self.taught.labels(self.labels)
        elif read is not None:
            self.classes = read(self.labels)
        else:
            raise UsageError(
                "data.taught is the folder of the teacher's embeddings of regions and labels: `rebus data regions "
                "DATA --teacher clip/b32 --out DIR` writes them. A detector with a text encoder (start_from) reads the "
                "labels itself"
            )

    def plan(self, index: int, batch_size: int, split: str) -> Plan:
        """Records follow each other in the shuffled order, one for each row."""
        make = self._augmented if split == "train" else self._plain
        return Plan(self._records.plan(index, batch_size, split).numbers, make)

    def read(self, seed: int, number: int, split: str, attempt: int) -> Record:
        """As of `FileRecords`."""
        return self._records.read(seed, number, split, attempt)

    def _augmented(self, record: Record, rng: np.random.Generator) -> Example:
        image, record = self._opened(record)
        view = jittered(image.size, self.side, self.data.scales, self.data.flip, rng)
        return self._example(record, image, view, rng)

    def _plain(self, record: Record, rng: np.random.Generator) -> Example:
        image, record = self._opened(record)
        return self._example(record, image, whole(image.size, self.side), rng)

    def _opened(self, record: Record) -> tuple[Image.Image, Record]:
        if record.image is None:
            raise BadRecord(record.key, "it has no image")
        image = open_image(record.image)
        return image, self._in_pixels(record, image.size)

    def _example(self, record: Record, image: Image.Image, view: View, rng: np.random.Generator) -> Example:
        arrays = self._objects(record, view, rng)
        if self.taught is not None:
            arrays |= self._regions(self.taught, record, view, rng)
        if self.data.federated:
            arrays["known"] = self._known(record)
        return Example((view.image(image, self.fill),), arrays=arrays)

    def _objects(self, record: Record, view: View, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """What is labelled and can be seen, padded. Crowds are left out: no box of theirs holds one thing."""
        things = [thing for thing in record.things if thing.label in self._row and not thing.crowd]
        boxes = view.boxes(np.array([thing.box for thing in things], dtype=np.float64).reshape(-1, 4))
        seen = _some(_has_area(boxes), self.data.most_objects, rng)
        most, cells = self.data.most_objects, self.data.mask_cells
        found: dict[str, np.ndarray] = {
            "boxes": np.zeros((most, 4), dtype=np.float32),
            "labels": np.full(most, IGNORED, dtype=np.int64),
            "masks": np.zeros((most, cells, cells), dtype=np.uint8),
            "outlined": np.zeros(most, dtype=np.bool_),
        }
        found["boxes"][: len(seen)] = boxes[seen]
        for row, at in enumerate(seen.tolist()):
            thing = things[at]
            found["labels"][row] = self._row[thing.label]
            if has_area(thing.outline):
                found["outlined"][row] = True
                mask = mask_of(thing.outline, view.size[1], view.size[0])
                found["masks"][row] = view.mask(mask, boxes[at], cells)
        return found

    def _regions(
        self, taught: TaughtRegions, record: Record, view: View, rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """The teacher's regions through the same view; none where it was not asked, as of records that are held out."""
        most = self.data.most_taught
        boxes = np.zeros((most, 4), dtype=np.float32)
        vectors = np.zeros((most, taught.width), dtype=np.float16)
        found = taught.of(record.key)
        if found is not None:
            moved = view.boxes(found[0].astype(np.float64))
            seen = _some(_has_area(moved), most, rng)
            boxes[: len(seen)], vectors[: len(seen)] = moved[seen], found[1][seen]
        return {"taught_boxes": boxes, "taught": vectors}

    def _known(self, record: Record) -> np.ndarray:
        """bool (C,): of which classes all objects in the image are labelled."""
        searched = {thing.label for thing in record.things} | {*record.absent}
        return np.array([label in searched and label not in record.incomplete for label in self.labels])


def _parts(data: Detection, measured: bool) -> tuple[Reader, Reader | UsageError]:
    if data.path == SCENES:
        return SceneReader(data.num_scenes), SceneReader(_HELD_OUT_SCENES, "val")
    return open_parts(data.path, data.layout, data.split, data.val_split, measured, root=data.root)


def _check(data: Detection) -> None:
    if not data.path:
        raise UsageError('data.path, the data set, is missing: --set data.path=DIR, or "scenes"')
    low, high = data.scales
    if not 0 < low <= high < 100:
        raise UsageError(f"data.scales expects two sizes above 0, the smaller first; got {data.scales}")
    if min(data.most_objects, data.most_taught, data.mask_cells) < 1:
        raise UsageError("data.most_objects, data.most_taught and data.mask_cells need numbers above 0")


def _rare(reader: Reader, data: Detection) -> set[str]:
    if not data.drop_rare:
        return set()
    frequencies = getattr(reader, "frequencies", None)
    if frequencies is None:
        raise UsageError(f"{data.path}: only LVIS says which labels are rare (data.drop_rare); name them in data.novel")
    return {label for label, how_often in frequencies.items() if how_often == "r"}


def _has_area(boxes: np.ndarray) -> np.ndarray:
    """bool (N,): a pixel at least either way."""
    found: np.ndarray = (boxes[:, 2:] - boxes[:, :2] >= 1).all(axis=1)
    return found


def _some(which: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    """The numbers of those that are true, at most `most` of them, by lot."""
    numbers = np.flatnonzero(which)
    return numbers if len(numbers) <= most else np.sort(rng.permutation(numbers)[:most])
