"""Retrieval: the captions of an image among all captions, and the image of a caption among all images.

Counted as on the 5,000 images of COCO (Karpathy and Fei-Fei, 2015): an image is found with any of its captions, each
caption finds one image. Of equal scores the earlier comes first.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from rebus.core.errors import UsageError
from rebus.evaluate.benchmarks.walk import Example, Records, Source
from rebus.evaluate.outcome import Mistake, Outcome, Plot, Worst
from rebus.tasks.batching import progress
from rebus.tasks.embed import Comparison

READS = "images with one caption or more each (coco, karpathy, folder, webdataset)"
TASKS = ("match",)

MOST_PAIRS = 1_000_000  # for models that look at each pair anew
_CHUNK = 1024  # rows of scores held at a time
_CURVE = (1, 2, 3, 5, 10, 20, 50, 100)

Scores = Callable[[slice, slice], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Options:
    """`captions`: how many of each image, the first ones. Papers take five of COCO's."""

    captions: int = 5


@dataclass(frozen=True)
class _Read:
    """All that was read: images by key, and texts with the number of the image that each is about."""

    keys: list[str]
    again: list[Any]
    texts: list[str]
    owner: np.ndarray  # (texts,)


def run(model: Any, source: Source, options: Options) -> Outcome:
    records = source.records()
    chosen = _embedded if "embed_images" in model.tasks and "embed_texts" in model.tasks else _matched
    read, scores = chosen(model, records, options.captions)
    worst = Worst()
    to_text = _ranks_of_images(read, scores, worst)
    to_image = _ranks_of_texts(read, scores)
    found = {"image_to_text": _summary(to_text), "text_to_image": _summary(to_image)}
    mean = float(np.mean([found[way][f"r{k}"] for way in found for k in (1, 5, 10)]))
    ks = [k for k in _CURVE if k <= len(read.keys)]  # beyond the number of images there is nothing to find
    curve = Plot(
        name="recall",
        title="how often the right one is among the first k",
        x="k",
        y="recall",
        kind="lines",
        series={
            way.replace("_", " "): (ks, [float((ranks <= k).mean()) for k in ks])
            for way, ranks in (("image_to_text", to_text), ("text_to_image", to_image))
        },
    )
    counted = f"{len(read.keys):,} images, {len(read.texts):,} captions"
    return Outcome(scores={**found, "mean_recall": mean}, worst=[*worst], plots=[curve], notes=[counted])


def _embedded(model: Any, records: Records, most: int) -> tuple[_Read, Scores]:
    """Each image and each text is embedded once."""
    compare, vectors = Comparison(model), []
    keys, again, captions = [], [], []
    for batch in records.batches(_has_captions):
        vectors.append(compare.images([example.image for example in batch]))
        keys += [example.record.key for example in batch]
        again += [example.again for example in batch]
        captions += [example.record.captions[:most] for example in batch]
    read = _join(keys, again, captions)
    import torch

    seen, said = torch.cat(vectors), compare.texts(read.texts)
    return read, lambda rows, columns: compare.scores(seen[rows], said[columns]).numpy()


def _matched(model: Any, records: Records, most: int) -> tuple[_Read, Scores]:
    """Every image is shown with every text."""
    pairs = len(records) ** 2 * most
    if pairs > MOST_PAIRS:
        raise UsageError(
            f"this model scores pair by pair, and {len(records):,} images with {most} captions each make up to "
            f"{pairs:,} pairs; at most {MOST_PAIRS:,}: take --number {int((MOST_PAIRS / most) ** 0.5)} or --captions 1"
        )
    examples = [example for batch in records.batches(_has_captions) for example in batch]
    read = _join(
        [example.record.key for example in examples],
        [example.again for example in examples],
        [example.record.captions[:most] for example in examples],
    )
    table = np.empty((len(examples), len(read.texts)), dtype=np.float32)
    with progress("images with all captions", len(examples)) as advance:
        for start in range(0, len(examples), records.batch_size):
            some = examples[start : start + records.batch_size]
            table[start : start + len(some)] = np.asarray(model.match([one.image for one in some], read.texts))
            advance(len(some))
    return read, lambda rows, columns: table[rows, columns]


def _has_captions(example: Example) -> None:
    if not example.record.captions:
        raise example.bad("has no caption")


def _join(keys: list[str], again: list[Any], captions: list[tuple[str, ...]]) -> _Read:
    owner = np.repeat(np.arange(len(captions)), [len(texts) for texts in captions])
    return _Read(keys, again, [text for texts in captions for text in texts], owner)


def _chunks(total: int) -> Iterator[slice]:
    return (slice(start, min(start + _CHUNK, total)) for start in range(0, total, _CHUNK))


def _ranks_of_images(read: _Read, scores: Scores, worst: Worst) -> np.ndarray:
    """For each image the rank of its best caption, 1 the best, (images,)."""
    ranks = np.empty(len(read.keys), dtype=np.int64)
    for rows in _chunks(len(ranks)):
        table = scores(rows, slice(None))
        own = read.owner == np.arange(rows.start, rows.stop)[:, None]
        best = np.where(own, table, -np.inf).argmax(axis=1)
        ranks[rows] = _rank(table, best)
        for row, first in enumerate(table.argmax(axis=1)):
            number = rows.start + row
            if ranks[number] > 1:
                worst.add(_mistake(read, number, int(first), int(ranks[number])))
    return ranks


def _ranks_of_texts(read: _Read, scores: Scores) -> np.ndarray:
    """For each text the rank of its image, (texts,)."""
    ranks = np.empty(len(read.texts), dtype=np.int64)
    for columns in _chunks(len(ranks)):
        ranks[columns] = _rank(scores(slice(None), columns).T, read.owner[columns])
    return ranks


def _rank(table: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The place of column `wanted[row]` in each row of a table, by falling score and then from left to right."""
    score = np.take_along_axis(table, wanted[:, None], axis=1)
    before = np.arange(table.shape[1]) < wanted[:, None]
    return 1 + ((table > score) | ((table == score) & before)).sum(axis=1)


def _summary(ranks: np.ndarray) -> dict[str, float]:
    return {**{f"r{k}": float((ranks <= k).mean()) for k in (1, 5, 10)}, "median_rank": float(np.median(ranks))}


def _mistake(read: _Read, image: int, first: int, rank: int) -> Mistake:
    own = [read.texts[at] for at in np.flatnonzero(read.owner == image)]
    return Mistake(
        key=read.keys[image],
        badness=rank,
        said=read.texts[first],
        truth=f"{own[0]} (its best caption came {rank}.)",
        image=read.again[image],
    )
