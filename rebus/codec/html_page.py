"""Parts of self-contained HTML pages: embedded thumbnails, escaped text, relative links."""

import base64
import html
import io
import os
from pathlib import Path
from urllib.parse import quote

from rebus.core.errors import RebusError

STYLE = ":root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;padding:0 1rem}"


def embedded_image(path: Path, side: int) -> str:
    """An embedded thumbnail, or the reason why there is none."""
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


def escaped(text: str) -> str:
    return html.escape(text.encode("utf-8", "replace").decode())  # a name's stray bytes are no UTF-8


def link_from(page: Path, file: Path) -> str:
    """The relative address of a file, as the page has it."""
    return quote(os.fsencode(os.path.relpath(file, page.parent)))
