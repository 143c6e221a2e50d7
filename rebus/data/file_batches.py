"""Data sets on disk as training batches, through the model's own processor.

Batch i is a function of (seed, i) alone, as with scenes: a run resumes anywhere in a pass over the data, on any number
of ranks. A damaged record gives its place to another one and is named.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rebus.codec.images import ImagePipeline, open_image
from rebus.codec.processor import Processor
from rebus.core.answers import Box
from rebus.core.errors import RebusError, UsageError
from rebus.core.places import LocationNotation
from rebus.core.specs import Prompts
from rebus.data.layouts import open_layout
from rebus.data.record import BadRecord, Record
from rebus.data.shuffle import WINDOW, ShuffledOrder

Form = Literal["auto", "pairs", "caption", "ask", "detect", "text"]
_TRIES = 20  # records that may stand in for a damaged one


@dataclass(frozen=True, kw_only=True)
class Files:
    """A data set on disk, and what is learned from it.

    `form`: "pairs" of image and caption for two towers; for writers "caption", "ask", "detect", or "text" without
    images; "auto" is "pairs" or "caption". `prompt`: other words than the model's own for that form; it may hold
    {question} or {labels}. `least_crop`: below 1, a random square of at least that share of the image's area is seen
    (CLIP, ALIGN). `fast`: JPEGs are decoded at a fraction of their size (`rebus.codec.images`).
    """

    kind: Literal["files"] = "files"
    path: str = ""
    layout: str = "auto"
    split: str | None = "train"
    val_split: str | None = "val"
    form: Form = "auto"
    prompt: str | None = None
    least_crop: float = 1.0
    flip: bool = False
    fast: bool = True
    threads: int = 1
    most_damaged: float = 0.1  # share of records; more of them stop the run


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Several data sets: each batch comes from one of them, as often as its weight says."""

    kind: Literal["mixture"] = "mixture"
    parts: tuple[Files, ...] = ()
    weights: tuple[float, ...] = ()


class Example(NamedTuple):
    """One row of a batch before it is numbers. `prompt` is None for two towers."""

    image: dict[str, Tensor] | None
    prompt: str | None
    text: str


