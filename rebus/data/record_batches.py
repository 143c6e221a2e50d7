"""Records as training batches, through the model's own processor: one road, whether they lie on disk or are drawn.

Batch i is a function of (seed, i) alone: a run resumes anywhere, on any number of ranks. A damaged record gives its
place to another one and is named.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import repeat
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from rebus.codec.images import ImagePipeline, ImageSource
from rebus.codec.processor import Processor, rows_first
from rebus.codec.regions import ImageRegions, regions_batch
from rebus.codec.text import Prompt, TextPipeline
from rebus.core.errors import RebusError, UsageError
from rebus.data.forms import Example, TextRow
from rebus.data.record import BadRecord, LeftOut, Record

TRIES = 20  # records that may stand in for a damaged one
MOST_LEFT_OUT = 1_000  # records in a row that have nothing of what is learned
Make = Callable[[Record, np.random.Generator], Example]


class Plan(NamedTuple):
    """One batch: the numbers of its records, and what each record becomes."""

    numbers: range
    make: Make


class Source(Protocol):
    """Numbered records, and what is learned from them.

    `one_stream`: whether one generator goes through the records of a batch in order; otherwise each record has its
    own. `name`: for messages.
    """

    name: str
    one_stream: bool

    def plan(self, index: int, batch_size: int, split: str) -> Plan:
        """What batch number `index` is made of; a whole batch, of all ranks."""
        ...

    def read(self, seed: int, number: int, split: str, attempt: int) -> Record:
        """Record `number`; from `attempt` 1 on, another one that may stand in for it. Raises `BadRecord` for one that
        is damaged, another `RebusError` where there is nothing to read."""
        ...


class Batches(Protocol):
    """What a run learns from. `processor` is None where neither images nor texts are in the batches; more damaged
    records than the share `most_damaged` stop the run."""

    @property
    def processor(self) -> Processor | None: ...

    @property
    def most_damaged(self) -> float: ...

    def batch(
        self, seed: int, index: int, batch_size: int, split: str = "train", share: tuple[int, int] = (0, 1)
    ) -> dict[str, Any]:
        """Batch number `index`, a function of its arguments alone; of it, the rows of part share[0] of share[1]."""
        ...


class Row(NamedTuple):
    images: dict[str, Tensor]
    example: Example


class RecordBatches:
    """The batches of a `Source`. `reads`: whether there are texts in them, for which the checkpoint has to have a
    tokenizer, or `UsageError` is raised."""

    def __init__(
        self,
        source: Source,
        processor: Processor,
        *,
        fast: bool = False,
        threads: int = 1,
        most_damaged: float = 1.0,
        truncate: bool = False,
        reads: bool = True,
    ):
        if processor.text is None and reads:
            raise UsageError(f"the checkpoint has no {processor.text_missing}, without which it cannot be trained")
        self.source, self.processor, self.threads, self.most_damaged = source, processor, threads, most_damaged
        self.text: Any = processor.text
        if truncate and self.text is not None:
            self.text = TextPipeline(self.text.tokenizer, replace(self.text.spec, truncate=True))
        spec = None if processor.image is None else processor.image.spec
        self.images = None if spec is None else ImagePipeline(spec, fast=fast, threads=1)

    def batch(
        self, seed: int, index: int, batch_size: int, split: str = "train", share: tuple[int, int] = (0, 1)
    ) -> dict[str, Any]:
        """Batch number `index`: `pixels`, `tokens`, `mask`, for generative models `targets`, `image_mask` and
        `owners` where rows have other numbers of images or texts than one, and the arrays of the examples. Pixels are
        uint8 where they were drawn at the size that is wanted, see `rebus.codec.images.normalised`. `damaged` lists
        the records that others stood in for."""
        damaged: list[str] = []
        rows = self._rows(seed, index, batch_size, split, share, damaged)
        return self._tensors(rows) | ({"damaged": sorted(damaged)} if damaged else {})

    def texts(self, seed: int, index: int, batch_size: int) -> list[TextRow]:
        """The texts of batch number `index` of the training, before they are tokens."""
        rows = self._rows(seed, index, batch_size, "train", (0, 1), [])
        return [text for row in rows for text in row.example.texts]

    def _rows(
        self, seed: int, index: int, batch_size: int, split: str, share: tuple[int, int], damaged: list[str]
    ) -> list[Row]:
        plan = self.source.plan(index, batch_size, split)
        each = len(plan.numbers) // share[1]
        mine = slice(share[0] * each, (share[0] + 1) * each)

        def row(number: int, rng: np.random.Generator, record: Record | None = None) -> Row:
            return self._row(plan.make, seed, number, split, rng, damaged, record)

        if self.source.one_stream:
            # All are drawn before any is put into words: a tenth faster, since the memory stays warm.
            drawn = [self.source.read(seed, number, split, 0) for number in plan.numbers]
            return list(map(row, plan.numbers, repeat(_generator(seed, index)), drawn))[mine]
        numbers = plan.numbers[mine]
        generators = [_generator(seed, number) for number in numbers]
        if self.threads > 1:
            with ThreadPoolExecutor(self.threads) as pool:
                return list(pool.map(row, numbers, generators))
        return list(map(row, numbers, generators))

    def _row(
        self,
        make: Make,
        seed: int,
        number: int,
        split: str,
        rng: np.random.Generator,
        damaged: list[str],
        record: Record | None = None,
    ) -> Row:
        tries = 0
        for attempt in range(TRIES + MOST_LEFT_OUT):
            try:
                record = record or self.source.read(seed, number, split, attempt)
                example = make(record, rng)
                self._check_fits(example)
                return Row(self._pixels(example.images), example)
            except LeftOut as error:
                left_out = str(error)
                record = None
                continue
            except BadRecord as error:
                damaged.append(str(error))
            except RebusError as error:
                if record is None:  # there is nothing to read
                    raise
                damaged.append(f"{record.key}: {error}")
            record, tries = None, tries + 1
            if tries == TRIES:
                raise RebusError(
                    f"{self.source.name}: {TRIES} damaged records in a row, the last of them {damaged[-1]}"
                )
        raise RebusError(f"{self.source.name}: {MOST_LEFT_OUT:,} records have no target, the last: {left_out}")

    def _check_fits(self, example: Example) -> None:
        """Raise `BadText` for a prompt or an answer that is too long, before it is part of a batch. Only for what may
        be: a token stands for a byte at least."""
        if not example.texts or not self.text.spec.generates or self.text.spec.truncate:
            return
        spec = self.text.spec
        for row in example.texts:
            before = row.images_before(len(example.images))
            placed = (len(example.images) - before) * (spec.num_image_tokens + 2)
            if placed + _most_tokens(row.text) + 2 > spec.context:
                self.text.targets(row.text)
            placed = before * (spec.num_image_tokens + 2)
            if row.prompt is not None and placed + _most_tokens(row.prompt) + 8 > spec.context:
                self.text(row.prompt, images=before)

    def _pixels(self, given: Sequence[ImageSource | ImageRegions]) -> dict[str, Tensor]:
        """One image after another, (n, …); drawn ones of the right size as they are, uint8. Regions are put together
        for the whole batch."""
        images = [image for image in given if not isinstance(image, ImageRegions)]
        if self.images is None:
            assert not images
            return {}
        if len(images) < len(given):
            return {}
        spec = self.images.spec
        if spec.resize != "patches" and images and all(_drawn(image, spec.size) for image in images):
            planes = [torch.from_numpy(np.array(image).transpose(2, 0, 1)) for image in images]
            return {"pixels": planes[0][None] if len(planes) == 1 else torch.stack(planes)}
        return self.images(images)

    def _tensors(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        counts = [len(row.example.images) for row in rows]
        batch: dict[str, Tensor] = {}
        regions = [[one for one in row.example.images if isinstance(one, ImageRegions)] for row in rows]
        if any(regions):
            batch |= regions_batch(regions)
        elif any(counts):
            seen = [row.images for row, count in zip(rows, counts, strict=True) if count]
            assert len({images["pixels"].dtype for images in seen}) == 1, "drawn and decoded images in one batch"
            batch |= rows_first({name: torch.cat([images[name] for images in seen]) for name in seen[0]}, counts)
        arrays = [row.example.arrays for row in rows]
        batch |= {name: torch.from_numpy(np.stack([each[name] for each in arrays])) for name in arrays[0]}
        owners = [i for i, row in enumerate(rows) for _ in row.example.texts]
        if owners:
            batch |= self._texts([text for row in rows for text in row.example.texts], [counts[i] for i in owners])
            if owners != list(range(len(rows))):
                batch["owners"] = torch.tensor(owners)
        return batch

    def _texts(self, texts: Sequence[TextRow], images: Sequence[int]) -> dict[str, Tensor]:
        if texts[0].prompt is None:
            tokens, mask = self.text([text.text for text in texts])
            return {"tokens": tokens, "mask": mask}
        before = [text.images_before(count) for text, count in zip(texts, images, strict=True)]
        tokens, mask = self.text([text.prompt or "" for text in texts], images=before)
        return {"tokens": tokens, "mask": mask, "targets": self.text.targets([text.text for text in texts])}


def _most_tokens(prompt: Prompt) -> int:
    parts = (prompt,) if isinstance(prompt, str) else prompt
    return sum(len(part.encode("utf-8", "replace")) if isinstance(part, str) else 1 for part in parts)


def _generator(seed: int, number: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64([seed, number]))


def _drawn(image: ImageSource, size: tuple[int, int]) -> bool:
    return isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.shape == (*size, 3)


class MixedBatches:
    """Several batches in turn, each as often as its weight says: number i is always from the same part, and each part
    counts its own. With `together` each is a batch of every part, `mixture`: (weight, batch) of each."""

    def __init__(self, parts: Sequence[RecordBatches], weights: Sequence[float], together: bool = False):
        self.turns, self.parts = Turns(weights, len(parts)), list(parts)
        self.weights, self.together = list(weights), together
        self.processor = self.parts[0].processor
        self.most_damaged = min(part.most_damaged for part in self.parts)

    def batch(
        self, seed: int, index: int, batch_size: int, split: str = "train", share: tuple[int, int] = (0, 1)
    ) -> dict[str, Any]:
        """Batch number `index`, of whichever part's turn it is, or of all."""
        if self.together:
            each = [part.batch(seed, index, batch_size, split, share) for part in self.parts]
            damaged = [name for batch in each for name in batch.pop("damaged", [])]
            return {"mixture": list(zip(self.weights, each, strict=True)), "damaged": damaged}
        which, own = self.turns.at(index)
        return self.parts[which].batch(seed, own, batch_size, split, share)

    def texts(self, seed: int, index: int, batch_size: int) -> list[TextRow]:
        """As of `RecordBatches`; of a batch of every part, those of the first."""
        if self.together:
            return self.parts[0].texts(seed, index, batch_size)
        which, own = self.turns.at(index)
        return self.parts[which].texts(seed, own, batch_size)


