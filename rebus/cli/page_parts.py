"""What pages that need nothing else are made of: small images inside them, and text that is never markup."""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path

from rebus.core.errors import RebusError


def small_image(path: Path, side: int = 160) -> str:
    """A copy of at most `side` pixels inside the page, or why there is none."""
    from rebus.codec.decode_image import open_image

    try:
        small = open_image(path)
    except RebusError as error:
        return escaped(str(error))
    small.thumbnail((side, side))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f"<img alt='{escaped(path.name)}' src='data:image/jpeg;base64,{data}'>"


def escaped(words: str) -> str:
    """For the text of a page and the values of attributes; stray bytes of a name are no UTF-8, and replaced."""
    return html.escape(words.encode("utf-8", "replace").decode())
