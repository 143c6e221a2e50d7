"""What an image looks like in 64 bytes, which tells copies that were re-encoded, resized or turned from other images.

The 8 × 8 slowest waves of the grey values without their mean, each weighed by its frequency, since in photos slower
waves are stronger and would drown the others. Two copies are parallel; of two other images the cosine is about as small
as of random directions. A quarter turn transposes the waves and changes signs, so that it costs no second look.
"""

from collections.abc import Iterator

import numpy as np
from PIL import Image

from rebus.codec.decode_image import Decoded

WAVES, _SIDE = 8, 32
_AT = np.arange(WAVES)
_COSINES = np.sqrt((1.0 + (_AT > 0)) / _SIDE)[:, None] * np.cos(np.pi * np.outer(_AT, np.arange(_SIDE) + 0.5) / _SIDE)
_WEIGHTS = np.hypot.outer(_AT, _AT)
_FLAT = 8.0  # below this norm there is nothing to compare: a plain sheet


def look_of(decoded: Decoded) -> bytes:
    """64 signed bytes, rows of waves from top to bottom; zeros of a plain image."""
    small = decoded.image.resize((_SIDE, _SIDE), Image.Resampling.BOX, box=decoded.box, reducing_gap=3.0).convert("L")
    waves = _COSINES @ np.asarray(decoded.upright(small), dtype=np.float64) @ _COSINES.T * _WEIGHTS
    norm = np.linalg.norm(waves)
    if norm < _FLAT:
        return bytes(WAVES * WAVES)
    return np.rint(waves / np.abs(waves).max() * 127).astype(np.int8).tobytes()


def unit_looks(looks: np.ndarray) -> np.ndarray:
    """uint8 (N, 64) as they are kept → float32 (N, 64) of unit length; zeros stay."""
    values = looks.view(np.int8).astype(np.float32)
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-9)


def turned(looks: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """(degrees to the left, looks of the images so turned) of float (N, 64)."""
    sign = np.where(np.arange(WAVES) % 2, -1.0, 1.0).astype(np.float32)
    waves = looks.reshape(-1, WAVES, WAVES)
    for degrees in (0, 90, 180, 270):
        yield degrees, np.ascontiguousarray(waves).reshape(len(waves), -1)
        waves = waves.transpose(0, 2, 1) * sign[:, None]
