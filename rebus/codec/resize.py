"""From an image to the rows of a batch: sizes, resampling, crop, padding, normalisation.

Two ways to resample. The exact one is Pillow's antialiased filter on uint8, which released checkpoints were
evaluated with. The fast one reads JPEGs at a fraction of their size (libjpeg scales in the frequency domain) and
filters the rest with PyTorch's vectorised uint8 kernel; `benchmarks/images.py` measures its drift.
"""

import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rebus.codec.decode_image import Decoded
from rebus.core.errors import BadConfig
from rebus.core.specs import ImageSpec

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
OVERSAMPLING = 2  # fast: a JPEG is decoded at no less than this multiple of the size wanted


def check_spec(spec: ImageSpec) -> None:
    """Raise `BadConfig` for a specification that cannot be carried out."""
    if min(spec.size) < 1 and spec.resize != "patches":
        raise BadConfig(f"image size {spec.size}: expected at least 1 × 1")
    if spec.resize == "patches" and not (spec.patch_size and spec.max_patches):
        raise BadConfig('resize "patches" expects patch_size and max_patches')
    height, width = spec.size
    if spec.resize != "longer" and spec.pad is not None:
        raise BadConfig(f'pad: images are padded where resize is "longer"; got "{spec.resize}"')
    if spec.resize == "longer" and (spec.pad is None or _side(spec) > min(spec.size)):
        raise BadConfig(
            f"a longer side of {_side(spec)} pixels must be padded to at least as much on both sides; "
            f"got {height} × {width} and pad {spec.pad}"
        )
    if spec.resize in ("exact", "shorter") and (spec.side or spec.resize == "shorter") and _side(spec) < max(spec.size):
        raise BadConfig(
            f"the crop of {height} × {width} does not fit into a {spec.resize} side of {_side(spec)} pixels"
        )
    if min(spec.std) <= 0:
        raise BadConfig(f"image std {spec.std}: expected numbers above 0")


def _side(spec: ImageSpec) -> int:
    if spec.side is not None:
        return spec.side
    return max(spec.size) if spec.resize == "longer" else min(spec.size)


def resized(spec: ImageSpec, width: int, height: int) -> tuple[int, int]:
    """(width, height) to which an image of that size is resized, before any crop or padding."""
    if spec.resize == "exact":
        return (spec.size[1], spec.size[0]) if spec.side is None else (spec.side, spec.side)
    if spec.resize == "patches":
        assert spec.patch_size is not None
        assert spec.max_patches is not None
        rows, columns = naflex_grid(width, height, spec.patch_size, spec.max_patches)
        return columns * spec.patch_size, rows * spec.patch_size
    side, short, long = _side(spec), min(width, height), max(width, height)
    if spec.resize == "shorter":
        other = _following(side, long, short, spec.rounding)
        return (side, other) if width <= height else (other, side)
    other = max(1, _following(side, short, long, spec.rounding))
    return (other, side) if width <= height else (side, other)


def _following(side: int, follows: int, leads: int, rounding: str) -> int:
    """The new length of the side that follows, `leads` becoming `side`. Each in the order of operations of its
    reference, since the last bit decides at halves."""
    if rounding == "down":
        return int(side * follows / leads)
    if rounding == "even":
        return round(follows / (leads / side))
    return int(follows * (side / leads) + 0.5)


def naflex_grid(width: int, height: int, patch_size: int, max_patches: int) -> tuple[int, int]:
    """(rows, columns) of patches: the largest scale that keeps `max_patches`, found by bisection as in SigLIP 2.

    The interval (1e-6 to 100) and its end (1e-5) are part of the definition: they decide ties.
    """

    def cells(scale: float) -> tuple[int, int]:
        return max(1, math.ceil(height * scale / patch_size)), max(1, math.ceil(width * scale / patch_size))

    low, high = 1e-6, 100.0
    while high - low >= 1e-5:
        middle = (low + high) / 2
        rows, columns = cells(middle)
        if rows * columns <= max_patches:
            low = middle
        else:
            high = middle
    return cells(low)


def exact(decoded: Decoded, spec: ImageSpec) -> np.ndarray:
    """uint8 (H, W, 3), as the released preprocessors make it: turned, then resized by Pillow, then cropped. With
    TensorFlow 1's resampling float32, in values of bytes."""
    image = decoded.upright()
    size = resized(spec, *image.size)
    if spec.resample == "bilinear_tf1":
        return _cropped(_bilinear_tf1(np.asarray(image), size), spec)
    if image.size != size:
        image = image.resize(size, _FILTERS[spec.resample])
    return _cropped(np.asarray(image), spec)


