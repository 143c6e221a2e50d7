"""What a file really is, read from its first bytes, and which of that may be opened as an image.

Names and extensions are not trusted. Only the listed formats ever reach a decoder, each its own and no other, so
that the many parsers of a general imaging library are not open to a stranger's bytes.
"""

import ctypes
import importlib
import re
from collections.abc import Callable
from functools import lru_cache
from typing import IO, Any

from PIL import Image, features

from rebus.core.errors import BadImage, MissingExtra

ALLOWED = ("JPEG", "PNG", "WebP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "HEIC")

_PLUGINS = {
    "JPEG": "JpegImagePlugin",
    "PNG": "PngImagePlugin",
    "WebP": "WebPImagePlugin",
    "GIF": "GifImagePlugin",
    "BMP": "BmpImagePlugin",
    "TIFF": "TiffImagePlugin",
    "PPM": "PpmImagePlugin",
}

_MAGIC = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "TIFF"),
    (b"MM\x00+", "TIFF"),
    (b"8BPS", "a Photoshop document (PSD)"),
    (b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 image"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (b"\x00\x00\x00\x0cJXL ", "a JPEG XL image"),
    (b"\xff\x0a", "a JPEG XL image"),
    (b"\x00\x00\x01\x00", "an icon (ICO)"),
    (b"\xc5\xd0\xd3\xc6", "an EPS drawing"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"PK\x03\x04", "a ZIP archive or an office document"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"Rar!", "a RAR archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"\x1aE\xdf\xa3", "a video (Matroska or WebM)"),
    (b"\x7fELF", "a program"),
)
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
_TEXTS = (
    (rb"<!doctype html|<html|<head|<body|<script", "an HTML page, perhaps the error page of a download"),
    (rb"(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*(<!doctype svg[^>]*>\s*)?<svg", "an SVG drawing"),
    (rb"<\?xml", "an XML document"),
    (rb"%pdf", "a PDF document"),
    (rb"%!ps", "an EPS or PostScript drawing"),
    (rb"version https://git-lfs", "a Git LFS pointer: the image itself was not fetched (git lfs pull)"),
    (rb"[\[{]\s*[\"\]}\[{]", "a JSON document"),
)


def kind_of(head: bytes) -> str:
    """What begins with `head` (the first 512 bytes or more): one of `ALLOWED`, or words such as "an HTML page"."""
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WebP"
    if head[4:8] == b"ftyp":
        return _boxed(head)
    if re.match(rb"P[1-6]\s", head):
        return "PPM"
    if head.startswith(b"BM") and len(head) > 14 and head[14] in (12, 40, 52, 56, 64, 108, 124):
        return "BMP"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for pattern, kind in _TEXTS:
        if re.match(pattern, text, re.DOTALL):
            return kind
    if head and all(byte >= 32 or byte in b"\t\r\n\f" for byte in head[:512]):
        return "text"
    return "unknown data"


def _boxed(head: bytes) -> str:
    """Which of the formats that share the MP4 container."""
    length = min(max(int.from_bytes(head[:4], "big"), 16), 256)
    brands = {head[8:12], *(head[at : at + 4] for at in range(16, length, 4))}
    if brands & {b"avif", b"avis"}:
        return "AVIF"
    if brands & _HEIC_BRANDS:
        return "HEIC"
    return "a video (MP4 or QuickTime)"


def opener(kind: str, name: str) -> Callable[[IO[bytes]], Image.Image]:
    """The function that reads the header of a file of that kind, and nothing of its pixels.

    Raises `BadImage` when the format is not allowed, `MissingExtra` when its decoder is not installed. Called
    directly, since `PIL.Image.open` would apply a global size limit of its own before ours can name itself.
    """
    if kind == "HEIC":
        return _heif(name)
    if kind == "AVIF":
        return _avif(name)
    if kind not in _PLUGINS:
        raise BadImage(f"{name}: not an image that can be opened, but {kind}. Allowed: {', '.join(ALLOWED)}")
    if kind == "TIFF":
        _silence_libtiff()
    return _registered(_PLUGINS[kind], kind.upper())


@lru_cache(maxsize=1)
def _silence_libtiff() -> None:
    """libtiff prints what it finds wrong to the terminal, besides failing. Its handlers are those of the process, and
    are reached through Pillow's own library, which brings it along."""
    try:
        libtiff = ctypes.CDLL(importlib.import_module("PIL._imaging").__file__)
        for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
            setter = getattr(libtiff, name)
            setter.restype, setter.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
            setter(None)
    except (OSError, AttributeError):  # a Pillow that was built otherwise
        return


def _registered(plugin: str, key: str) -> Callable[[IO[bytes]], Image.Image]:
    importlib.import_module(f"PIL.{plugin}")
    factory: Any = Image.OPEN[key][0]
    return lambda file: factory(file, "")


def _heif(name: str) -> Callable[[IO[bytes]], Image.Image]:
    try:
        from pillow_heif import HeifImageFile
    except ImportError:
        raise MissingExtra("heic", f"{name}: a HEIC image") from None
    return lambda file: HeifImageFile(file, "")


def _avif(name: str) -> Callable[[IO[bytes]], Image.Image]:
    """Pillow's own decoder (11.3 and later, where built with it)."""
    try:
        importlib.import_module("PIL.AvifImagePlugin")
    except ImportError:
        raise MissingExtra("heic", f"{name}: an AVIF image") from None
    if not features.check("avif"):
        raise MissingExtra("heic", f"{name}: an AVIF image")
    return _registered("AvifImagePlugin", "AVIF")