class MixedRecords:
    """Several sources in each batch: row number i is from the part whose turn it is, and each part counts its own
    records. Parts give each record a generator of its own (`one_stream` False)."""

    one_stream = False

    def __init__(self, parts: Sequence[Source], weights: Sequence[float]):
        self.turns, self.parts = Turns(weights, len(parts)), list(parts)
        self.name = " and ".join(part.name for part in parts)

    def plan(self, index: int, batch_size: int, split: str) -> Plan:
        """As of `Source`."""
        makes = [part.plan(index, batch_size, split).make for part in self.parts]

        def make(record: Record, rng: np.random.Generator) -> Example:
            return makes[record.facts[_PART]](record, rng)

        return Plan(range(index * batch_size, (index + 1) * batch_size), make)

    def read(self, seed: int, number: int, split: str, attempt: int) -> Record:
        """As of `Source`; what stands in for a damaged record is of the same part."""
        which, own = self.turns.at(number)
        record = self.parts[which].read(seed, own, split, attempt)
        return replace(record, facts={**record.facts, _PART: which})


_PART = "part of the mixture"  # fact of a record


class Turns:
    """Whose turn it is among several parts, each as often as its weight says. Raises `UsageError` for other numbers of
    weights than of parts, and for weights that are not above 0."""

    def __init__(self, weights: Sequence[float], parts: int):
        if not parts or len(weights) != parts or min(weights) <= 0:
            raise UsageError("a mixture expects one weight above 0 for each of its parts")
        self.pattern = even_pattern(weights)
        self.before = [np.cumsum([0, *(self.pattern == i)]) for i in range(parts)]

    def at(self, number: int) -> tuple[int, int]:
        """The part of turn `number`, and how many turns it had before."""
        turn, at = divmod(number, len(self.pattern))
        which = int(self.pattern[at])
        counts = self.before[which]
        return which, int(turn * counts[-1] + counts[at])


def even_pattern(weights: Sequence[float], length: int = 1000) -> np.ndarray:
    """(length,) numbers of parts, each as often as its weight says and spread as evenly as can be."""
    shares = np.asarray(weights, dtype=np.float64) / sum(weights)
    owed, pattern = np.zeros(len(shares)), np.empty(length, dtype=np.int64)
    for i in range(length):
        owed += shares
        pattern[i] = owed.argmax()
        owed[pattern[i]] -= 1
    return pattern
