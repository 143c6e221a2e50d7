"""Scenes patch by patch: which object each patch shows, for image encoders."""

import numpy as np

from rebus.data.scenes import COLOURS, FILLS, SHAPES, SIZES, Scene

LEAST_SHARE = 0.06  # of a patch that an object must cover to own it


def patch_owners(s: Scene, patch: int) -> dict[str, np.ndarray]:
    """`names` (P, 5): shape, colour, size, fill and rank from the left of the object in each patch; `present` (P,)
    bool: whether there is one; `boxes` (P, 4): its box as shares of the side."""
    side = s.size // patch
    masks = np.stack(s.masks).reshape(len(s.objects), side, patch, side, patch)
    covered = masks.sum(axis=(2, 4)).reshape(len(s.objects), -1)
    owner = covered.argmax(axis=0)
    table = np.array(
        [
            (SHAPES.index(o.shape), COLOURS.index(o.colour), SIZES.index(o.size), FILLS.index(o.fill), rank)
            for rank, o in enumerate(s.objects)
        ]
    )
    boxes = np.array(s.boxes, dtype=np.float32) / s.size
    present = covered.max(axis=0) >= LEAST_SHARE * patch**2
    return {"names": table[owner], "present": present, "boxes": boxes[owner]}
