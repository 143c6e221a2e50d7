"""Rows of images: the real ones of a batch in reading order, and which of them each row of text sees."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from rebus.core.errors import UsageError


def real_images(pixels: Tensor, image_mask: Bool[Tensor, "B N"] | None = None) -> Tensor:
    """(B, 3, H, W), (B, N, 3, H, W) or (B, N, F, 3, H, W) → (M, 3, H, W): the images, frame by frame, that the mask
    says are there. Raises `UsageError` for other shapes, or a mask without images to choose from."""
    if pixels.ndim == 4 and image_mask is None:
        return pixels
    if pixels.ndim not in (5, 6) or (image_mask is not None and image_mask.shape != pixels.shape[:2]):
        given = "" if image_mask is None else f" and image_mask {tuple(image_mask.shape)}"
        raise UsageError(
            "images want pixels (B, 3, H, W), or (B, N, 3, H, W) or (B, N, F, 3, H, W) with image_mask (B, N); got "
            f"pixels {tuple(pixels.shape)}{given}"
        )
    images = pixels.flatten(0, 1) if image_mask is None else pixels[image_mask]
    return images.flatten(0, 1) if images.ndim == 5 else images


class ImageRows(NamedTuple):
    """`counts` (B,): how many images (or frames) each row has; `owners` (T,): the row of each text, None where they
    go together one by one."""

    counts: Int[Tensor, "B"]
    owners: Int[Tensor, "T"] | None = None

    @classmethod
    def of(
        cls, pixels: Tensor, image_mask: Bool[Tensor, "B N"] | None = None, owners: Int[Tensor, "T"] | None = None
    ) -> "ImageRows":
        """The rows of a batch as `real_images` takes it."""
        frames = pixels.shape[2] if pixels.ndim == 6 else 1
        if image_mask is not None:
            return cls(image_mask.sum(dim=1) * frames, owners)
        images = 1 if pixels.ndim == 4 else pixels.shape[1] * frames
        return cls(torch.full((len(pixels),), images, device=pixels.device), owners)

    def of_texts(self) -> Int[Tensor, "T"]:
        """How many images each row of text has; −1 where its owner is no row."""
        if self.owners is None:
            return self.counts
        there = (self.owners >= 0) & (self.owners < len(self.counts))
        return torch.where(there, self.counts[self.owners.where(there, 0)], -1)

    def spread(self, seen: Tensor) -> Tensor:
        """What was made of the images (M, …), once for each text that sees it, in reading order of the texts."""
        if self.owners is None:
            return seen
        each = self.counts[self.owners]
        starts = (self.counts.cumsum(0) - self.counts)[self.owners]
        within = torch.arange(int(each.sum()), device=seen.device) - (each.cumsum(0) - each).repeat_interleave(each)
        return seen[starts.repeat_interleave(each) + within]
