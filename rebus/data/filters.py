"""Which pairs of images and texts are worth learning from: COYO's columns and ALIGN's rules, for every layout.

`sift(reader, ALIGN)` goes through a data set (twice where frequencies count) and gives a reader of what is left, with
the number refused for each reason. A text filter refuses a caption; a record goes when none of its captions is left.

Jia et al., "Scaling Up Visual and Vision-Language Representation Learning With Noisy Text Supervision", 2021,
Section 3. Byeon et al., "COYO-700M: Image-Text Pair Dataset", 2022.
"""

import io
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np

from rebus.core.errors import RebusError, UsageError
from rebus.data.damaged_files import OverReader
from rebus.data.frequencies import Common, Counting, Frequent, words_of
from rebus.data.near_duplicates import Looks
from rebus.data.record import BadRecord, Reader, Record

# (record, one of its captions or "") → why it is refused, in the same words for all, or None
Rule: TypeAlias = Callable[[Record, str], str | None]
Progress = Callable[[int, int], None]  # records seen, records to see


@dataclass(frozen=True, kw_only=True)
class Filters:
    """What a pair must have; None asks for nothing. Scores are columns of COYO, found among the facts.

    A record that does not have the column a filter asks for is refused, and counted under its name.
    """

    min_width: int | None = None  # pixels
    min_height: int | None = None
    shorter_side_over: int | None = None
    aspect_under: float | None = None  # longer side / shorter side
    min_clip_b32: float | None = None  # similarity of image and text
    min_clip_l14: float | None = None
    min_aesthetic: float | None = None
    max_nsfw_opennsfw2: float | None = None
    max_nsfw_gantman: float | None = None
    max_watermark: float | None = None
    min_faces: int | None = None
    max_faces: int | None = None
    min_words: int | None = None  # between blanks
    max_words: int | None = None
    texts_per_image: int | None = None  # an image with more different texts goes
    images_per_text: int | None = None  # a text with more different images goes
    min_gram_count: int | None = None  # a text goes with any word or pair of words that the data has less often
    most_grams: int | None = None  # drop texts with a unigram or bigram outside the N most frequent

    @property
    def counts_words(self) -> bool:
        return self.min_gram_count is not None or self.most_grams is not None

    @property
    def needs_counting(self) -> bool:
        return self.counts_words or self.texts_per_image is not None or self.images_per_text is not None


# ALIGN, Section 3. Near duplicates of test images, which went too, are told by `sift(…, tested=…)`; pornography by
# scores of another model, such as COYO's two.
ALIGN = Filters(
    shorter_side_over=200,
    aspect_under=3,
    texts_per_image=1_000,
    images_per_text=10,
    min_words=3,
    max_words=20,
    most_grams=100_000_000,
)

_COLUMNS = (  # field, column, whether the value must reach the bound or keep to it
    ("min_clip_b32", "clip_similarity_vitb32", True),
    ("min_clip_l14", "clip_similarity_vitl14", True),
    ("min_aesthetic", "aesthetic_score_laion_v2", True),
    ("max_nsfw_opennsfw2", "nsfw_score_opennsfw2", False),
    ("max_nsfw_gantman", "nsfw_score_gantman", False),
    ("max_watermark", "watermark_score", False),
    ("min_faces", "num_faces", True),
    ("max_faces", "num_faces", False),
)


def rules(filters: Filters, frequent: Frequent | None = None, common: Common | None = None) -> list[Rule]:
    """The filters that are set, cheap ones first. `common`: a set of words that the user gives, instead of a count.

    Raises `UsageError` when a filter needs `frequent` and it was not counted.
    """
    if filters.needs_counting and frequent is None:
        raise UsageError("these filters need frequencies: count them first, with rebus.data.filters.count")
    chosen: list[Rule] = []
    for field, column, at_least in _COLUMNS:
        if (bound := getattr(filters, field)) is not None:
            chosen.append(partial(below if at_least else above, column=column, bound=bound))
    if filters.min_words is not None:
        chosen.append(partial(too_short, words=filters.min_words))
    if filters.max_words is not None:
        chosen.append(partial(too_long, words=filters.max_words))
    if frequent is not None and filters.images_per_text is not None:
        chosen.append(partial(shared_text, frequent=frequent, most=filters.images_per_text))
    if frequent is not None and filters.texts_per_image is not None:
        chosen.append(partial(shared_image, frequent=frequent, most=filters.texts_per_image))
    common = common or (frequent.common if frequent is not None else None)
    if common is not None:
        chosen.append(partial(rare_word, common=common))
    sides = (filters.min_width, filters.min_height, filters.shorter_side_over, filters.aspect_under)
    if any(side is not None for side in sides):
        chosen.append(partial(wrong_size, filters=filters))
    return chosen


def below(record: Record, caption: str, *, column: str, bound: float) -> str | None:
    value = number_in(record.facts, column)
    return f"no {column}" if value is None else f"{column} below {bound:g}" if not value >= bound else None


def above(record: Record, caption: str, *, column: str, bound: float) -> str | None:
    value = number_in(record.facts, column)
    return f"no {column}" if value is None else f"{column} above {bound:g}" if not value <= bound else None


def too_short(record: Record, caption: str, *, words: int) -> str | None:
    return f"text of less than {words} words" if len(words_of(caption)) < words else None


def too_long(record: Record, caption: str, *, words: int) -> str | None:
    return f"text of more than {words} words" if len(words_of(caption)) > words else None


def shared_text(record: Record, caption: str, *, frequent: Frequent, most: int) -> str | None:
    return f"text of more than {most} images" if frequent.has_text(caption) else None


def shared_image(record: Record, caption: str, *, frequent: Frequent, most: int) -> str | None:
    return f"image with more than {most} texts" if frequent.has_image(record) else None


