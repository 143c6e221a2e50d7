"""How boxes overlap, and which of two lists are the same."""

from collections.abc import Sequence

from rebus.core.places import XYXY


def box_iou(a: XYXY, b: XYXY) -> float:
    """Intersection over union of two boxes."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def same_boxes(found: Sequence[tuple[str, XYXY]], wanted: Sequence[tuple[str, XYXY]], least: float = 0.5) -> int:
    """How many of the boxes found, each with its label, are among those wanted: pairs of one label are made by their
    IoU, the best first, down to `least`."""
    overlaps = sorted(
        (
            (box_iou(a, b), i, j)
            for i, (label, a) in enumerate(found)
            for j, (name, b) in enumerate(wanted)
            if label.casefold() == name.casefold()
        ),
        reverse=True,
    )
    left, right = set(range(len(found))), set(range(len(wanted)))
    for overlap, i, j in overlaps:
        if overlap >= least and i in left and j in right:
            left.remove(i)
            right.remove(j)
    return len(found) - len(left)
