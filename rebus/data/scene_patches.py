"""Scenes patch by patch: which object, or which character of a writing, each patch shows, for image encoders."""

import numpy as np

from rebus.core.labels import IGNORED
from rebus.data.scenes import COLOURS, FILLS, SHAPES, SIZES, Scene, Writing

LEAST_SHARE = 0.06  # of a patch that a thing must cover to own it


def patch_owners(s: Scene, patch: int, writing: Writing | None = None) -> dict[str, np.ndarray]:
    """`names` (P, 6): shape, colour, size, fill and rank from the left of the object in each patch, and the character
    of the writing, `IGNORED` where it shows the other kind; `present` (P,) bool: whether there is either; `boxes`
    (P, 4): its box as shares of the side."""
    covered = [mask.reshape(-1, patch, s.size // patch, patch).sum(axis=(1, 3)).ravel() for mask in s.masks]
    names: list[tuple[int, ...]] = [
        (SHAPES.index(o.shape), COLOURS.index(o.colour), SIZES.index(o.size), FILLS.index(o.fill), rank, IGNORED)
        for rank, o in enumerate(s.objects)
    ]
    boxes = list(s.boxes)
    for character, box in () if writing is None else writing.glyphs:
        covered.append(_covered(box, s.size, patch))
        names.append((*[IGNORED] * 5, character))
        boxes.append(box)
    shares = np.stack(covered)
    owner, present = shares.argmax(axis=0), shares.max(axis=0) >= LEAST_SHARE * patch**2
    sides = np.array(boxes, dtype=np.float32) / s.size
    return {"names": np.array(names)[owner], "present": present, "boxes": sides[owner]}


def _covered(box: tuple[float, float, float, float], size: int, patch: int) -> np.ndarray:
    """(P,) how many pixels of each patch a box covers."""
    starts = np.arange(0, size, patch)
    across, down = (
        np.clip(np.minimum(box[i + 2], starts + patch) - np.maximum(box[i], starts), 0, None) for i in range(2)
    )
    return np.outer(down, across).ravel()
