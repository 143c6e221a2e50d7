"""Referring expressions: phrases that describe exactly one object, to be detected or segmented.

Boxes: a phrase is right when its surest box overlaps the object's by one half or more. Masks: the mean of the overlaps
(mIoU), and all shared pixels over all pixels of either (cIoU, also called overall IoU). No answer counts 0.
Yu et al., "Modeling Context in Referring Expressions", 2016.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rebus.core.answers import Box
from rebus.core.box_overlap import box_iou
from rebus.core.errors import UsageError
from rebus.data.annotated_size import PixelsOfImages
from rebus.data.outlines import has_area
from rebus.data.record import Phrase
from rebus.evaluate.benchmarks.located import best, check_can, corners, in_pixels_of_image, mask_of_thing
from rebus.evaluate.benchmarks.walk import Example, Source
from rebus.evaluate.detection import By
from rebus.evaluate.outcome import Mistake, Outcome, Plot, Worst

READS = "images with phrases that describe one object each (refcoco)"
TASKS = ("detect", "segment")

_RIGHT = 0.5


@dataclass(frozen=True, kw_only=True)
class Options:
    """`by`: "boxes" or "masks"; by default all that the model can do and the data set has."""

    by: By | None = None


@dataclass
class _Tally:
    """Overlaps of phrases so far."""

    boxes: list[float]
    masks: list[float]
    shared: int = 0
    either: int = 0


def run(model: Any, source: Source, options: Options) -> Outcome:
    if options.by is not None:
        check_can(model, options.by)
    tasks = {"boxes": "detect", "masks": "segment"}
    ways = [way for way, task in tasks.items() if task in model.tasks and options.by in (None, way)]
    tally, worst, without = _Tally([], []), Worst(), 0

    records = source.records()
    in_pixels = PixelsOfImages(records.name)

    def check(example: Example) -> Example:
        example = in_pixels_of_image(example, in_pixels)
        if not example.record.phrases:
            raise example.bad("has no phrase")
        for phrase in example.record.phrases:
            if options.by == "masks" or ("masks" in ways and has_area(phrase.thing.outline)):
                mask_of_thing(example, phrase.thing)
        return example

    for batch in records.batches(check):
        asked = [(example, phrase) for example in batch for phrase in example.record.phrases]
        if "boxes" in ways:
            for example, phrase in asked:
                _box(tally, worst, example, phrase, model.detect(example.image, [phrase.text]))
        if "masks" in ways:
            drawn = [(example, phrase) for example, phrase in asked if has_area(phrase.thing.outline)]
            without += len(asked) - len(drawn)
            if drawn:
                said = model.segment([example.image for example, _ in drawn], [phrase.text for _, phrase in drawn])
                for (example, phrase), masks in zip(drawn, said, strict=True):
                    _mask(tally, worst, example, phrase, masks, "boxes" not in ways)
    if not tally.boxes and not tally.masks:
        raise UsageError("no object has an outline: masks cannot be counted; take --by boxes and a model that detects")
    return Outcome(scores=_scores(tally), worst=[*worst], plots=_plots(tally), notes=_notes(tally, without))


def _box(tally: _Tally, worst: Worst, example: Example, phrase: Phrase, boxes: Sequence[Box]) -> None:
    chosen = best(boxes)
    overlap = box_iou(corners(chosen), phrase.thing.box) if chosen is not None else 0.0
    tally.boxes.append(overlap)
    if overlap < _RIGHT:
        worst.add(_mistake(example, phrase, chosen, overlap))


def _mask(
    tally: _Tally, worst: Worst, example: Example, phrase: Phrase, masks: Sequence[Any], shows_mistakes: bool
) -> None:
    truth, chosen = mask_of_thing(example, phrase.thing), best(masks)
    said = chosen.mask if chosen is not None else np.zeros_like(truth)
    shared, either = int((truth & said).sum()), int((truth | said).sum())
    overlap = shared / either if either else 1.0
    tally.masks.append(overlap)
    tally.shared += shared
    tally.either += either
    if shows_mistakes and overlap < _RIGHT:
        worst.add(_mistake(example, phrase, chosen, overlap))


def _mistake(example: Example, phrase: Phrase, chosen: Any, overlap: float) -> Mistake:
    return Mistake(
        key=example.record.key,
        badness=1 - overlap + (chosen.score if chosen is not None else 0.0),
        said=f"“{phrase.text}”: {'nothing' if chosen is None else f'overlap {overlap:.2f}'}",
        truth=phrase.thing.label,
        image=example.again,
        found=[] if chosen is None else [chosen],
        wanted=[Box(phrase.thing.box, phrase.thing.label, math.nan)],
    )


def _scores(tally: _Tally) -> dict[str, Any]:
    scores: dict[str, Any] = {}
    if tally.boxes:
        overlaps = np.array(tally.boxes)
        scores |= {"accuracy": float((overlaps >= _RIGHT).mean()), "box_iou": float(overlaps.mean())}
    if tally.masks:
        scores |= {"miou": float(np.mean(tally.masks)), "ciou": tally.shared / max(tally.either, 1)}
    return scores


def _plots(tally: _Tally) -> list[Plot]:
    least = np.linspace(0.05, 0.95, 19)
    found = {"boxes": np.array(tally.boxes), "masks": np.array(tally.masks)}
    curves = {
        way: (least.tolist(), [float((overlaps >= one).mean()) for one in least])
        for way, overlaps in found.items()
        if len(overlaps)
    }
    title = "phrases found with at least this overlap"
    return [Plot(name="overlaps", title=title, x="overlap (IoU)", y="phrases", kind="lines", series=curves)]


def _notes(tally: _Tally, without: int) -> list[str]:
    notes = [f"{max(len(tally.boxes), len(tally.masks)):,} phrases"]
    if without:
        notes.append(f"{without:,} phrases without an outline are not in the numbers of masks")
    return notes
