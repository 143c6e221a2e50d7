"""Decoded images of every mode as RGB with 8 bits a channel.

Conversions: grey and palette are spread over three channels; 16-bit grey is divided by 257 and floats in [0, 1]
multiplied by 255, both rounded; CMYK goes through Pillow's plain formula, as colour profiles are ignored by every
released preprocessor. Transparency is laid on white, as transformers 5 does, or dropped, baring the colours beneath,
as open_clip, big_vision and earlier transformers do: `ImageSpec.alpha` says which.
"""

from typing import Literal, TypeAlias

import numpy as np
from PIL import Image

from rebus.codec.array_images import image_from_array
from rebus.core.errors import BadImage

Alpha: TypeAlias = Literal["white", "drop"]

_GREY_STEPS = {"L;2": 85, "L;4": 17}  # between two greys of so many bits, once they are spread over 0 to 255


def transparent_sample(image: Image.Image) -> int | tuple[int, ...] | None:
    """The transparent colour of a PNG on the scale of the decoded pixels, where Pillow leaves it on the file's.

    16-bit colours are decoded to their high bytes, and so compared. Only known before the image is loaded.
    """
    colour, tiles = image.info.get("transparency"), getattr(image, "tile", None)
    if colour is None or image.format != "PNG" or not tiles:
        return None
    raw = tiles[0][3] if isinstance(tiles[0][3], str) else tiles[0][3][0]
    if raw in _GREY_STEPS and isinstance(colour, int):
        return colour * _GREY_STEPS[raw]
    if raw == "RGB;16B" and isinstance(colour, tuple):
        return tuple(sample >> 8 for sample in colour)
    return None


_STRIP = 1 << 20  # pixels that are converted at once: conversions hold up to six copies


def to_rgb(image: Image.Image, alpha: Alpha, name: str) -> Image.Image:
    """RGB with 8 bits a channel; see the head of this file. The image itself is left as it is."""
    if _tiff_tag(image, _SAMPLE_FORMAT) == 2 and image.mode != "I":  # read as bytes, −1 would be white
        raise BadImage(
            f"{name}: a TIFF of signed integers, whose brightness is undefined. Save it unsigned with 0 as black"
        )
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    bits, inverted = _tiff_tag(image, _BITS), _tiff_tag(image, _PHOTOMETRIC) == 0
    width, height = image.size
    rows = max(1, _STRIP // width)
    if height <= rows:
        return _converted(image, alpha, name, bits, inverted)
    whole = Image.new("RGB", image.size)
    for top in range(0, height, rows):
        strip = image.crop((0, top, width, min(top + rows, height)))
        converted = _converted(strip, alpha, name, bits, inverted)
        whole.paste(converted, (0, top))
    whole.info = converted.info
    return whole


def _converted(image: Image.Image, alpha: Alpha, name: str, bits: int | None, inverted: bool) -> Image.Image:
    """RGB of an image or a strip of it. `bits`, `inverted`: of a TIFF's samples."""
    if image.mode.startswith(("I", "F")):
        grey = image_from_array(_deep(image, name, bits, inverted), name).convert("RGB")
        clear = image.info.get("transparency")
        if alpha == "white" and isinstance(clear, int):
            grey.paste((255, 255, 255), mask=Image.fromarray(np.asarray(image) == clear))
        return grey
    if image.mode in ("RGBa", "La"):  # premultiplied
        image = image.convert("RGBA" if image.mode == "RGBa" else "LA")
    if image.mode in ("PA", "LA", "RGBA") or image.info.get("transparency") is not None:
        return _without_alpha(image, alpha)
    try:
        return image.convert("RGB")
    except ValueError:
        raise BadImage(f"{name}: the colour space {image.mode} cannot be converted to RGB. Save it as RGB") from None


def _deep(image: Image.Image, name: str, bits: int | None, inverted: bool) -> np.ndarray:
    """Pixels of more than 8 bits: uint16 or float. Pillow keeps some 16-bit files as 32-bit integers."""
    pixels = np.asarray(image)
    if image.mode == "I":
        if pixels.min() < 0 or pixels.max() > 65535:
            raise BadImage(f"{name}: 32-bit grey from {pixels.min():,} to {pixels.max():,}; expected 0 to 65,535")
        pixels = pixels.astype(np.uint16)
    if bits == 12:  # to 16, 4,095 being white
        pixels = pixels << 4 | pixels >> 8
    if inverted:  # WhiteIsZero, which Pillow minds up to 8 bits only
        pixels = 1 - pixels if image.mode.startswith("F") else 65535 - pixels
    return pixels


_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # TIFF 6.0, sections 8 and 19


def _tiff_tag(image: Image.Image, tag: int) -> int | None:
    """The value of a tag, of the first channel, where the image comes from a TIFF file."""
    if image.format != "TIFF":
        return None
    found = getattr(image, "tag_v2", {}).get(tag)
    value = found[0] if isinstance(found, tuple) and found else found
    return value if isinstance(value, int) else None


def _without_alpha(image: Image.Image, alpha: Alpha) -> Image.Image:
    if alpha == "white":
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    if "transparency" in image.info:  # Pillow warns when it drops this itself
        image = image.copy()
        del image.info["transparency"]
    return image.convert("RGB")
