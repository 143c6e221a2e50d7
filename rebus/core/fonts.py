"""Fonts for text in drawings: the first that has every character, of those that packages on this machine ship."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import ImageFont

log = logging.getLogger("rebus")
_PACKAGED = (  # package, file in it: Latin, Greek, Cyrillic and more; Chinese, Japanese, Korean
    ("matplotlib", "mpl-data/fonts/ttf/DejaVuSans.ttf"),
    ("cvttf_NotoSansCJK_Regular", "NotoSansCJKtc-Regular.otf"),
)


def font_for(text: str, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """A font of `size` pixels in which all of `text` can be read.

    Where there is none, what has most of it, which is logged once for each text together with what to install.
    """
    fonts = list(_fonts(size))
    missing = {font: _missing(font, text) for font in fonts}
    best = min(fonts, key=lambda font: len(missing[font]))
    if missing[best]:
        _say_once("".join(sorted(missing[best])))
    return best


def _fonts(size: int) -> Iterator[ImageFont.FreeTypeFont | ImageFont.ImageFont]:
    yield _default(size)
    for package, file in _PACKAGED:
        path = _path(package, file)
        if path is not None:
            yield _open(path, size)


@cache
def _default(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    from PIL import ImageFont

    return ImageFont.load_default(size)


@cache
def _open(path: Path, size: int) -> ImageFont.FreeTypeFont:
    from PIL import ImageFont

    return ImageFont.truetype(str(path), size)


@cache
def _path(package: str, file: str) -> Path | None:
    spec = find_spec(package)
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        if (Path(folder) / file).is_file():
            return Path(folder) / file
    return None


def _missing(font: ImageFont.FreeTypeFont | ImageFont.ImageFont, text: str) -> set[str]:
    """Characters that are drawn as one that no font has."""
    nothing = _drawn(font, "\U0010ffff")
    return {character for character in set(text) if character.isprintable() and _drawn(font, character) == nothing}


@cache
def _drawn(font: ImageFont.FreeTypeFont | ImageFont.ImageFont, character: str) -> tuple[bytes, tuple[int, int]]:
    mask = font.getmask(character)
    return bytes(mask), mask.size


@cache
def _say_once(characters: str) -> None:
    log.warning(
        'no font on this machine has %s, drawn as boxes. Install some: pip install "rebus-vlm[fonts]"', characters[:20]
    )
