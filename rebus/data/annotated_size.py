"""Annotations in pixels follow their image: checked against its size, and moved when it is resized."""

from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from rebus.data.filters import number_in
from rebus.data.outlines import mask_of, outline_of
from rebus.data.record import BadRecord, Phrase, Record, Thing

Size = tuple[int, int]  # (width, height), upright


def check_annotated_size(record: Record, size: Size) -> None:
    """Raises `BadRecord` where the record says another width or height than its upright image has."""
    said = number_in(record.facts, "width"), number_in(record.facts, "height")
    if None in said or said == size:
        return
    width, height = said
    turned = " once its EXIF orientation has set it upright" if said == size[::-1] and width != height else ""
    raise BadRecord(
        record.key,
        f"its boxes are for an image of {width:g} x {height:g}, and this one has {size[0]} x {size[1]}{turned}; "
        "give the images that were annotated, or their annotations in the pixels of these",
    )


def has_places(record: Record) -> bool:
    """Whether anything in the record is in pixels of its image."""
    return bool(record.things or record.phrases)


def resized(record: Record, before: Size, after: Size, scale: float) -> Record:
    """The record of an image that was resized by `scale` from `before` to `after`, sides rounded to whole pixels.

    Boxes, polygons and areas are scaled, runs are drawn anew. Raises `RebusError` for runs that do not fit `before`.
    """

    def moved(thing: Thing) -> Thing:
        left, top, right, bottom = (min(scale * side, end) for side, end in zip(thing.box, (*after, *after)))
        return replace(
            thing,
            box=(left, top, right, bottom),
            outline=_outline(thing.outline, before, after, scale),
            area=None if thing.area is None else scale**2 * thing.area,
        )

    phrases = tuple(Phrase(text=phrase.text, thing=moved(phrase.thing)) for phrase in record.phrases)
    return replace(record, things=tuple(map(moved, record.things)), phrases=phrases)


def _outline(outline: Any, before: Size, after: Size, scale: float) -> Any:
    if isinstance(outline, list):  # what is no polygon stays for whoever draws it to say so
        return [[scale * at if _is_number(at) else at for at in p] if isinstance(p, list) else p for p in outline]
    if outline is None:
        return None
    mask = Image.fromarray(mask_of(outline, before[1], before[0]))
    return outline_of(np.asarray(mask.resize(after, Image.Resampling.NEAREST)))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
