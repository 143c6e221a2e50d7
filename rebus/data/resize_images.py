"""Images as they go into a shard: checked, and made smaller only where that is asked for."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from rebus.codec.decode_image import decode
from rebus.codec.image_formats import kind_of

# format → ending of the name
ENDING = {
    "JPEG": "jpg",
    "PNG": "png",
    "WebP": "webp",
    "GIF": "gif",
    "BMP": "bmp",
    "TIFF": "tif",
    "PPM": "ppm",
    "AVIF": "avif",
    "HEIC": "heic",
}


@dataclass(frozen=True, kw_only=True)
class Fitting:
    """`resize`: pixels of the shorter side of larger images; None leaves every file as it is. `quality`: of JPEGs."""

    resize: int | None = None
    quality: int = 90


@dataclass(frozen=True)
class Fitted:
    """An image's file, its size upright before and after, and the scale of its sides but for rounding."""

    data: bytes
    ending: str
    size: tuple[int, int]
    original: tuple[int, int]
    scale: tuple[float, float] = (1.0, 1.0)

    @property
    def facts(self) -> dict[str, int]:
        """Sizes, by the names that img2dataset gives them."""
        return {
            "width": self.size[0],
            "height": self.size[1],
            "original_width": self.original[0],
            "original_height": self.original[1],
        }


def fit(source: bytes | Path, fitting: Fitting) -> Fitted:
    """Decode an image, so that later steps can rely on it; re-encode it only if it is larger than asked for.

    Raises what `rebus.codec.decode_image.decode` raises.
    """
    with decode(source, enough=_enough(fitting)) as decoded:
        data = source.read_bytes() if isinstance(source, Path) else source
        original = decoded.upright_size
        if fitting.resize is None or min(original) <= fitting.resize:
            return Fitted(data, ENDING[kind_of(data[:512])], original, original)
        scale = fitting.resize / min(original)
        size = (max(1, round(original[0] * scale)), max(1, round(original[1] * scale)))
        lying = size[::-1] if decoded.orientation >= 5 else size
        small = decoded.image.resize(lying, Image.Resampling.BICUBIC, box=decoded.box, reducing_gap=3.0)
        file = io.BytesIO()
        decoded.upright(small).save(file, "JPEG", quality=fitting.quality)
    return Fitted(file.getvalue(), "jpg", size, original, (scale, scale))


def _enough(fitting: Fitting) -> Callable[[int, int], tuple[int, int]]:
    """The least size to decode a JPEG at: for a check any, for a smaller image twice its size."""

    def size(width: int, height: int) -> tuple[int, int]:
        if fitting.resize is None:
            return 1, 1
        scale = min(1.0, 2 * fitting.resize / min(width, height))
        return max(1, round(width * scale)), max(1, round(height * scale))

    return size
