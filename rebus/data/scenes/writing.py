"""Writing in a scene: a number or a word on a plate, where no object is in the way.

It is drawn over the finished scene out of random numbers of its own, so that the scene without it stays as it is. A
crowded scene may have no room for any.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from rebus.data.scenes.world import SceneObject

NOTICES = tuple(
    "bank bar bread bus cafe cars exit fish food gym hotel keys milk news open park post pub sale shop taxi".split()
)
QUESTION = "what is written"
_ROWS, _COLUMNS, _GAP = 7, 5, 1  # of a glyph, and between two
_MARGIN = 2  # of a plate round its text, and between a plate and an object, in dots of a glyph
_GLYPHS = {  # seven rows from the top, five dots in each as the bits of a number
    "0": "0E 11 13 15 19 11 0E", "1": "04 0C 04 04 04 04 0E", "2": "0E 11 01 02 04 08 1F", "3": "1F 02 04 02 01 11 0E",
    "4": "02 06 0A 12 1F 02 02", "5": "1F 10 1E 01 01 11 0E", "6": "06 08 10 1E 11 11 0E", "7": "1F 01 02 04 08 08 08",
    "8": "0E 11 11 0E 11 11 0E", "9": "0E 11 11 0F 01 02 0C", "A": "0E 11 11 11 1F 11 11", "B": "1E 11 11 1E 11 11 1E",
    "C": "0E 11 10 10 10 11 0E", "D": "1C 12 11 11 11 12 1C", "E": "1F 10 10 1E 10 10 1F", "F": "1F 10 10 1E 10 10 10",
    "G": "0E 11 10 17 11 11 0F", "H": "11 11 11 1F 11 11 11", "I": "0E 04 04 04 04 04 0E", "J": "07 02 02 02 02 12 0C",
    "K": "11 12 14 18 14 12 11", "L": "10 10 10 10 10 10 1F", "M": "11 1B 15 15 11 11 11", "N": "11 11 19 15 13 11 11",
    "O": "0E 11 11 11 11 11 0E", "P": "1E 11 11 1E 10 10 10", "Q": "0E 11 11 11 15 12 0D", "R": "1E 11 11 1E 14 12 11",
    "S": "0F 10 10 0E 01 01 1E", "T": "1F 04 04 04 04 04 04", "U": "11 11 11 11 11 11 0E", "V": "11 11 11 11 11 0A 04",
    "W": "11 11 11 15 15 15 0A", "X": "11 11 0A 04 0A 11 11", "Y": "11 11 11 0A 04 04 04", "Z": "1F 01 02 04 08 10 1F",
}  # fmt: skip
CHARACTERS = "".join(_GLYPHS)


@dataclass(frozen=True)
class Writing:
    """`text`: "407" or "exit"; `box`: left, top, right, bottom of its plate in pixels; `planes`: the scene with it,
    uint8 (3, size, size)."""

    text: str
    box: tuple[float, float, float, float]
    planes: np.ndarray

    @property
    def is_number(self) -> bool:
        return self.text.isdigit()

    @property
    def spelled(self) -> str:
        """As a vocabulary of whole words and single digits says it: "4 0 7", "exit"."""
        return " ".join(self.text) if self.is_number else self.text

    @property
    def glyphs(self) -> list[tuple[int, tuple[float, float, float, float]]]:
        """Each character, its place in `CHARACTERS`, and its box, in reading order."""
        left, top, _, bottom = self.box
        dot = (bottom - top) / (_ROWS + 2 * _MARGIN)
        starts = [left + dot * (_MARGIN + i * (_COLUMNS + _GAP)) for i in range(len(self.text))]
        rows = top + dot * _MARGIN, bottom - dot * _MARGIN
        boxes = [(start, rows[0], start + dot * _COLUMNS, rows[1]) for start in starts]
        return [(CHARACTERS.index(c), box) for c, box in zip(self.text.upper(), boxes, strict=True)]

    @property
    def image(self) -> Image.Image:
        return Image.fromarray(np.ascontiguousarray(self.planes.transpose(1, 2, 0)))


def written(planes: np.ndarray, objects: list[SceneObject], rng: np.random.Generator) -> Writing | None:
    """A number of one to three digits or a notice, as large as there is room for; None where there is none."""
    number = rng.random() < 0.5
    text = str(rng.integers(10 ** int(rng.integers(1, 4)))) if number else NOTICES[int(rng.integers(len(NOTICES)))]
    dark, shift, (across, down) = rng.random() < 0.5, rng.integers(-15, 16, size=3), rng.random(2)
    size = planes.shape[1]
    for dot in (2, 1):  # pixels of a 96-pixel image
        stencil = np.kron(dots(text), np.ones((dot * (size // 96),) * 2, dtype=bool))
        place = _room(stencil.shape, objects, size, _MARGIN * dot * (size // 96), float(across), float(down))
        if place is not None:
            top, left = place
            ink, ground = (235, 25) if dark else (20, 215)
            plate = np.where(stencil[None], ink, ground + shift[:, None, None]).astype(np.uint8)
            drawn = planes.copy()
            drawn[:, top : top + stencil.shape[0], left : left + stencil.shape[1]] = plate
            bottom, right = top + stencil.shape[0], left + stencil.shape[1]
            return Writing(text, (float(left), float(top), float(right), float(bottom)), drawn)
    return None


def dots(text: str) -> np.ndarray:
    """(rows, columns) bool: the glyphs side by side, with the margin of their plate."""
    rows = [[int(row, 16) for row in _GLYPHS[character].split()] for character in text.upper()]
    glyphs = [np.array([[row >> (_COLUMNS - 1 - i) & 1 for i in range(_COLUMNS)] for row in glyph]) for glyph in rows]
    spaced = [np.pad(glyph, ((0, 0), (0, _GAP))) for glyph in glyphs]
    return np.pad(np.concatenate(spaced, axis=1)[:, :-_GAP], _MARGIN).astype(bool)


def _room(
    shape: tuple[int, ...], objects: list[SceneObject], size: int, gap: int, across: float, down: float
) -> tuple[int, int] | None:
    """A free place (top, left), the one nearest to a wish in shares of the image."""
    blocked = np.zeros((size + 1, size + 1), dtype=np.int64)
    for one in objects:
        left, top, right, bottom = (round(side) for side in one.box)
        blocked[1:, 1:][max(top - gap, 0) : bottom + gap, max(left - gap, 0) : right + gap] = 1
    sums = blocked.cumsum(0).cumsum(1)
    height, width = shape
    if height > size or width > size:
        return None
    inside = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    tops, lefts = np.nonzero(inside == 0)
    if len(tops) == 0:
        return None
    far = np.abs(tops - down * (size - height)) + np.abs(lefts - across * (size - width))
    nearest = int(far.argmin())
    return int(tops[nearest]), int(lefts[nearest])
