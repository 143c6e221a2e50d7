"""How a detector sees an image in training: at some scale, cut, perhaps mirrored; and everything in it likewise.

Ghiasi et al., "Simple Copy-Paste is a Strong Data Augmentation Method", 2021, Sec. 3.2 (large-scale jitter).
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class View:
    """A window into a resized image, in the left upper corner of a square of `side` pixels.

    Of an image of `size` (width, height): resized to `scaled`, seen from `corner` (left, top) on, as far as the square
    reaches; `flipped`: what is seen is mirrored. What belongs to the image goes through the one view it was given.
    """

    size: tuple[int, int]
    scaled: tuple[int, int]
    corner: tuple[int, int]
    side: int
    flipped: bool = False

    @property
    def seen(self) -> tuple[int, int]:
        """(width, height) of the part of the square where the image is."""
        width, height = (min(self.side, a - b) for a, b in zip(self.scaled, self.corner, strict=True))
        return width, height

    def image(self, image: Image.Image, fill: tuple[int, int, int]) -> np.ndarray:
        """uint8 (side, side, 3), `fill` where there is no image."""
        canvas = np.empty((self.side, self.side, 3), dtype=np.uint8)
        canvas[:] = fill
        part = image.resize(self.seen, Image.Resampling.BILINEAR, box=self._window())
        pixels = np.asarray(part)
        canvas[: self.seen[1], : self.seen[0]] = pixels[:, ::-1] if self.flipped else pixels
        return canvas

    def boxes(self, boxes: np.ndarray) -> np.ndarray:
        """(N, 4) xyxy in pixels of the image → of the square, cut to what is seen; without area where nothing is."""
        moved = boxes * np.tile(self._factors(), 2) - np.tile(self.corner, 2)
        moved = np.clip(moved, 0, np.tile(self.seen, 2))
        if self.flipped:
            moved[:, [0, 2]] = self.seen[0] - moved[:, [2, 0]]
        return moved.astype(np.float32)

    def mask(self, mask: np.ndarray, box: np.ndarray, cells: int) -> np.ndarray:
        """bool (H, W) of the image and a box of the square → uint8 (cells, cells): how much of each cell of the box the
        mask covers, of 255."""
        left, top, right, bottom = box
        if self.flipped:
            left, right = self.seen[0] - right, self.seen[0] - left
        there = (np.array([left, top, right, bottom]) + np.tile(self.corner, 2)) / np.tile(self._factors(), 2)
        window = np.clip(there, 0, np.tile(self.size, 2)).tolist()
        drawn = Image.fromarray(mask.astype(np.uint8) * 255)
        found = np.asarray(drawn.resize((cells, cells), Image.Resampling.BOX, box=tuple(window)))
        return found[:, ::-1] if self.flipped else found

    def _factors(self) -> np.ndarray:
        return np.array(self.scaled) / np.array(self.size)

    def _window(self) -> tuple[float, float, float, float]:
        """What is seen, in pixels of the image."""
        factors = self._factors()
        low, high = np.array(self.corner) / factors, (np.array(self.corner) + np.array(self.seen)) / factors
        high = np.minimum(high, self.size)
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def whole(size: tuple[int, int], side: int) -> View:
    """The image as it is seen when it is not augmented: its longer side fills the square."""
    return View(size, _scaled(size, side, 1.0), (0, 0), side)


def jittered(
    size: tuple[int, int], side: int, scales: tuple[float, float], flip: bool, rng: np.random.Generator
) -> View:
    """A random view: `scales` times as large as the whole image would be, anywhere in it where it does not fit, and
    where `flip` says so mirrored half of the time."""
    scaled = _scaled(size, side, float(rng.uniform(*scales)))
    corner = tuple(int(rng.integers(max(0, length - side) + 1)) for length in scaled)
    return View(size, scaled, (corner[0], corner[1]), side, flip and bool(rng.random() < 0.5))


def _scaled(size: tuple[int, int], side: int, scale: float) -> tuple[int, int]:
    factor = scale * side / max(size)
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))
