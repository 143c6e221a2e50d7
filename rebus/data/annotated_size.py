"""Annotations in pixels follow their image: brought to its size, and scaled when it is resized."""

import logging
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from rebus.data.filters import number_in
from rebus.data.outlines import mask_of, outline_of
from rebus.data.record import BadRecord, Phrase, Record, Thing

Size = tuple[int, int]  # (width, height), upright

log = logging.getLogger("rebus")


class PixelsOfImages:
    """Brings the annotations of a data set's records into the pixels that their upright images have.

    Sets whose images were made smaller after they were annotated say another size than the files have. With the same
    aspect, but for sides rounded to whole pixels, the annotations are scaled, and the first time this is logged.
    """

    def __init__(self, dataset: str):
        self.dataset, self._told = dataset, False

    def __call__(self, record: Record, size: Size) -> Record:
        """Raises `BadRecord` where the record says a size of another aspect than its image has."""
        width, height = (number_in(record.facts, side) for side in ("width", "height"))
        if width is None or height is None or (width, height) == size:
            return record
        if not _same_aspect(width, height, size):
            turned = (width, height) == size[::-1] and width != height
            upright = " once its EXIF orientation has set it upright" if turned else ""
            raise BadRecord(
                record.key,
                f"its boxes are for an image of {width:g} x {height:g}, and this one has {size[0]} x {size[1]}"
                f"{upright}; give the annotated images, or annotations in the pixels of these",
            )
        if not self._told:
            self._told = True
            log.warning(
                "%s: %s is annotated for %g x %g and has %d x %d, the same aspect: its boxes, and those of all others "
                "like it, are scaled to their images",
                *(self.dataset, record.key, width, height, *size),
            )
        record = resized(record, (round(width), round(height)), size, (size[0] / width, size[1] / height))
        return replace(record, facts={**record.facts, "width": size[0], "height": size[1]})


def _same_aspect(width: float, height: float, size: Size) -> bool:
    """Whether one scale gives both sides within a pixel."""
    if width < 1 or height < 1:
        return False
    return max((size[0] - 1) / width, (size[1] - 1) / height) < min((size[0] + 1) / width, (size[1] + 1) / height)


def has_places(record: Record) -> bool:
    """Whether anything in the record is in pixels of its image."""
    return bool(record.things or record.phrases)


def resized(record: Record, before: Size, after: Size, scale: tuple[float, float]) -> Record:
    """The record of an image that was resized from `before` to `after`, which is `scale` but for whole pixels.

    Boxes, polygons and areas are scaled, run-length masks are resampled. Raises `RebusError` for runs that do not fit
    `before`.
    """

    def moved(thing: Thing) -> Thing:
        left, top, right, bottom = (
            min(by * side, end) for by, side, end in zip((*scale, *scale), thing.box, (*after, *after))
        )
        return replace(
            thing,
            box=(left, top, right, bottom),
            outline=_outline(thing.outline, before, after, scale),
            area=None if thing.area is None else scale[0] * scale[1] * thing.area,
        )

    phrases = tuple(Phrase(text=phrase.text, thing=moved(phrase.thing)) for phrase in record.phrases)
    return replace(record, things=tuple(map(moved, record.things)), phrases=phrases)


def _outline(outline: Any, before: Size, after: Size, scale: tuple[float, float]) -> Any:
    if isinstance(outline, list):  # what is no polygon stays for whoever draws it to say so
        return [_polygon(polygon, scale) if isinstance(polygon, list) else polygon for polygon in outline]
    if outline is None:
        return None
    mask = Image.fromarray(mask_of(outline, before[1], before[0]))
    return outline_of(np.asarray(mask.resize(after, Image.Resampling.NEAREST)))


def _polygon(polygon: list[Any], scale: tuple[float, float]) -> list[Any]:
    """[x, y, x, y, …]"""
    return [scale[n % 2] * at if _is_number(at) else at for n, at in enumerate(polygon)]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
