"""Data sets on disk as a source of training batches: shuffled passes, cropped and flipped images, forms."""

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from rebus.codec.images import open_image
from rebus.codec.processor import Processor
from rebus.codec.region_files import RegionFiles
from rebus.core.errors import MissingFile, RebusError, UsageError
from rebus.core.places import LocationNotation
from rebus.core.specs import Prompts
from rebus.data.annotated_size import PixelsOfImages
from rebus.data.answer_batches import AnswerBatches
from rebus.data.caption_pairs import BlankedBatches, CaptionPairBatches
from rebus.data.caption_targets import MaskedCaptionBatches, WordSetBatches
from rebus.data.damaged_files import check_files
from rebus.data.document_batches import DocumentBatches
from rebus.data.forms import FORMS, Example, Given, form_prompt
from rebus.data.held_out import open_parts
from rebus.data.inspecting import chosen
from rebus.data.layouts import open_layout
from rebus.data.record import BadRecord, Reader, Record
from rebus.data.record_batches import TRIES, MixedBatches, MixedRecords, Plan, RecordBatches
from rebus.data.shuffle import WINDOW, ShuffledOrder

LOG = logging.getLogger("rebus")
_LOOKED_AT = 20  # records, for what a data set holds
_GENERATIVE = ("caption", "ask", "detect", "text")  # forms of a prompt and an answer each

# of `rebus.data.forms.FORMS`
FormName = Literal[
    "auto",
    "pairs",
    "caption",
    "captions",
    "split caption",
    "ask",
    "ask back",
    "objects",
    "detect",
    "read",
    "text",
    "documents",
    "caption pairs",
    "answers",
    "answer blanks",
    "masked caption",
    "word set",
    "label set",
]