def rare_word(record: Record, caption: str, *, common: Common) -> str | None:
    return None if common.has_all(caption) else "text with a rare word or pair of words"


def wrong_size(record: Record, caption: str, *, filters: Filters) -> str | None:
    size = size_of(record)
    if size is None:
        return "no width and height"
    width, height = size
    shorter, longer = sorted(size)
    if filters.min_width is not None and width < filters.min_width:
        return f"width below {filters.min_width}"
    if filters.min_height is not None and height < filters.min_height:
        return f"height below {filters.min_height}"
    if filters.shorter_side_over is not None and shorter <= filters.shorter_side_over:
        return f"shorter side not over {filters.shorter_side_over}"
    if filters.aspect_under is not None and longer >= filters.aspect_under * shorter:
        return f"aspect not under {filters.aspect_under:g}"
    return None


def size_of(record: Record) -> tuple[float, float] | None:
    """Width and height as they were found, as they are now, or from the head of the image's file."""
    for names in (("original_width", "original_height"), ("width", "height")):
        width, height = (number_in(record.facts, name) for name in names)
        if width and height and width > 0 and height > 0:
            return width, height
    if isinstance(record.image, np.ndarray):
        return record.image.shape[1], record.image.shape[0]
    return None if record.image is None else _size_in_file(record.image)


def _size_in_file(image: bytes | Path) -> tuple[float, float] | None:
    from rebus.codec.image_formats import kind_of, opener  # brings the parsers of images

    try:
        data = image.read_bytes() if isinstance(image, Path) else image
        opened = opener(kind_of(data[:512]), "image")(io.BytesIO(data))
        turned = opened.getexif().get(0x0112, 1) in (5, 6, 7, 8)  # orientation
    except Exception:  # a parser may raise anything over a stranger's bytes
        return None
    return opened.size[::-1] if turned else opened.size


def number_in(facts: Mapping[str, object], name: str) -> float | None:
    """A fact as a number, also where a table of text holds it; None where it is none."""
    try:
        return float(facts[name])  # type: ignore[arg-type]
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def sieve(record: Record, chosen: Sequence[Rule]) -> tuple[Record | None, list[str]]:
    """The record with the captions that pass, or None, and why each other one was refused."""
    passed: list[str] = []
    reasons: list[str] = []
    for caption in record.captions or ("",):
        reason = next((why for rule in chosen if (why := rule(record, caption)) is not None), None)
        (passed if reason is None else reasons).append(caption if reason is None else reason)
    if len(passed) == len(record.captions or ("",)):
        return record, []
    return (replace(record, captions=tuple(passed)) if passed else None), reasons


def tested_on(record: Record, tested: Looks) -> str | None:
    """Why a record is refused whose image may be one of those to be measured on."""
    try:
        return "image like a test image" if record.image is not None and tested.has(record.image) else None
    except RebusError:
        return "image that cannot be read"


def count(reader: Reader, filters: Filters, progress: Progress | None = None) -> Frequent:
    """The first pass: what comes too often, as the filters say."""
    counting = Counting(words=filters.counts_words)
    for _, _, record in _all(reader, progress):
        if record is not None:
            counting.add(record)
    return counting.finish(
        images_per_text=filters.images_per_text,
        texts_per_image=filters.texts_per_image,
        min_count=filters.min_gram_count,
        most=filters.most_grams,
    )


@dataclass(frozen=True)
class Sifted(OverReader):
    """A reader of the records that pass. `refused` counts captions by reason, `damaged` records."""

    reader: Reader
    chosen: tuple[Rule, ...]
    rows: tuple[np.ndarray, ...]  # of each block, those that are left
    refused: Mapping[str, int]
    damaged: int

    @property
    def sizes(self) -> Sequence[int]:
        return [len(rows) for rows in self.rows]

    def read(self, block: int, row: int) -> Record:
        record = self.reader.read(block, int(self.rows[block][row]))
        left, reasons = sieve(record, self.chosen)
        if left is None:
            raise BadRecord(record.key, f"has changed since it was filtered: {reasons[0]}")
        return left


def sift(
    reader: Reader,
    filters: Filters,
    *,
    common: Common | None = None,
    tested: Looks | None = None,
    progress: Progress | None = None,
) -> Sifted:
    """What passes the filters. `common`: unigrams and bigrams that are no rare ones, instead of counting them.
    `tested`: images to be measured on, near duplicates of which go too; who looks at images, decodes them all."""
    if common is not None:
        filters = replace(filters, min_gram_count=None, most_grams=None)
    frequent = count(reader, filters, progress) if filters.needs_counting else None
    chosen = rules(filters, frequent, common)
    left: list[list[int]] = [[] for _ in reader.sizes]
    refused: Counter[str] = Counter()
    damaged = 0
    for block, row, record in _all(reader, progress):
        if record is None:
            damaged += 1
            continue
        passed, reasons = sieve(record, chosen)
        if passed is not None and tested is not None and (reason := tested_on(passed, tested)) is not None:
            reasons += [reason] * max(1, len(passed.captions))
            passed = None
        refused.update(reasons)
        if passed is not None:
            left[block].append(row)
    rows = tuple(np.array(rows, dtype=np.int64) for rows in left)
    return Sifted(reader, tuple(chosen), rows, dict(refused), damaged)


def _all(reader: Reader, progress: Progress | None) -> Iterator[tuple[int, int, Record | None]]:
    """(block, row, record) of every record as they lie; None for a damaged one."""
    total, seen = sum(reader.sizes), 0
    for block, size in enumerate(reader.sizes):
        for row in range(size):
            record: Record | None = None
            with suppress(BadRecord):
                record = reader.read(block, row)
            yield block, row, record
            seen += 1
            if progress is not None:
                progress(seen, total)
