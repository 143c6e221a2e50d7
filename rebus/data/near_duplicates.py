"""Near duplicates of images on which a model is to be measured, which it must not have learned from.

What an image looks like is put into 64 bits: which of the 64 slowest waves in its grey values are above their median
(a perceptual hash: Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010, Sec. 3.2).
Another size or compression changes few bits; another image has about half of them otherwise.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from PIL import Image

from rebus.codec.decode_image import open_image
from rebus.core.errors import RebusError, UsageError
from rebus.data.record import Reader, StoredImage

MOST_BITS = 8  # in which near duplicates differ
_SIDE, _WAVES = 32, 8  # pixels, and waves each way
_COSINES = np.cos(np.pi * np.outer(np.arange(_WAVES), np.arange(_SIDE) + 0.5) / _SIDE)
_ONES = np.array([bin(byte).count("1") for byte in range(256)], dtype=np.uint8)


def look_of(image: StoredImage | Image.Image) -> int:
    """The 64 bits of an image, highest first along the rows of waves. Raises what opening it raises."""
    grey = open_image(image).convert("L").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    waves = _COSINES @ np.asarray(grey, dtype=np.float64) @ _COSINES.T
    waves = waves.round(6)  # or what is nought, as in a plain image, would be above or below it by chance
    bits = (waves > np.median(waves)).ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


@dataclass(frozen=True)
class Looks:
    """What the images of some data sets look like, and how many of them could not be read."""

    bits: np.ndarray  # uint64
    damaged: int = 0

    def has(self, image: StoredImage) -> bool:
        """Whether one of them looks like this image. Raises what opening it raises."""
        apart = _ONES[(self.bits ^ np.uint64(look_of(image))).view(np.uint8)].reshape(-1, 8).sum(1)
        return bool((apart <= MOST_BITS).any())


def looks_of(readers: Sequence[Reader], progress: Callable[[], None] = lambda: None) -> Looks:
    """Look at every image once; `progress` is called after each. Raises `UsageError` where there are none."""
    bits: list[int] = []
    damaged = 0
    for reader in readers:
        for block, size in enumerate(reader.sizes):
            for row in range(size):
                before = len(bits)
                with suppress(RebusError):
                    image = reader.read(block, row).image
                    bits += [] if image is None else [look_of(image)]
                damaged += len(bits) == before
                progress()
    if not bits:
        raise UsageError("none of the images to compare with could be read")
    return Looks(np.unique(np.array(bits, dtype=np.uint64)), damaged)
