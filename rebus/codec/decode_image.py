"""An image from wherever it comes: checked, upright, RGB, 8 bits, first frame. Nothing is decoded before its limits."""

import difflib
import io
import itertools
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageFile
from torch import Tensor

from rebus.codec.array_images import image_from_array, image_from_tensor
from rebus.codec.convert_to_rgb import Alpha, to_rgb, transparent_sample
from rebus.codec.image_formats import ALLOWED, kind_of, opener
from rebus.core.errors import BadImage, LimitExceeded, MissingFile, RebusError
from rebus.core.limits import check, limit
from rebus.core.memory_budget import MemoryBudget

ImageSource: TypeAlias = str | os.PathLike[str] | bytes | Image.Image | np.ndarray | Tensor

_ORIENTATION, _EXIF, _WIDTH, _HEIGHT = 0x0112, 0x8769, 0xA002, 0xA003  # EXIF tags
_TAKEN, _CHANGED = 0x9003, 0x0132
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Decoded:
    """RGB as it lies in the file, perhaps decoded at a fraction of its size, and how to set it upright."""

    image: Image.Image
    orientation: int  # EXIF, 1 to 8
    full_size: tuple[int, int]  # (width, height) of the file, before any scaled decoding
    box: tuple[float, float, float, float]  # what of `image` the file covers: scaled decoding rounds sizes up
    format: str | None = None  # as Pillow calls it
    taken: str | None = None  # EXIF, when the photo was taken or else last changed: YYYY:MM:DD HH:MM:SS

    def upright(self, image: Image.Image | None = None) -> Image.Image:
        """`image` (or the whole) turned by the orientation."""
        image = self.image if image is None else image
        if self.orientation not in _TURNS:
            return image
        turned = image.transpose(_TURNS[self.orientation])
        turned.info = {}  # or its EXIF would turn it again
        return turned

    @property
    def upright_size(self) -> tuple[int, int]:
        width, height = self.full_size
        return (height, width) if self.orientation >= 5 else (width, height)


def open_image(source: ImageSource, *, allow_truncated: bool = False, alpha: Alpha = "white") -> Image.Image:
    """Any image as an upright RGB `PIL.Image`.

    `source`: a path, the bytes of a file, a PIL image, an array (H, W, C) or (H, W) uint8, or a tensor (3, H, W) in
    [0, 1]. A file that ends early is refused unless `allow_truncated`, which leaves black what did not come.

    Raises `BadImage` (empty, damaged, no image, a format that is not allowed, a web address), `MissingFile`,
    `LimitExceeded` before anything is decoded, and `MissingExtra` for HEIC without its decoder.
    """
    with decode(source, allow_truncated=allow_truncated, alpha=alpha) as decoded:
        return decoded.upright()


_memory = MemoryBudget("MAX_IMAGE_MEMORY")


@contextmanager
def decode(
    source: ImageSource,
    *,
    allow_truncated: bool = False,
    alpha: Alpha = "white",
    enough: Callable[[int, int], tuple[int, int]] | None = None,
) -> Iterator[Decoded]:
    """`open_image` before it is turned. `enough`: from the (width, height) of the file, the least size at which a
    JPEG may be decoded; it is then read at 1/2, 1/4 or 1/8 by libjpeg, several times faster.

    Waits for its share of `MAX_IMAGE_MEMORY`, which all threads share, and holds it until the block ends: make the
    image small within it, and open no other.
    """
    name = describe(source)
    if isinstance(source, Image.Image):
        image = source
    elif isinstance(source, np.ndarray):
        image = image_from_array(source, name)
    elif isinstance(source, Tensor):
        image = image_from_tensor(source, name)
    else:
        image = _open_header(_read(source, name), name)
    full_size = _within_limits(image, name)
    box = (0.0, 0.0, float(full_size[0]), float(full_size[1]))
    if enough is not None and image is not source and image.format in ("JPEG", "MPO"):
        with _damage_named(name):
            drafted = image.draft(None, enough(*full_size))
            box = drafted[1] if drafted is not None else box
    with _memory.held(_bytes_to_decode(image, full_size), name):
        with _damage_named(name):
            decoded = _decoded(image, name, box, full_size, allow_truncated, alpha)
        del image  # or the palette and the alpha would be held as well
        yield decoded


