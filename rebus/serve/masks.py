"""Masks as JSON, run lengths as everywhere in the library or a PNG, and heat maps as a PNG."""

import base64
import io
from typing import Any, Literal

import numpy as np
from PIL import Image

from rebus.core.answers import Mask
from rebus.tasks.explain import Explanation

_SIDE = 1024


def mask_json(mask: Mask, form: Literal["png", "rle"]) -> dict[str, Any]:
    """`Mask.to_json`, with `png` in the place of `counts` where that is wanted."""
    found = mask.to_json()
    if form == "png":
        del found["counts"]
        found["png"] = mask_png(mask)
    return found


def mask_png(mask: Mask) -> str:
    """Base64 of a PNG file as large as the image: 255 inside, 0 outside."""
    return _png(Image.fromarray(mask.mask).convert("L"))


def heat_png(found: Explanation) -> str:
    """Base64 of a grey PNG file, white where the text is seen most, of the image's shape and at most 1,024 pixels a
    side: the network has far fewer places."""
    image = Image.fromarray((found.heat * 255).round().astype(np.uint8))
    image.thumbnail((_SIDE, _SIDE), Image.Resampling.BILINEAR)
    return _png(image)


def _png(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()