class FileBatches:
    """The batches of a `Files`. Raises what `open_layout` raises, or `UsageError` for what cannot be learned."""

    def __init__(self, files: Files, processor: Processor, prompts: Prompts, locations: LocationNotation | None = None):
        if not files.path:
            raise UsageError("data.path says where the data set lies: --set data.path=DIR")
        if not 0 < files.least_crop <= 1:
            raise UsageError(f"data.least_crop is a share of the image, above 0 and at most 1; got {files.least_crop}")
        if files.form == "auto":
            writes = processor.text is not None and processor.text.spec.generates
            files = replace(files, form="caption" if writes else "pairs")
        self.files, self.processor, self.most_damaged = files, processor, files.most_damaged
        if files.form == "detect" and locations is None:
            raise UsageError("the model states no places in text: it cannot be taught detection in this form")
        self.locations = locations
        self.prompt = None if files.form in ("pairs", "text") else files.prompt or getattr(prompts, files.form)
        if self.prompt is None and files.form not in ("pairs", "text"):
            raise UsageError(f"the model has no prompt for {files.form}; give one: --set data.prompt=…")
        spec = None if processor.image is None or files.form == "text" else processor.image.spec
        self.images = None if spec is None else ImagePipeline(spec, fast=files.fast, threads=1)
        self._readers: dict[str | None, tuple[Any, dict[int, ShuffledOrder]]] = {}
        self._open(files.split)

    def batch(
        self, seed: int, index: int, batch_size: int, split: str = "train", share: tuple[int, int] = (0, 1)
    ) -> dict[str, Any]:
        """Batch number `index`: `pixels`, `tokens`, `mask`, for writers `targets`; of it, the rows of part
        share[0] of share[1]. `damaged` lists the records that others stood in for."""
        each = batch_size // share[1]
        first = index * batch_size + share[0] * each
        damaged: list[str] = []

        def example(number: int) -> Example:
            return self._example(seed, number, split, damaged)

        if self.files.threads > 1:
            with ThreadPoolExecutor(self.files.threads) as pool:
                rows = list(pool.map(example, range(first, first + each)))
        else:
            rows = [example(number) for number in range(first, first + each)]
        batch: dict[str, Any] = self._text(rows)
        pictures = [row.image for row in rows if row.image is not None]
        if pictures:
            batch |= {name: torch.cat([picture[name] for picture in pictures]) for name in pictures[0]}
        return batch | ({"damaged": sorted(damaged)} if damaged else {})

    def __len__(self) -> int:
        return int(sum(self._open(self.files.split)[0].sizes))

    def _open(self, split: str | None) -> tuple[Any, dict[int, ShuffledOrder]]:
        if split not in self._readers:
            self._readers[split] = open_layout(self.files.path, self.files.layout, split), {}
        return self._readers[split]

    def _order(self, split: str | None, seed: int) -> ShuffledOrder:
        reader, orders = self._open(split)
        if seed not in orders:
            orders[seed] = ShuffledOrder(reader.sizes, seed, window=getattr(reader, "window", WINDOW))
        return orders[seed]

    def _example(self, seed: int, number: int, split: str, damaged: list[str]) -> Example:
        which = {"train": self.files.split, "val": self.files.val_split}.get(split, split)
        order, spare = self._order(which, seed), self._order(which, seed + 1)
        rng = np.random.Generator(np.random.PCG64([seed, number]))
        for attempt in range(_TRIES):
            place = spare.place(number * _TRIES + attempt) if attempt else order.place(number)
            try:
                return self._made(self._open(which)[0].read(*place), rng)
            except BadRecord as error:
                damaged.append(str(error))
            except RebusError as error:
                damaged.append(f"block {place[0]}, row {place[1]}: {error}")
        raise RebusError(f"{self.files.path}: {_TRIES} damaged records in a row, the last of them {damaged[-1]}")

    def _made(self, record: Record, rng: np.random.Generator) -> Example:
        prompt, text = self.prompt, ""
        if self.files.form == "text":
            return Example(None, "", _one(record, record.captions, "text", rng))
        if record.image is None or self.images is None:
            raise BadRecord(record.key, "it has no image")
        picture = open_image(record.image) if self._looks(record) else record.image
        if self.files.form == "ask":
            question = _one(record, record.questions, "question", rng)
            prompt = _put(prompt, "question", question.text)
            text = _one(record, question.answers, "answer", rng)
        elif self.files.form == "detect":
            if not record.things:
                raise BadRecord(record.key, "it has no boxes")
            assert isinstance(picture, Image.Image)
            assert self.locations is not None
            labels = sorted({thing.label for thing in record.things})
            prompt = _put(prompt, "labels", " ; ".join(labels))
            boxes = [Box(thing.box, thing.label, 1.0) for thing in record.things if not thing.crowd]
            text = self.locations.detection_text(boxes, picture.size)
        else:
            text = _one(record, record.captions, "caption", rng)
        if isinstance(picture, Image.Image) and self.files.form != "detect":
            picture = varied(picture, rng, self.files.least_crop, self.files.flip)
        try:
            return Example(self.images([picture]), prompt, text)
        except RebusError as error:
            raise BadRecord(record.key, str(error)) from error

    def _looks(self, record: Record) -> bool:
        """Whether the image is needed before the pipeline decodes it."""
        return self.files.form == "detect" or self.files.least_crop < 1 or self.files.flip

    def _text(self, rows: Sequence[Example]) -> dict[str, Tensor]:
        pipeline = self.processor.text
        if pipeline is None:
            raise UsageError(f"the checkpoint has no {self.processor.text_missing}, without which it cannot be taught")
        if self.files.form == "pairs":
            tokens, mask = pipeline([row.text for row in rows])
            return {"tokens": tokens, "mask": mask}
        tokens, mask = pipeline([row.prompt or "" for row in rows], images=[int(r.image is not None) for r in rows])
        return {"tokens": tokens, "mask": mask, "targets": pipeline.targets([row.text for row in rows])}


class MixedBatches:
    """The batches of a `Mixture`: number i is always from the same part, and each part counts its own."""

    def __init__(self, mixture: Mixture, open_part: Callable[[Files], FileBatches]):
        if not mixture.parts or len(mixture.parts) != len(mixture.weights) or min(mixture.weights) <= 0:
            raise UsageError("a mixture wants one weight above 0 for each of its parts")
        self.parts = [open_part(part) for part in mixture.parts]
        self.processor = self.parts[0].processor
        self.most_damaged = min(part.most_damaged for part in mixture.parts)
        self.pattern = even_pattern(mixture.weights)
        self.before = [np.cumsum([0, *(self.pattern == i)]) for i in range(len(self.parts))]

    def batch(
        self, seed: int, index: int, batch_size: int, split: str = "train", share: tuple[int, int] = (0, 1)
    ) -> dict[str, Any]:
        """Batch number `index`, of whichever part's turn it is."""
        turn, at = divmod(index, len(self.pattern))
        which = int(self.pattern[at])
        counts = self.before[which]
        return self.parts[which].batch(seed, int(turn * counts[-1] + counts[at]), batch_size, split, share)


def even_pattern(weights: Sequence[float], length: int = 1000) -> np.ndarray:
    """(length,) numbers of parts, each as often as its weight says and spread as evenly as can be."""
    shares = np.asarray(weights, dtype=np.float64) / sum(weights)
    owed, pattern = np.zeros(len(shares)), np.empty(length, dtype=np.int64)
    for i in range(length):
        owed += shares
        pattern[i] = owed.argmax()
        owed[pattern[i]] -= 1
    return pattern


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


def _one(record: Record, among: Sequence[Any], what: str, rng: np.random.Generator) -> Any:
    if not among:
        raise BadRecord(record.key, f"it has no {what}")
    return among[int(rng.integers(len(among)))]


def _put(prompt: str | None, name: str, value: str) -> str:
    return (prompt or "").replace("{" + name + "}", value)
