"""Masks in text: `<loc…>×4<seg…>×16 label`, and masks of 64 × 64 cut out of an image or pasted into it.

The sixteen codes are entries of a learned codebook; `rebus.backbones.vision.mask_vqvae` turns them into a mask of the
box and back. PaliGemma's conventions: the box is in whole pixels, resizing is bilinear and antialiased, a pixel
belongs to the mask where the decoded value is above 0.
"""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from rebus.codec.polygon_masks import mask_of_polygon
from rebus.core.places import XYXY, Located, LocationNotation, Rejected

MASK_SIDE = 64


def parse_segments(locations: LocationNotation, text: str) -> tuple[list[Located], list[Rejected]]:
    """Regions out of segmentation text, each with its codes, and what was rejected, a box without codes included.

    A label may be missing: the phrase that was asked for is known.
    """
    found, rejected = locations.parse(text)
    with_codes = [located for located in found if located.codes]
    without = [Rejected(text[slice(*f.span)].strip(), "no mask tokens") for f in found if not f.codes]
    return with_codes, rejected + without


def mask_box(mask: np.ndarray) -> XYXY | None:
    """The smallest box in pixels that holds a bool (H, W) mask; None for an empty one."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def crop_mask(mask: np.ndarray, xyxy: XYXY) -> np.ndarray:
    """bool (H, W) and a box in pixels → float32 (64, 64) in [0, 1]: the box, rounded to pixels, resized.

    What to encode as the target of a region.
    """
    left, top, right, bottom = _whole(tuple(round(v) for v in xyxy), (mask.shape[1], mask.shape[0]))
    return _resize(mask[top:bottom, left:right].astype(np.float32), (MASK_SIDE, MASK_SIDE))


def fill_polygons(polygons: Sequence[Sequence[tuple[float, float]]], size: tuple[int, int]) -> np.ndarray:
    """Polygons of three points (x, y) in pixels or more → bool (height, width) of `size` (width, height), True where
    the middle of a pixel is inside any of them."""
    mask = np.zeros(size[::-1], dtype=np.bool_)
    for polygon in polygons:
        mask |= mask_of_polygon([value for point in polygon for value in point], size[1], size[0])
    return mask


def paste_mask(small: np.ndarray, xyxy: XYXY, size: tuple[int, int]) -> np.ndarray:
    """A decoded mask (64, 64), above 0 where the region is, and its box in pixels → bool (height, width) of `size`.

    The box is cut to whole pixels and keeps at least one; outside of it nothing is set.
    """
    width, height = size
    left, top, right, bottom = _whole(tuple(int(v) for v in xyxy), size)
    mask = np.zeros((height, width), dtype=np.bool_)
    mask[top:bottom, left:right] = _resize(small.astype(np.float32), (right - left, bottom - top)) > 0
    return mask


def paste_region_mask(small: np.ndarray, xyxy: XYXY, size: tuple[int, int]) -> np.ndarray:
    """A detector's mask (M, M), the probability of each part of its box, and the box in pixels → bool (height, width)
    of `size`.

    As in the reference of Mask R-CNN: the mask with one empty cell more on each side lies on the box that is larger by
    as much, cut to whole pixels; between cells it is linear, and what is above a half is set. Parts of the box that
    lie outside the image are cut off last.
    """
    width, height = size
    side = small.shape[0]
    padded = np.pad(small.astype(np.float32), 1)
    centre = (xyxy[0] + xyxy[2]) / 2, (xyxy[1] + xyxy[3]) / 2
    half = (xyxy[2] - xyxy[0]) / 2 * (side + 2) / side, (xyxy[3] - xyxy[1]) / 2 * (side + 2) / side
    left, top = int(centre[0] - half[0]), int(centre[1] - half[1])
    right, bottom = max(int(centre[0] + half[0]), left) + 1, max(int(centre[1] + half[1]), top) + 1
    grid = torch.from_numpy(padded)[None, None]
    large = functional.interpolate(grid, size=(bottom - top, right - left), mode="bilinear")[0, 0].numpy() > 0.5
    x, y = (slice(min(max(a, 0), n), min(max(b, 0), n)) for a, b, n in ((left, right, width), (top, bottom, height)))
    mask = np.zeros((height, width), dtype=np.bool_)
    mask[y, x] = large[y.start - top : y.stop - top, x.start - left : x.stop - left]
    return mask


def _whole(box: tuple[int, ...], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Clipped to the image, at least one pixel either way."""
    left, top = (min(max(box[axis], 0), size[axis] - 1) for axis in (0, 1))
    right, bottom = (min(max(box[axis + 2], start + 1), size[axis]) for axis, start in ((0, left), (1, top)))
    return left, top, right, bottom


def _resize(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """float32 (H, W) → (height, width) of `size` (width, height)."""
    image = Image.fromarray(np.ascontiguousarray(values))
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR), dtype=np.float32)
