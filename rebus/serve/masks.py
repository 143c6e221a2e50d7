"""A mask as JSON: run lengths as everywhere in the library, or a PNG."""

import base64
import io
from typing import Any, Literal

from PIL import Image

from rebus.core.answers import Mask


def mask_json(mask: Mask, form: Literal["png", "rle"]) -> dict[str, Any]:
    """`Mask.to_json`, with `png` in the place of `counts` where that is wanted."""
    found = mask.to_json()
    if form == "png":
        del found["counts"]
        found["png"] = mask_png(mask)
    return found


def mask_png(mask: Mask) -> str:
    """Base64 of a PNG file as large as the image: 255 inside, 0 outside."""
    buffer = io.BytesIO()
    Image.fromarray(mask.mask).convert("L").save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()
