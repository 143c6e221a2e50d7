"""Data sets on disk as a source of training batches: shuffled passes, cropped and flipped images, forms."""

import logging
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from PIL import Image

from rebus.codec.images import open_image
from rebus.codec.processor import Processor
from rebus.core.errors import MissingFile, RebusError, UsageError
from rebus.core.places import LocationNotation
from rebus.core.specs import Prompts
from rebus.data.damaged_files import check_files
from rebus.data.forms import FORMS, Example, Given
from rebus.data.layouts import open_layout
from rebus.data.record import BadRecord, Record
from rebus.data.record_batches import TRIES, MixedBatches, Plan, RecordBatches
from rebus.data.shuffle import WINDOW, ShuffledOrder

LOG = logging.getLogger("rebus")
FormName = Literal["auto", "pairs", "caption", "ask", "detect", "text"]  # of `rebus.data.forms.FORMS`


@dataclass(frozen=True, kw_only=True)
class Files:
    """A data set on disk, and what is learned from it.

    `form`: "pairs" of image and caption for dual encoders; for generative models "caption", "ask", "detect", or "text"
    without images; "auto" is "pairs" or "caption". `prompt`: other words than the model's own for that form; it may
    hold {question} or {labels}. `least_crop`: below 1, a random square of at least that share of the image's area is
    seen (CLIP, ALIGN). `fast`: JPEGs are decoded at a fraction of their size (`rebus.codec.images`).
    """

    kind: Literal["files"] = "files"
    path: str = ""
    layout: str = "auto"
    split: str | None = "train"
    val_split: str | None = "val"
    form: FormName = "auto"
    prompt: str | None = None
    least_crop: float = 1.0
    flip: bool = False
    fast: bool = True
    threads: int = 1
    most_damaged: float = 0.1  # share of records, and of files; more of them stop the run


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Several data sets: each batch comes from one of them, as often as its weight says."""

    kind: Literal["mixture"] = "mixture"
    parts: tuple[Files, ...] = ()
    weights: tuple[float, ...] = ()


def file_batches(
    files: Files, processor: Processor, prompts: Prompts, locations: LocationNotation | None = None
) -> RecordBatches:
    """The batches of a `Files`, in the words of a system. Raises what `open_layout` raises, or `UsageError` for what
    cannot be learned."""
    if files.form == "auto":
        generative = processor.text is not None and processor.text.spec.generates
        files = replace(files, form="caption" if generative else "pairs")
    if FORMS[files.form].sees and processor.image is None:
        raise MissingFile(f"the checkpoint has no {processor.image_missing}, without which it cannot see images")
    source = FileRecords(files, prompts, locations)
    return RecordBatches(source, processor, fast=files.fast, threads=files.threads, most_damaged=files.most_damaged)


def mixed_batches(
    mixture: Mixture, processor: Processor, prompts: Prompts, locations: LocationNotation | None = None
) -> MixedBatches:
    """The batches of a `Mixture`. Raises what `file_batches` raises."""
    return MixedBatches([file_batches(part, processor, prompts, locations) for part in mixture.parts], mixture.weights)


class FileRecords:
    """The records of a `Files` whose form is named, in shuffled passes, and the examples that its form makes of them.

    Raises what `open_layout` raises, or `UsageError` for what cannot be learned.
    """

    one_stream = False

    def __init__(self, files: Files, prompts: Prompts, locations: LocationNotation | None):
        if not files.path:
            raise UsageError("data.path says where the data set lies: --set data.path=DIR")
        if not 0 < files.least_crop <= 1:
            raise UsageError(f"data.least_crop is a share of the image, above 0 and at most 1; got {files.least_crop}")
        self.files, self.form, self.locations, self.name = files, FORMS[files.form], locations, files.path
        self.prompt = None if self.form.prompt is None else files.prompt or getattr(prompts, self.form.prompt)
        if self.prompt is None and self.form.prompt is not None:
            raise UsageError(f"the model has no prompt for {files.form}; give one: --set data.prompt=…")
        if self.form.places and locations is None:
            raise UsageError(f"the model states no places in text: it cannot be taught data.form={files.form}")
        self.varies = files.least_crop < 1 or files.flip
        if self.varies and self.form.places:
            raise UsageError(
                f"data.form={files.form} says where things are in the whole image: it goes with data.least_crop=1 "
                "and data.flip=false"
            )
        self._readers: dict[str | None, tuple[Any, dict[int, ShuffledOrder]]] = {}
        self._open(files.split)

    def __len__(self) -> int:
        return int(sum(self._open(self.files.split)[0].sizes))

    def plan(self, index: int, batch_size: int, split: str) -> Plan:
        """Records follow each other in the shuffled order, one for each row."""
        return Plan(range(index * batch_size, (index + 1) * batch_size), self.make)

    def read(self, seed: int, number: int, split: str, attempt: int) -> Record:
        """Record `number` of the endless shuffled order; those that stand in come from another order."""
        which = {"train": self.files.split, "val": self.files.val_split}.get(split, split)
        if attempt:
            place = self._order(which, seed + 1).place(number * TRIES + attempt)
        else:
            place = self._order(which, seed).place(number)
        try:
            record: Record = self._open(which)[0].read(*place)
        except BadRecord:
            raise
        except RebusError as error:
            raise BadRecord(f"block {place[0]}, row {place[1]}", str(error)) from error
        return record

    def make(self, record: Record, rng: np.random.Generator) -> Example:
        """What the form makes of a record, its image perhaps cropped or flipped."""
        image: Any = None
        if self.form.sees:
            if record.image is None:
                raise BadRecord(record.key, "it has no image")
            image = open_image(record.image) if self.varies or self.form.places else record.image
        example = self.form.make(record, Given(image, self.prompt, rng, self.locations))
        if not self.varies or not example.images:
            return example
        return replace(example, images=tuple(self._varied(image, rng) for image in example.images))

    def _varied(self, image: Any, rng: np.random.Generator) -> Image.Image:
        return varied(image, rng, self.files.least_crop, self.files.flip)

    def _open(self, split: str | None) -> tuple[Any, dict[int, ShuffledOrder]]:
        if split not in self._readers:
            reader = open_layout(self.files.path, self.files.layout, split)
            for fault in check_files(reader, self.files.most_damaged, "raise data.most_damaged"):
                LOG.warning("damaged file: %s", fault)
            self._readers[split] = reader, {}
        return self._readers[split]

    def _order(self, split: str | None, seed: int) -> ShuffledOrder:
        reader, orders = self._open(split)
        if seed not in orders:
            orders[seed] = ShuffledOrder(reader.sizes, seed, window=getattr(reader, "window", WINDOW))
        return orders[seed]


def varied(picture: Image.Image, rng: np.random.Generator, least_crop: float, flip: bool) -> Image.Image:
    """A random square of the image, and perhaps its mirror image."""
    if least_crop < 1:
        width, height = picture.size
        side = min(width, height, max(1, round((rng.uniform(least_crop, 1) * width * height) ** 0.5)))
        left, top = int(rng.integers(width - side + 1)), int(rng.integers(height - side + 1))
        picture = picture.crop((left, top, left + side, top + side))
    if flip and rng.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return picture
