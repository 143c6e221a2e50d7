"""What a data set holds: counted where its reader knows, else seen in a sample that the seed chooses."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from rebus.core.errors import RebusError
from rebus.data.filters import size_of
from rebus.data.record import BadRecord, Reader, Record

FIELDS = ("image", "captions", "label", "questions", "things", "phrases", "document", "video")
_QUANTILES = (0, 5, 25, 50, 75, 95, 100)  # percent
_MOST_LABELS = 20


@dataclass(frozen=True)
class Seen:
    """A sample of a data set, and what it tells. Quantiles are by percent: {"50": 9.0}."""

    blocks: int
    records: int
    sampled: int
    fields: Mapping[str, int]  # field → records of the sample that have it
    facts: Mapping[str, int]
    caption_words: Mapping[str, float]
    captions_each: Mapping[str, float]
    widths: Mapping[str, float]
    heights: Mapping[str, float]
    labels: Sequence[tuple[str, int]]  # the most frequent of the sample
    known_labels: int  # that the data set names in all
    damaged: Sequence[tuple[str, str]]  # key, reason
    faults: Sequence[str]  # files that cannot be read in part or in whole
    examples: Sequence[Record]

    def to_json(self) -> dict[str, Any]:
        """Without the examples."""
        shown = {name: value for name, value in vars(self).items() if name not in ("examples", "labels", "damaged")}
        damaged = [{"key": key, "reason": reason} for key, reason in self.damaged]
        return {**shown, "faults": list(self.faults), "labels": dict(self.labels), "damaged": damaged}


def inspect(reader: Reader, *, sample: int = 1000, examples: int = 24, seed: int = 0) -> Seen:
    """Look at `sample` records, or at all where there are fewer; keep `examples` of them from all over.

    Sizes of images come from the head of their files; nothing is decoded.
    """
    fields: Counter[str] = Counter()
    facts: Counter[str] = Counter()
    labels: Counter[str] = Counter()
    words: list[int] = []
    each: list[int] = []
    sizes: list[tuple[float, float]] = []
    shown: list[Record] = []
    damaged: list[tuple[str, str]] = []
    places = chosen(reader.sizes, sample, seed)
    every = max(1, len(places) // examples)
    for number, (block, row) in enumerate(places):
        try:
            record = reader.read(block, row)
        except BadRecord as error:
            damaged.append((error.key, error.reason))
            continue
        except (RebusError, OSError) as error:
            damaged.append((f"block {block}, row {row}", str(error)))
            continue
        size = None if record.image is None else size_of(record)
        if record.image is not None and size is None:
            damaged.append((record.key, "its image cannot be read"))
        elif number >= every * len(shown) and len(shown) < examples:
            shown.append(record)
        if size is not None:
            sizes.append(size)
        fields.update(name for name in FIELDS if getattr(record, name) not in (None, ()))
        facts.update(name for name, value in record.facts.items() if value is not None)
        labels.update(
            {thing.label for thing in record.things} | ({record.label} if record.label is not None else set())
        )
        words += [len(caption.split()) for caption in record.captions]
        each.append(len(record.captions))
    return Seen(
        blocks=len(reader.sizes),
        records=int(sum(reader.sizes)),
        sampled=len(places),
        fields={name: fields[name] for name in FIELDS if fields[name]},
        facts=dict(sorted(facts.items(), key=lambda item: (-item[1], item[0]))),
        caption_words=quantiles(words),
        captions_each=quantiles([number for number in each if number]),
        widths=quantiles([size[0] for size in sizes]),
        heights=quantiles([size[1] for size in sizes]),
        labels=labels.most_common(_MOST_LABELS),
        known_labels=len(getattr(reader, "labels", ())),
        damaged=damaged,
        faults=list(islice((*getattr(reader, "faults", ()), *getattr(reader, "unread", ())), 1000)),
        examples=shown,
    )


def chosen(sizes: Sequence[int], number: int, seed: int) -> list[tuple[int, int]]:
    """Places of `number` different records, in the order in which they lie: a function of the seed."""
    ends = np.cumsum([0, *sizes], dtype=np.int64)
    total = int(ends[-1])
    rng = np.random.Generator(np.random.PCG64(seed))
    if number >= total:
        numbers = np.arange(total)
    elif total < 1_000_000:
        numbers = np.sort(rng.choice(total, number, replace=False))
    else:  # without a number for each record
        numbers = np.unique(rng.integers(0, total, number))
    blocks = np.searchsorted(ends, numbers, side="right") - 1
    return [(int(block), int(n - ends[block])) for block, n in zip(blocks, numbers, strict=True)]


def quantiles(values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {}
    found = np.percentile(np.asarray(values, dtype=np.float64), _QUANTILES)
    return {str(percent): float(value) for percent, value in zip(_QUANTILES, found, strict=True)}
