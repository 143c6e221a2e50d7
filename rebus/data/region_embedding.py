"""The offline stage of distillation: every image's proposals, embedded by a teacher, in a folder that training reads.

Gu et al., "Open-vocabulary Object Detection via Vision and Language Knowledge Distillation" (ViLD), 2021, Sec. 3.2: up
to 300 proposals an image, each cut out once as it is and once with half as much around it; the two embeddings are added
and made of unit length. `rebus.data.taught_regions` says how the folder is laid out.
"""

import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from PIL import Image
from safetensors.numpy import save

from rebus.codec.decode_image import open_image
from rebus.core.atomic_write import write_file_atomically
from rebus.core.errors import RebusError
from rebus.core.strict_json import to_json
from rebus.data.annotated_size import PixelsOfImages
from rebus.data.damaged_files import check_files
from rebus.data.over_ray import over_ray
from rebus.data.record import BadRecord, Reader, Record
from rebus.data.resumable_units import Units
from rebus.data.taught_regions import LABELS, NAMES, REGIONS, unit_file

MOST_REGIONS = 300
COPIES, MOVED = 1, 0.1  # of each true box, and by which part of its sides they are off: proposals are never exact
Report = Callable[[str], None]  # hears "embedded" or "damaged" of each record


class RegionTeacher(Protocol):
    """Embeds regions and texts. It can be pickled, and then loads its models again."""

    def propose(self, image: Image.Image, most: int) -> np.ndarray:
        """(R, 4) xyxy in pixels of the image, at most so many, by whatever finds regions."""
        ...

    def embed(self, image: Image.Image, boxes: np.ndarray) -> np.ndarray:
        """(R, E) of unit length: what the boxes show."""
        ...

    def embed_labels(self, labels: Sequence[str]) -> np.ndarray:
        """(C, E) of unit length."""
        ...


@dataclass(frozen=True, kw_only=True)
class EmbeddingSettings:
    """`truth`: the data set's own boxes in place of proposals, of all labels, with `COPIES` that are a little off.
    `unit`: images whose embeddings are written together. `most_damaged`: the share of records that may be damaged."""

    truth: bool = False
    most: int = MOST_REGIONS
    unit: int = 500
    most_damaged: float = 0.1
    over: Literal["process", "ray"] = "process"


