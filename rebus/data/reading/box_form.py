"""Whether boxes of a column `objects` are left, top, width, height, or left, top, right, bottom: nothing says it."""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from rebus.data.filters import number_in
from rebus.data.reading.tables import Table

MOST_ROWS = 1_000  # that are looked at
_LEAST = 20  # boxes, of which some would end before they begin if widths and heights were read as corners

log = logging.getLogger("rebus")


def has_corners(rows: Iterable[Mapping[str, Any]], dataset: str) -> bool:
    """Whether boxes are by corners, as Pascal VOC has them.

    `rows` hold `objects`, perhaps `width` and `height`. They are no corners when a box would end before it begins,
    corners when a box with width and height would leave its image, or when many boxes could all be corners. Where the
    boxes tell neither, they are taken for COCO's, as most such files are, and this is logged.
    """
    count = 0
    leaves = False
    for row in rows:
        width, height = (number_in(row, side) for side in ("width", "height"))
        for left, top, third, fourth in _boxes(row.get("objects")):
            count += 1
            if third < left or fourth < top:
                return False
            wide = width is not None and left + third > width + 1
            leaves = leaves or wide or (height is not None and top + fourth > height + 1)
    if leaves or count >= _LEAST:
        return True
    if count:
        log.warning(
            "%s: its %d boxes in objects may be left, top, width, height or left, top, right, bottom: taken for the "
            'first. Write them as a column boxes of {"label", "xyxy"} or {"label", "bbox_xywh"} to say which',
            *(dataset, count),
        )
    return False


def table_has_corners(table: Table) -> bool:
    """`has_corners` of the first rows of a table; False where it has no column `objects`."""
    if "objects" not in table.columns:
        return False
    return has_corners((row for row in islice(table.rows(), MOST_ROWS) if row), str(table.path))


def objects_in(value: Any) -> Mapping[str, Any] | list[Any] | None:
    """The things of a column `objects`, also as JSON in a cell; None where it has none with boxes, but names, say."""
    if isinstance(value, str) and value.lstrip().startswith(("[", "{")):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    if isinstance(value, Mapping):
        return value if "bbox" in value else None
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        return None
    return value if not value or any("bbox" in item for item in value) else None


def _boxes(value: Any) -> Iterator[list[float]]:
    objects = objects_in(value) or ()
    items = objects["bbox"] or () if isinstance(objects, Mapping) else objects
    for item in items:
        box = item.get("bbox") if isinstance(item, Mapping) else item
        if isinstance(box, list) and len(box) == 4 and all(isinstance(side, int | float) for side in box):
            yield box