def _bilinear_tf1(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 (H, W, 3) → float32 (height, width, 3) of `size` (width, height): pixel i is read at i · H / height."""
    found = pixels.astype(np.float32)
    for axis, new in ((1, size[0]), (0, size[1])):
        old = found.shape[axis]
        place = np.arange(new, dtype=np.float32) * np.float32(old / new)
        first = np.minimum(place.astype(np.int64), old - 1)
        share = (place - first).reshape((-1, 1, 1) if axis == 0 else (-1, 1))
        one, other = found.take(first, axis), found.take(np.minimum(first + 1, old - 1), axis)
        found = one + (other - one) * share
    return found


def enough(spec: ImageSpec, width: int, height: int) -> tuple[int, int]:
    """The least (width, height) at which the fast path may decode a JPEG lying as `width` × `height` in its file."""
    # Sideways images are turned later: the larger of both ways is safe.
    one, other = resized(spec, width, height), resized(spec, height, width)
    return OVERSAMPLING * max(one[0], other[1]), OVERSAMPLING * max(one[1], other[0])


def fast(decoded: Decoded, spec: ImageSpec) -> np.ndarray:
    """uint8 (H, W, 3) close to `exact`: resized from what scaled decoding left, turned when it is small."""
    width, height = resized(spec, *decoded.upright_size)
    if decoded.orientation >= 5:
        width, height = height, width
    whole = decoded.box == (0.0, 0.0, *map(float, decoded.image.size))
    if whole and decoded.image.size != (width, height) and spec.resample in ("bilinear", "bicubic"):
        pixels = _resize_bytes(decoded.image, width, height, spec.resample)
    else:  # a box that ends within a pixel: only Pillow takes it, and what is left is small
        pixels = np.asarray(decoded.image.resize((width, height), _FILTERS[spec.resample], box=decoded.box))
    if decoded.orientation != 1:
        pixels = np.asarray(decoded.upright(Image.fromarray(np.ascontiguousarray(pixels))))
    return _cropped(pixels, spec)


def _resize_bytes(image: Image.Image, width: int, height: int, mode: str) -> np.ndarray:
    # Channels stay last in memory, where PyTorch has a vectorised kernel for bytes.
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    small = torch.nn.functional.interpolate(pixels, size=(height, width), mode=mode, antialias=True)
    return small[0].permute(1, 2, 0).numpy()


def _cropped(pixels: np.ndarray, spec: ImageSpec) -> np.ndarray:
    """What is larger than `size`, cut to it at the centre."""
    if spec.resize == "patches":
        return pixels
    height, width = spec.size
    top, left = (_offset(max(0, have - want), spec) for have, want in zip(pixels.shape[:2], spec.size, strict=True))
    return pixels[top : top + height, left : left + width]


def _offset(margin: int, spec: ImageSpec) -> int:
    return round(margin / 2) if spec.crop_offset == "even" else margin // 2


def _margin(want: int, have: int, spec: ImageSpec) -> int:
    """Padding before an image that is smaller."""
    return (want - have) // 2 if spec.pad == "centre" else 0


def normalisation(spec: ImageSpec) -> np.ndarray:
    """float32 (3, 256): the value of each byte in each channel, rounded at each step as the references round."""
    unit = (np.arange(256, dtype=np.float64) * spec.rescale).astype(np.float32)
    mean, std = (np.array(values, dtype=np.float32)[:, None] for values in (spec.mean, spec.std))
    return (unit - mean) / std


def placement(spec: ImageSpec, width: int, height: int) -> tuple[int, int, int, int]:
    """(left, top, width, height) in pixels of what the network reads: where an image of that size lies on it, which may
    be wider than `spec.size`, beginning before it, where images are cut."""
    wide, high = resized(spec, width, height)
    top, left = (
        -_offset(have - want, spec) if have > want else _margin(want, have, spec)
        for have, want in zip((high, wide), spec.size, strict=True)
    )
    return left, top, wide, high


def window(out: np.ndarray, pixels: np.ndarray, table: np.ndarray, spec: ImageSpec) -> np.ndarray:
    """The part of `out`, float32 (3, H, W), where `pixels` belong; padding round them is filled."""
    height, width = pixels.shape[:2]
    if (height, width) == spec.size:
        return out
    for channel in range(3):
        out[channel] = 0.0 if spec.pad_colour is None else table[channel, spec.pad_colour[channel]]
    top, left = (_margin(want, have, spec) for have, want in zip((height, width), spec.size, strict=True))
    return out[:, top : top + height, left : left + width]


def normalise_into(pixels: np.ndarray, table: np.ndarray, out: np.ndarray) -> None:
    """uint8 (H, W, 3), or float32 in values of bytes → float32 (3, H, W), in one pass."""
    for channel in range(3):
        if pixels.dtype != np.uint8:
            low, high = table[channel, 0], table[channel, 255]
            np.multiply(pixels[..., channel], (high - low) / 255, out=out[channel])
            out[channel] += low
            continue
        np.take(table[channel], pixels[..., channel], out=out[channel], mode="clip")


def patches(pixels: np.ndarray, table: np.ndarray, size: int) -> np.ndarray:
    """uint8 (H, W, 3) → float32 (N, size·size·3): square patches, row by row, each flattened as (y, x, channel)."""
    rows, columns = pixels.shape[0] // size, pixels.shape[1] // size
    cut = pixels.reshape(rows, size, columns, size, 3).transpose(0, 2, 1, 3, 4).reshape(rows * columns, -1, 3)
    return np.stack([table[c][cut[..., c]] for c in range(3)], axis=-1).reshape(rows * columns, -1)


def boxes_in_image(spec: ImageSpec, size: tuple[int, int], boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes (R, 4) in shares of what a network read, in pixels of the image of `size` (width, height) that lies on it,
    clipped to the image; and (R,) whether any of each lies on the image, and not in the padding alone."""
    left, top, width, height = placement(spec, *size)
    high, wide = spec.size
    scale = torch.tensor([size[0] / width, size[1] / height]).repeat(2)
    moved = (boxes * torch.tensor([wide, high, wide, high]) - torch.tensor([left, top, left, top])) * scale
    moved = moved.clamp(min=0).minimum(torch.tensor([*size, *size]))
    return moved, (moved[:, 2:] > moved[:, :2]).all(dim=1)
