"""Walking over a data set: records opened a batch at a time, what is damaged left out, counted and named."""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from rebus.codec.images import open_images
from rebus.core.errors import LimitExceeded, RebusError
from rebus.core.strict_json import to_json
from rebus.data.damaged_files import check_files
from rebus.data.layouts import open_layout
from rebus.data.reading.media_paths import media_root
from rebus.data.record import BadRecord, Reader, Record, StoredImage
from rebus.data.shuffle import ShuffledOrder
from rebus.tasks.batching import progress

MOST_DAMAGED = 0.1  # share of the records at which a run stops
BATCH = 32  # images held open at a time

Place = tuple[int, int]
Check = Callable[["Example"], "Example | None"]
Open = Callable[[Path, str, str | None], Reader]


@dataclass(frozen=True)
class Example:
    """A record with its image, upright. `again` reads the image's bytes or path again, much later."""

    record: Record
    image: Image.Image
    place: Place
    again: Callable[[], StoredImage | None]

    def bad(self, reason: str) -> BadRecord:
        """The error for a record that the benchmark cannot use."""
        return BadRecord(self.record.key, reason)


class Records:
    """The records of a reader that are measured: all, or `number` of them drawn by `seed`, as they lie.

    Counts what it meets: `used` and `damaged`, the reasons; `damaged_files` names files that lost records.
    `fingerprint` is of the images and truths used. `name`: of the data set, for messages. Raises `RebusError` where
    more than a tenth of the files is damaged.
    """

    def __init__(
        self,
        reader: Reader,
        *,
        number: int | None = None,
        seed: int = 0,
        batch_size: int = BATCH,
        name: str = "the data set",
    ):
        self.reader, self.batch_size, self.name = reader, batch_size, name
        self.total = len(ShuffledOrder(reader.sizes, seed))
        self._number = self.total if number is None else min(number, self.total)
        self._seed = seed
        self._digest = hashlib.sha256()
        self.damaged_files = check_files(reader, MOST_DAMAGED, "leave the damaged ones away")
        self.used = 0
        self.damaged: list[str] = []

    def __len__(self) -> int:
        return self._number

    @property
    def fingerprint(self) -> str:
        return self._digest.hexdigest()[:32]

    def places(self) -> Iterator[Place]:
        """Where the records lie, in order."""
        if self._number == self.total:
            return ShuffledOrder(self.reader.sizes, 0, shuffle=False).places(0, self.total)
        return iter(sorted(ShuffledOrder(self.reader.sizes, self._seed).places(0, self._number)))

    def batches(self, check: Check | None = None, places: Sequence[Place] | None = None) -> Iterator[list[Example]]:
        """Examples, `batch_size` at most at a time. `check` raises `BadRecord` for one that cannot be used, and may
        give another in its place.

        Raises `RebusError` when more than a tenth of the records is damaged, naming the first.
        """
        wanted: Iterator[Place] = self.places() if places is None else iter(places)
        with progress("records", self._number if places is None else len(places)) as advance:
            waiting: list[tuple[Place, Record]] = []
            for place in wanted:
                record = self.record(place)
                if record is not None:
                    waiting.append((place, record))
                if len(waiting) == self.batch_size:
                    yield from self._some(waiting, check)
                    waiting = []
                advance(1)
            yield from self._some(waiting, check)
        if not self.used:
            raise RebusError(f"none of the {len(self):,} records can be used{self._first()}")

    def record(self, place: Place) -> Record | None:
        """One record without its image opened; None for a damaged one, which is counted."""
        try:
            return self.reader.read(*place)
        except (RebusError, OSError) as error:
            key = "" if isinstance(error, BadRecord) else f"block {place[0]}, row {place[1]}: "
            self._refuse(f"{key}{error}")
            return None

    def image(self, place: Place) -> StoredImage | None:
        return self.reader.read(*place).image

    def _some(self, waiting: Sequence[tuple[Place, Record]], check: Check | None) -> Iterator[list[Example]]:
        """The examples that can be used, as one batch if there are any; as more where the images are too large."""
        try:
            opened = self._opened(waiting)
        except LimitExceeded:
            if len(waiting) == 1:
                raise
            half = len(waiting) // 2
            yield from self._some(waiting[:half], check)
            yield from self._some(waiting[half:], check)
            return
        found = []
        for place, record, image in opened:
            example = Example(record, image, place, partial(self.image, place))
            try:
                _check_texts(example)
                if check is not None:
                    example = check(example) or example
            except BadRecord as error:
                self._refuse(str(error))
                continue
            self.used += 1
            self._digest.update(_content(record))
            found.append(example)
        if found:
            yield found

    def _opened(self, waiting: Sequence[tuple[Place, Record]]) -> list[tuple[Place, Record, Image.Image]]:
        """Those whose image can be opened. Raises `LimitExceeded` where they are too large to be held together."""
        sources = [record.image for _, record in waiting if record.image is not None]
        images, failures = open_images(sources, on_error="skip")
        found, at = [], 0
        for place, record in waiting:
            if record.image is None:
                self._refuse(f"{record.key}: has no image")
                continue
            image = images[at]
            if image is not None:
                found.append((place, record, image))
            else:
                self._refuse(f"{record.key}: {str(failures[at]).removeprefix(f'images[{at}]: ')}")
            at += 1
        return found

    def _refuse(self, reason: str) -> None:
        self.damaged.append(reason)
        if len(self.damaged) > MOST_DAMAGED * len(self):
            count = len(self.damaged)
            raise RebusError(
                f"{count:,} records cannot be used, more than {MOST_DAMAGED:.0%} of {len(self):,}{self._first()}"
            )

    def _first(self) -> str:
        return f"; the first: {self.damaged[0]}" if self.damaged else ""