def _decoded(
    image: Image.Image,
    name: str,
    box: tuple[float, float, float, float],
    full_size: tuple[int, int],
    allow_truncated: bool,
    alpha: Alpha,
) -> Decoded:
    transparent = transparent_sample(image)  # before the EXIF, for which Pillow loads a PNG
    orientation = 1 if _turned_by_hand(image) else _orientation(image)
    _load(image, name, allow_truncated)
    if image.format in ("TIFF", "AVIF"):  # Pillow turns these while it loads
        orientation, full_size = _orientation(image), image.size
        box = (0.0, 0.0, float(full_size[0]), float(full_size[1]))
    if transparent is not None:
        image = image.copy()  # it may be a user's
        image.info["transparency"] = transparent
    kind, taken = image.format, _taken(image)
    return Decoded(to_rgb(image, alpha, name), orientation, full_size, box, kind, taken)


@contextmanager
def _damage_named(name: str) -> Iterator[None]:
    """A parser may raise anything over a stranger's bytes."""
    try:
        yield
    except RebusError:
        raise
    except Exception as error:
        raise _unreadable(name, error) from error


# Bytes of a pixel beside the image that Pillow makes: frames and planes that the decoder keeps
_DECODER = {"WEBP": 16, "AVIF": 16, "HEIF": 16, "TIFF": 8, "GIF": 8}


def _bytes_to_decode(image: Image.Image, full_size: tuple[int, int]) -> int:
    """Bytes at most from the file to an RGB image that is turned or made smaller."""
    pixels = image.width * image.height
    own = 1 if image.mode in ("1", "L", "P") else 4
    needed = pixels * (own + _DECODER.get(image.format or "", 0) + 4 + 4)
    if image.info.get("progressive"):  # libjpeg keeps the coefficients, at full size
        needed += 6 * full_size[0] * full_size[1]
    return needed


def describe(source: ImageSource) -> str:
    """How errors name the source."""
    if isinstance(source, str | os.PathLike):
        name = _one_line(os.fspath(source))
        return name if len(name) <= 200 else name[:200] + "…"
    if isinstance(source, Image.Image):
        return _one_line(str(getattr(source, "filename", ""))) or f"PIL image {source.width} × {source.height}"
    if isinstance(source, np.ndarray | Tensor):
        return f"{'array' if isinstance(source, np.ndarray) else 'tensor'} of shape {tuple(source.shape)}"
    if isinstance(source, bytes | bytearray | memoryview):
        return f"image of {len(source):,} bytes"
    raise BadImage(
        "an image is a path, bytes, a PIL image, an array (H, W, C) uint8 or a tensor (3, H, W) in [0, 1]; "
        f"got {type(source).__name__}"
    )


