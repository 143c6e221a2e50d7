"""Images that tests draw for themselves."""

import io
from typing import Any

import numpy as np
from PIL import Image


def photo(width: int = 61, height: int = 47, seed: int = 0) -> Image.Image:
    """Smooth colours with edges and a little grain, never the same at two corners."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    channels = [np.sin(x * (5 + c) + y * (3 - c) * 2 + c) for c in range(3)]
    pixels = 128 + 90 * np.stack(channels, axis=-1) + rng.normal(0, 6, (height, width, 3))
    pixels[: height // 3, : width // 4] = (230, 30, 60)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def encoded(picture: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, format, **options)
    return file.getvalue()