@dataclass(frozen=True, kw_only=True)
class Files:
    """A data set on disk, and what is learned from it.

    `root`: a folder besides its own that the data set may point into, and where its images are looked for. `form`:
    one of `rebus.data.forms.FORMS`, which says what each is; "auto" is what fits the model: "pairs", "caption pairs",
    "answers" or "caption", or where there are no captions "detect" of boxes, "ask" of questions. `regions`: a file or
    folder of region features (`rebus.RegionFiles`), which are learned from in place of the images of the same names.
    `answers`: the list of answers, one a line, where `start_from` has none. `prompt`: another one than the model's own
    for that form; it may hold {question}, {labels}, or what the form gives. `val_split`: what is held out; None, or a
    data set without splits: a random tenth of `split`. `least_crop`: below 1, a random square of at least that share
    of the image's area is seen (CLIP, ALIGN). `negatives`: whether "detect" asks images without boxes for one of the
    data set's labels, to be answered by nothing; otherwise they are left out. `fast`: JPEGs are decoded at a fraction
    of their size (`rebus.codec.images`). `truncate`: prompts and answers longer than the context are cut; by default
    such a record counts as damaged. Dual encoders always cut.
    """

    kind: Literal["files"] = "files"
    path: str = ""
    root: str | None = None
    layout: str = "auto"
    split: str | None = "train"
    val_split: str | None = "val"
    form: FormName = "auto"
    regions: str | None = None
    answers: str | None = None
    prompt: str | None = None
    least_crop: float = 1.0
    flip: bool = False
    negatives: bool = False
    fast: bool = True
    threads: int = 1
    truncate: bool = False
    most_damaged: float = 0.1  # share of records, and of files; more of them stop the run


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Several data sets. `mix`: "batches" takes each batch from one of them, as often as its weight says; "rows" each
    row, so that a batch holds all of them, such as eight pairs of image and text to one text alone; "steps" takes a
    batch of every one for each step, whose losses are added up by weight (Flamingo, Sec. 2.4). How files are read for
    "rows" (`fast`, `threads`, `truncate`, `most_damaged`) is what the first part says."""

    kind: Literal["mixture"] = "mixture"
    parts: tuple[Files, ...] = ()
    weights: tuple[float, ...] = ()
    mix: Literal["batches", "rows", "steps"] = "batches"


def file_batches(
    files: Files,
    processor: Processor,
    prompts: Prompts,
    locations: LocationNotation | None = None,
    measured: bool = True,
    answers: Sequence[str] | None = None,
) -> RecordBatches:
    """The batches of a `Files`, for a system's prompts. `measured`: whether a part without a split of its own is held
    out to measure on; `answers`: the list of a network that picks from one. Raises what `open_layout` raises, or
    `UsageError` for what cannot be learned."""
    if not files.path:
        raise UsageError("data.path, the data set, is missing: --set data.path=DIR")
    parts = open_parts(files.path, files.layout, files.split, files.val_split, measured, root=files.root)
    if files.form == "auto":
        files = replace(files, form=_form(parts[0], processor, locations, answers))
    if FORMS[files.form].sees and processor.image is None and files.regions is None:
        raise MissingFile(f"the checkpoint has no {processor.image_missing}, without which it cannot process images")
    source, options = FileRecords(files, parts, prompts, locations), _options(files)
    if files.form == "caption pairs":
        return CaptionPairBatches(source, processor, **options)
    if files.form == "answer blanks":
        return BlankedBatches(source, processor, **options)
    if files.form == "masked caption":
        return MaskedCaptionBatches(source, processor, **options)
    if files.form == "word set":
        return WordSetBatches(source, processor, **options)
    if files.form == "label set":
        return RecordBatches(source, processor, reads=False, **options)
    if files.form == "answers":
        if answers is None:
            raise UsageError("data.form=answers expects a model that picks from a list of answers, and that list")
        return AnswerBatches(source, processor, prompts, answers, **options)
    if files.form == "documents":
        return DocumentBatches(source, processor, **options)
    return RecordBatches(source, processor, **options)


def _options(files: Files) -> dict[str, Any]:
    return {name: getattr(files, name) for name in ("fast", "threads", "most_damaged", "truncate")}


def _form(
    reader: Reader, processor: Processor, locations: LocationNotation | None, answers: Sequence[str] | None
) -> FormName:
    """What fits the model, and for generative ones what the data hold."""
    if answers is not None:
        return "answers"
    spec = None if processor.text is None else processor.text.spec
    if spec is not None and spec.generates:
        return _generative_form(reader, locations)
    return "caption pairs" if spec is not None and spec.beside_images else "pairs"


def _generative_form(reader: Reader, locations: LocationNotation | None) -> FormName:
    """ "detect" where some records, looked at by lot, have boxes and no captions, "ask" where they have questions."""
    seen = []
    for place in chosen(reader.sizes, _LOOKED_AT, 0):
        with suppress(RebusError):
            seen.append(reader.read(*place))
    if any(record.captions for record in seen):
        return "caption"
    if locations is not None and any(record.things for record in seen):
        return "detect"
    return "ask" if any(record.questions for record in seen) else "caption"


def mixed_batches(
    mixture: Mixture,
    processor: Processor,
    prompts: Prompts,
    locations: LocationNotation | None = None,
    measured: bool = True,
) -> MixedBatches | RecordBatches:
    """The batches of a `Mixture`, as `file_batches` gives those of its parts. Raises `UsageError` for parts that
    cannot share a batch."""
    parts = [file_batches(part, processor, prompts, locations, measured) for part in mixture.parts]
    if mixture.mix != "rows":
        return MixedBatches(parts, mixture.weights, together=mixture.mix == "steps")
    sources = [part.source for part in parts]
    forms = [source.files.form for source in sources if isinstance(source, FileRecords)]
    if not all(form in _GENERATIVE for form in forms):
        raise UsageError(
            f"data.mix=rows mixes {', '.join(_GENERATIVE)} in one batch; the parts are of the forms {', '.join(forms)}"
        )
    return RecordBatches(MixedRecords(sources, mixture.weights), processor, **_options(mixture.parts[0]))


class FileRecords:
    """The records of a `Files` whose form is named, in shuffled passes, and the examples that its form makes of them.

    `parts`: what is learned from and what is held out. Raises `UsageError` for what cannot be learned.
    """

    one_stream = False

    def __init__(
        self,
        files: Files,
        parts: tuple[Reader, Reader | UsageError],
        prompts: Prompts,
        locations: LocationNotation | None,
    ):
        if not 0 < files.least_crop <= 1:
            raise UsageError(
                f"data.least_crop is a fraction of the image, above 0 and at most 1; got {files.least_crop}"
            )
        self.files, self.form, self.locations, self.name = files, FORMS[files.form], locations, files.path
        self.prompt = form_prompt(prompts, self.form) if files.prompt is None else files.prompt
        if self.prompt is None and self.form.prompt is not None:
            raise UsageError(f"the model has no prompt for {files.form}; give one: --set data.prompt=…")
        if self.form.places and locations is None:
            raise UsageError(f"the model has no location tokens: it cannot be trained with data.form={files.form}")
        self.varies = files.least_crop < 1 or files.flip
        if self.varies and self.form.places:
            raise UsageError(
                f"data.form={files.form} has positions in the whole image: it needs data.least_crop=1 "
                "and data.flip=false"
            )
        self._readers: dict[str, Any] = {"train": parts[0], "val": parts[1]}
        readers = [part for part in parts if not isinstance(part, UsageError)]
        checked = [check_files(reader, files.most_damaged, "raise data.most_damaged") for reader in readers]
        for fault in dict.fromkeys(chain.from_iterable(checked)):
            LOG.warning("damaged file: %s", fault)
        self._orders: dict[tuple[str, int], ShuffledOrder] = {}
        self._in_pixels = PixelsOfImages(files.path)
        self._regions = None if files.regions is None else RegionFiles(files.regions)
        if self._regions is not None and (self.varies or self.form.places):
            raise UsageError("data.regions are of whole images: they need data.least_crop=1 and data.flip=false")
        if files.negatives and not self.form.places:
            raise UsageError("data.negatives adds detection prompts to images without boxes: it needs data.form=detect")
        self.numbers = {name: i for i, name in enumerate(parts[0].labels, 1)} if files.form == "label set" else {}
        if files.form == "label set" and not self.numbers:
            raise UsageError(f"{files.path}: it has no labels, which data.form=label set needs")
        self.negatives = tuple(parts[0].labels) if files.negatives else ()
        if files.negatives and not self.negatives:
            raise UsageError(f"{files.path}: it has no labels for data.negatives")

    def __len__(self) -> int:
        return int(sum(self._open("train").sizes))

    def plan(self, index: int, batch_size: int, split: str) -> Plan:
        """Records follow each other in the shuffled order, one for each row."""
        return Plan(range(index * batch_size, (index + 1) * batch_size), self.make)

    def read(self, seed: int, number: int, split: str, attempt: int) -> Record:
        """Record `number` of the endless shuffled order; those that stand in come from another order."""
        if attempt:
            turn, at = divmod(attempt, TRIES)
            place = self._order(split, seed + 1 + turn).place(number * TRIES + at)
        else:
            place = self._order(split, seed).place(number)
        try:
            record: Record = self._open(split).read(*place)
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
            if self._regions is not None:
                image = self._regions.of(record.image if isinstance(record.image, Path) else record.key)
            if self.form.places:
                record = self._in_pixels(record, image.size)
        example = self.form.make(record, Given(image, self.prompt, rng, self.locations, self.negatives, self.numbers))
        if not self.varies or not example.images:
            return example
        return replace(example, images=tuple(self._varied(image, rng) for image in example.images))

    def _varied(self, image: Any, rng: np.random.Generator) -> Image.Image:
        return varied(image, rng, self.files.least_crop, self.files.flip)

    def _open(self, split: str) -> Reader:
        """Raises `UsageError` where nothing is held out."""
        if split not in self._readers:
            self._readers[split] = open_layout(self.files.path, self.files.layout, split, self.files.root)
        reader = self._readers[split]
        if isinstance(reader, UsageError):
            raise reader
        return reader

    def _order(self, split: str, seed: int) -> ShuffledOrder:
        if (split, seed) not in self._orders:
            reader = self._open(split)
            self._orders[split, seed] = ShuffledOrder(reader.sizes, seed, window=getattr(reader, "window", WINDOW))
        return self._orders[split, seed]


def varied(image: Image.Image, rng: np.random.Generator, least_crop: float, flip: bool) -> Image.Image:
    """A random square of the image, and perhaps its mirror image."""
    if least_crop < 1:
        width, height = image.size
        side = min(width, height, max(1, round((rng.uniform(least_crop, 1) * width * height) ** 0.5)))
        left, top = int(rng.integers(width - side + 1)), int(rng.integers(height - side + 1))
        image = image.crop((left, top, left + side, top + side))
    if flip and rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return image