@dataclass
class Source:
    """What was asked for: where the data are and how many of them. `opened`: all that a benchmark read of it."""

    data: str | os.PathLike[str] | Reader
    layout: str = "auto"
    split: str | None = None
    number: int | None = None
    seed: int = 0
    batch_size: int = BATCH
    root: str | os.PathLike[str] | None = None  # where the data may point, besides their own folder
    opened: list[Records] = field(default_factory=list)

    def records(self, open: Open = open_layout) -> Records:
        """Those to be measured. `open` for benchmarks with files of their own."""
        return self._records(open, self.split, self.number)

    def others(self, split: str) -> Records:
        """All records of another split."""
        return self._records(open_layout, split, None)

    def _records(self, open: Open, split: str | None, number: int | None) -> Records:
        here = isinstance(self.data, str | os.PathLike)
        with media_root(self.root):
            reader: Any = open(Path(self.data), self.layout, split) if here else self.data  # type: ignore[arg-type]
        name = os.fspath(self.data) if here else "the data set"  # type: ignore[arg-type]
        records = Records(reader, number=number, seed=self.seed, batch_size=self.batch_size, name=name)
        self.opened.append(records)
        return records


def _check_texts(example: Example) -> None:
    record = example.record
    texts = (*record.captions, *(q.text for q in record.questions), *(p.text for p in record.phrases))
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        raise example.bad("its text contains a lone surrogate") from None


def _content(record: Record) -> bytes:
    """What the record holds, wherever it lies: its image's digest and its truths."""
    image = record.image
    if isinstance(image, Path):
        with image.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    else:
        digest = hashlib.sha256(b"" if image is None else bytes(image)).hexdigest()
    truths = {
        "label": record.label,
        "captions": record.captions,
        "questions": [asdict(question) for question in record.questions],
        "things": [asdict(thing) for thing in record.things],
        "phrases": [asdict(phrase) for phrase in record.phrases],
        "absent": record.absent,
        "incomplete": record.incomplete,
    }
    return to_json([digest, truths], sort_keys=True, default=str).encode("ascii")