class RegionEmbedding:
    """Fills `folder`. `source`: what tells this work from other work, for its plan: the data set and the models.

    A unit that was cut off is done again from its first image, with the same bytes, since they depend on the image, the
    models and the settings alone.
    """

    def __init__(
        self,
        reader: Reader,
        folder: Path,
        source: Mapping[str, Any],
        teacher: RegionTeacher,
        settings: EmbeddingSettings,
    ):
        self.reader, self.teacher, self.settings = reader, teacher, settings
        self.ends = np.cumsum([0, *reader.sizes], dtype=np.int64)
        self.count = -(-self.total // settings.unit)
        self._in_pixels = PixelsOfImages(str(source.get("source", "the data set")))
        plan = {**source, "work": "regions", "records": self.total, "most": settings.most, "unit": settings.unit}
        self.units = Units(folder, plan, REGIONS)

    @property
    def total(self) -> int:
        return int(self.ends[-1])

    @property
    def done(self) -> int:
        """Records whose unit is done already."""
        if self.units.finished:
            return self.total
        missing = self.units.missing(self.count)
        return self.total - sum(len(self._numbers(unit)) for unit in missing)

    def run(self, report: Report = lambda outcome: None) -> Counter[str]:
        """Do what is left to do; how many records were embedded, and how many damaged.

        Raises `CannotWrite`; `RebusError` where too many records are damaged. What was finished stays.
        """
        check_files(self.reader, self.settings.most_damaged, "allow more (--max-bad)")
        with self.units.opened():
            if not self.units.finished:
                self._embed(self.units.missing(self.count), report)
                self._write_labels()
                self.units.finish(line for unit in range(self.count) for line in self.units.rows(unit))
        with open(self.units.last, "rb") as file:
            return Counter("embedded" if "rows" in json.loads(line) else "damaged" for line in file)

    def _embed(self, missing: Sequence[int], report: Report) -> None:
        if self.settings.over == "ray" and missing:
            done: Iterator[Mapping[str, Any]] = over_ray([{"unit": unit} for unit in missing], self)
        else:
            done = map(self, ({"unit": unit} for unit in missing))
        for row in done:
            for outcome in row["outcomes"]:
                report(str(outcome))
            self._check_damaged()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """One unit, as a function of a row of a Ray data set."""
        unit = int(row["unit"])
        boxes, vectors, lines = list[np.ndarray](), list[np.ndarray](), list[dict[str, Any]]()
        first = 0
        for number in self._numbers(unit):
            block = int(np.searchsorted(self.ends, number, side="right")) - 1
            try:
                record = self.reader.read(block, number - int(self.ends[block]))
                own, taught = self._of(record)
            except RebusError as error:
                key = error.key if isinstance(error, BadRecord) else f"block {block}, row {number - self.ends[block]}"
                lines.append({"key": key, "damaged": str(error)})
                continue
            boxes.append(own)
            vectors.append(taught)
            lines.append({"key": record.key, "unit": unit, "rows": [first, first + len(own)]})
            first += len(own)
        tensors = {
            "boxes": np.concatenate([np.zeros((0, 4), np.float32), *boxes]),
            "vectors": np.concatenate(vectors) if vectors else np.zeros((0, 0), np.float16),
        }
        with write_file_atomically(self.units.folder / unit_file(unit)) as file:
            file.write(save(tensors))
        self.units.commit(unit, lines)
        return {"unit": unit, "outcomes": ["damaged" if "damaged" in line else "embedded" for line in lines]}

    def _of(self, record: Record) -> tuple[np.ndarray, np.ndarray]:
        if record.image is None:
            raise BadRecord(record.key, "it has no image")
        image = open_image(record.image)
        if self.settings.truth:
            found = near_truth(self._in_pixels(record, image.size), image.size)[: self.settings.most]
        else:
            found = self.teacher.propose(image, self.settings.most)
        boxes = found.astype(np.float32)
        return boxes, self.teacher.embed(image, boxes).astype(np.float16)

    def _numbers(self, unit: int) -> range:
        return range(unit * self.settings.unit, min((unit + 1) * self.settings.unit, self.total))

    def _write_labels(self) -> None:
        labels = list(self.reader.labels)
        vectors = np.ascontiguousarray(self.teacher.embed_labels(labels), dtype=np.float32)
        with write_file_atomically(self.units.folder / LABELS) as file:
            file.write(save({"vectors": vectors}, metadata={NAMES: to_json(labels)}))

    def _check_damaged(self) -> None:
        """Raises `RebusError` where so many records are damaged that the whole cannot be meant."""
        lines = [
            line for unit in range(self.count) if self.units.journal(unit).exists() for line in self.units.rows(unit)
        ]
        damaged = [line for line in lines if "damaged" in line]
        if len(damaged) > self.settings.most_damaged * len(lines):
            raise RebusError(
                f"{len(damaged):,} of {len(lines):,} records are damaged, more than the fraction "
                f"{self.settings.most_damaged:g}; the first: {damaged[0]['damaged']}. Allow more with --max-bad"
            )


def near_truth(record: Record, size: tuple[int, int]) -> np.ndarray:
    """(N · 4, 4): the true boxes of a record, and `COPIES` of each with random, reproducible offsets."""
    boxes = np.array([thing.box for thing in record.things if not thing.crowd], dtype=np.float64).reshape(-1, 4)
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(record.key.encode("utf-8", "replace"))))
    sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    copies = [boxes + rng.normal(0, MOVED, size=boxes.shape) * sides for _ in range(COPIES)]
    found = np.clip(np.concatenate([boxes, *copies]), 0, np.tile(size, 2))
    return found[(found[:, 2:] - found[:, :2] >= 1).all(axis=1)]
