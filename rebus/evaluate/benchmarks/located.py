"""What detection and referring share: true boxes and masks of a record, and answers as the metrics want them."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from rebus.core.answers import Box, Mask
from rebus.core.box_overlap import box_iou
from rebus.core.errors import RebusError, UsageError
from rebus.data.annotated_size import PixelsOfImages
from rebus.data.outlines import has_area, mask_of
from rebus.data.record import XYXY, Thing
from rebus.evaluate.benchmarks.walk import Example
from rebus.evaluate.detection import By, Detections, Truth
from rebus.evaluate.metrics import mask_iou
from rebus.evaluate.outcome import Mistake

_SHOWN = 8  # answers of a mistake that are named


def in_pixels_of_image(example: Example, in_pixels: PixelsOfImages) -> Example:
    """The example with boxes and outlines in the pixels of its image. Raises `BadRecord` as `PixelsOfImages` does."""
    return replace(example, record=in_pixels(example.record, example.image.size))


def was_marked(example: Example) -> bool:
    """False where nobody looked for things."""
    facts = example.record.facts
    return "boxes" not in facts or facts["boxes"] is not None


def mask_of_thing(example: Example, thing: Thing) -> np.ndarray:
    """bool (H, W). Raises `BadRecord` for a thing without an outline that has area, or with a damaged one."""
    if not has_area(thing.outline):
        raise example.bad(f"thing {thing.id or thing.label} has no outline of three corners or more")
    try:
        return mask_of(thing.outline, example.image.height, example.image.width)
    except RebusError as error:
        raise example.bad(str(error)) from None


def truth_of(example: Example, by: By) -> Truth:
    """The things of the record. Areas are those that the data set gives, where it gives all."""
    record, things = example.record, example.record.things
    masks = [mask_of_thing(example, thing) for thing in things] if by == "masks" else []
    areas = [thing.area for thing in things]
    return Truth(
        labels=[thing.label for thing in things],
        boxes=np.array([thing.box for thing in things], dtype=np.float64).reshape(-1, 4),
        masks=np.stack(masks) if masks else None,
        crowd=[thing.crowd for thing in things],
        areas=None if None in areas else np.array(areas, dtype=np.float64),
        absent=record.absent,
        incomplete=record.incomplete,
    )


def detections(answers: Sequence[Box | Mask], by: By) -> Detections:
    """What a model found, as the metrics take it."""
    masks = [answer.mask for answer in answers if isinstance(answer, Mask)]
    return Detections(
        labels=[answer.label for answer in answers],
        scores=np.array([answer.score for answer in answers], dtype=np.float64),
        boxes=np.array([corners(answer) for answer in answers], dtype=np.float64).reshape(-1, 4),
        masks=np.stack(masks) if by == "masks" and masks else None,
    )


def corners(answer: Box | Mask) -> XYXY:
    """Left, top, right, bottom; a box written backwards holds nothing."""
    left, top, right, bottom = answer.box if isinstance(answer, Mask) else answer.xyxy
    return left, top, max(left, right), max(top, bottom)


def best(answers: Sequence[Box | Mask]) -> Any:
    """The surest, the earlier of equals; None of none."""
    return max(answers, key=lambda answer: answer.score, default=None)


def find(model: Any, batch: Sequence[Example], labels: Sequence[str], by: By, together: int) -> list[list[Any]]:
    """What the model finds of `labels`, `together` of them asked for at a time.

    For masks each label that `detect` finds in an image is segmented; all are where the model has no `detect`.
    """
    images = [example.image for example in batch]
    boxes: list[list[Any]] = [[] for _ in batch]
    if by == "boxes" or "detect" in model.tasks:
        for start in range(0, len(labels), together):
            for own, found in zip(boxes, model.detect(images, list(labels[start : start + together])), strict=True):
                own += found
    if by == "boxes":
        return boxes
    found_labels = [{box.label for box in own} for own in boxes]
    wanted = [
        (at, label)
        for at in range(len(batch))
        for label in labels
        if "detect" not in model.tasks or label in found_labels[at]
    ]
    masks: list[list[Any]] = [[] for _ in batch]
    if wanted:
        answers = model.segment([images[at] for at, _ in wanted], [label for _, label in wanted])
        for (at, label), own in zip(wanted, answers, strict=True):
            masks[at] += [Mask(mask.mask, mask.box, label, mask.score) for mask in own]
    return masks


def check_can(model: Any, by: By) -> None:
    """Raises `UsageError` for a model that cannot find what is counted."""
    if by not in ("boxes", "masks"):
        raise UsageError(f'--by expects "boxes" or "masks"; got "{by}"')
    task = "detect" if by == "boxes" else "segment"
    if task not in model.tasks:
        raise UsageError(f"counting {by} needs a model that can {task}; this one does {', '.join(sorted(model.tasks))}")


def mistake(example: Example, truth: Truth, answers: Sequence[Box | Mask]) -> Mistake | None:
    """What is wrong at an overlap of one half: things missed, and answers on nothing by how sure they were.

    Masks are compared where both sides have them, boxes else.
    """
    places = [at for at, thing in enumerate(example.record.things) if not thing.crowd]
    things = [example.record.things[at] for at in places]
    left, wrong = list(places), []
    for answer in sorted(answers, key=lambda one: -one.score):
        near = [at for at in left if truth.labels[at] == answer.label and _overlap(truth, at, answer) >= 0.5]
        if near:
            left.remove(near[0])
        else:
            wrong.append(answer)
    badness = len(left) + sum(answer.score for answer in wrong)
    if not badness:
        return None
    best = sorted(answers, key=lambda one: -one.score)
    return Mistake(
        key=example.record.key,
        badness=badness,
        said=_listed([answer.label for answer in best[:_SHOWN]]),
        truth=f"{_listed([thing.label for thing in things])}; missed: {_listed([truth.labels[at] for at in left])}",
        image=example.again,
        found=best,
        wanted=[Box(thing.box, thing.label, math.nan) for thing in things],
    )


def _overlap(truth: Truth, at: int, answer: Box | Mask) -> float:
    if truth.masks is not None and isinstance(answer, Mask):
        return mask_iou(answer.mask, truth.masks[at])
    assert truth.boxes is not None
    left, top, right, bottom = truth.boxes[at].tolist()
    return box_iou(corners(answer), (left, top, right, bottom))


def _listed(labels: Sequence[str]) -> str:
    counts = {label: labels.count(label) for label in labels}
    return ", ".join(label if n == 1 else f"{n} x {label}" for label, n in counts.items()) or "nothing"