def _one_line(text: str) -> str:
    """Names of files may hold line breaks, and bytes that no terminal can print."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _read(source: str | os.PathLike[str] | bytes, name: str) -> bytes:
    if isinstance(source, str | os.PathLike):
        return read_file(os.fspath(source), name)
    check("MAX_IMAGE_BYTES", len(source), f"{name}: bytes")
    return bytes(source)


def read_file(path: str, name: str) -> bytes:
    """The bytes of an image file. Raises `BadImage`, `MissingFile`, `LimitExceeded`."""
    address = re.match(r"(data|[A-Za-z][A-Za-z0-9+.\-]+(?=://)):", path)
    if address is not None:
        raise BadImage(
            f"{name[:80]}: a URL ({address[1]}:), and images are not downloaded here. "
            "Save the image and give its path or bytes"
        )
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise BadImage(f"{name}: a folder, not an image. Give the files in it: {name.rstrip('/')}/*.jpg")
        if not stat.S_ISREG(status.st_mode):
            raise BadImage(f"{name}: a device or a pipe, not a file")
        check("MAX_IMAGE_BYTES", status.st_size, f"{name}: bytes")
        with open(path, "rb") as file:
            data = file.read(limit("MAX_IMAGE_BYTES") + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise MissingFile(f"{name}: no such file. {_nearest(path)}") from None
    except (OSError, ValueError) as error:
        if isinstance(error, RebusError):
            raise
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise BadImage(f"{name}: cannot be read: {reason}") from error
    check("MAX_IMAGE_BYTES", len(data), f"{name}: bytes")
    return data


def _nearest(path: str) -> str:
    """Where the search fails, and what is there that looks alike."""
    folder, wanted = Path(path).parent, Path(path).name
    if not folder.is_dir():
        return f"There is no folder {_one_line(str(folder))} either"
    try:
        names = [entry.name for entry in itertools.islice(os.scandir(folder), 10_000)]
    except OSError:
        return "Its folder cannot be listed"
    by_lower = {name.lower(): name for name in names}
    near = difflib.get_close_matches(wanted.lower(), by_lower, n=3, cutoff=0.6)
    if not near:
        return f"Nothing in {_one_line(str(folder))} has this name"
    return f"Did you mean {' or '.join(_one_line(by_lower[n]) for n in near)}?"


def _open_header(data: bytes, name: str) -> Image.Image:
    if not data:
        raise BadImage(f"{name}: empty file (0 bytes). Download it again")
    kind = kind_of(data[:512])
    start = opener(kind, name)
    try:
        return start(io.BytesIO(data))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise LimitExceeded(f"{name}: {error} (MAX_PIXELS = {limit('MAX_PIXELS'):,})") from error
    except Exception as error:
        raise _unreadable(name, error, kind) from error


def _within_limits(image: Image.Image, name: str) -> tuple[int, int]:
    width, height = image.size
    if width < 1 or height < 1:
        raise BadImage(f"{name}: {width} × {height} pixels: the image is empty")
    said = f"{name}: {width:,} × {height:,}"
    check("MAX_PIXELS", width * height, f"{said} pixels")
    check("MAX_SIDE", max(width, height), f"{said}: the longer side")
    check("MAX_ASPECT", max(width, height) / min(width, height), f"{said}: longer side / shorter side")
    return width, height


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged metadata do not spoil the image: every viewer shows it as it lies
        return 1
    return value if value in _TURNS else 1


def _taken(image: Image.Image) -> str | None:
    try:
        exif = image.getexif()
        found = exif.get_ifd(_EXIF).get(_TAKEN) or exif.get(_CHANGED)
    except Exception:  # as above
        return None
    return found if isinstance(found, str) else None


def _turned_by_hand(image: Image.Image) -> bool:
    """Whether a PIL image made from another stands across the size in its EXIF, which Pillow copies along as it was.

    Only quarter turns can be told; `convert`, `crop` and `resize` leave an image that is still to be turned.
    """
    if isinstance(image, ImageFile.ImageFile) or _orientation(image) < 5:
        return False
    try:
        stored = image.getexif().get_ifd(_EXIF)
        width, height = int(stored.get(_WIDTH, 0)), int(stored.get(_HEIGHT, 0))
    except Exception:  # as above
        return False
    return (width - height) * (image.width - image.height) < 0


def _load(image: Image.Image, name: str, allow_truncated: bool) -> None:
    try:
        image.load()
    except OSError as error:
        if "truncated" not in str(error):
            raise
        if not allow_truncated:
            raise BadImage(
                f"{name}: the file ends early ({error}). Download it again, or allow truncated images"
            ) from error
        if getattr(image, "_im", None) is None or not hasattr(image, "tile"):
            raise
        # Pillow's switch for this is global; without the tiles that failed, it keeps the rows that were decoded.
        image.tile = []
        image.load()


def _unreadable(name: str, error: Exception, kind: str | None = None) -> RebusError:
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return LimitExceeded(f"{name}: {error} (MAX_PIXELS = {limit('MAX_PIXELS'):,})")
    if isinstance(error, MemoryError):
        return BadImage(f"{name}: there is not enough memory to decode it")
    what = f"{kind} file" if kind in ALLOWED else "image"
    return BadImage(f"{name}: damaged {what} ({_one_line(str(error)) or type(error).__name__}). Download it again")
