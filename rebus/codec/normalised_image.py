"""An image that somebody else's pipeline has resized and normalised: what a network takes, as it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rebus.core.errors import BadImage

PIXELS = "pixels"


@dataclass(frozen=True, eq=False)
class NormalisedImage:
    """`pixels` (3, H, W) float, normalised as the checkpoint expects it: nothing is done to it any more."""

    pixels: Tensor


def normalised_images(batch: Mapping[str, Any]) -> tuple[list[NormalisedImage], bool]:
    """`{"pixels": (3, H, W)}` or `(B, 3, H, W)` as images, and whether there are many. Raises `BadImage`."""
    if set(batch) != {PIXELS}:
        raise BadImage(
            f'an image as a dict is {{"pixels": (3, H, W) or (B, 3, H, W)}}; got {", ".join(map(str, batch))}'
        )
    pixels = batch[PIXELS]
    if not isinstance(pixels, Tensor) or not pixels.is_floating_point():
        kind = str(pixels.dtype) if isinstance(pixels, Tensor) else type(pixels).__name__
        raise BadImage(f"pixels: expected normalised floats as a tensor; got {kind}")
    if pixels.ndim not in (3, 4) or pixels.shape[-3] != 3:
        raise BadImage(f"pixels: expected (3, H, W) or (B, 3, H, W); got {tuple(pixels.shape)}")
    if not bool(pixels.isfinite().all()):
        raise BadImage("pixels: contains NaN or infinity")
    rows = pixels.detach()
    return [NormalisedImage(row) for row in (rows if rows.ndim == 4 else rows[None])], rows.ndim == 4


def stacked(images: Sequence[NormalisedImage]) -> dict[str, Tensor]:
    """A batch of them, float32 on the CPU. Raises `BadImage` for several sizes."""
    sizes = {tuple(image.pixels.shape) for image in images}
    if len(sizes) > 1:
        raise BadImage(f"pixels: images of one batch must have the same size; got {', '.join(map(str, sorted(sizes)))}")
    return {PIXELS: torch.stack([image.pixels.float().cpu() for image in images])}
