"""Rows of images: the real ones of a batch in reading order, and which of them each row of text sees."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from rebus.core.errors import BadText, UsageError
from rebus.nn.only_shapes import only_shapes


def real_images(pixels: Tensor, image_mask: Bool[Tensor, "B N"] | None = None) -> Tensor:
    """(B, 3, H, W), (B, N, 3, H, W) or (B, N, F, 3, H, W) → (M, 3, H, W): the images, frame by frame, that the mask
    says are there. Raises `UsageError` for other shapes, or a mask without images to choose from."""
    if pixels.ndim == 4 and image_mask is None:
        return pixels
    if pixels.ndim not in (5, 6) or (image_mask is not None and image_mask.shape != pixels.shape[:2]):
        given = "" if image_mask is None else f" and image_mask {tuple(image_mask.shape)}"
        raise UsageError(
            "images need pixels (B, 3, H, W), or (B, N, 3, H, W) or (B, N, F, 3, H, W) with image_mask (B, N); got "
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


def check_placeholders(places: Bool[Tensor, "T L"], rows: ImageRows | None, each: int) -> None:
    """Raise `BadText` where a text has not `each` placeholders for each image of its row; None: there are no images.

    Nothing is looked at while a network is compiled or only planned.
    """
    marks = places.sum(dim=1)
    images = marks.new_zeros(len(marks)) if rows is None else rows.of_texts()
    if torch.compiler.is_compiling() or only_shapes(marks) or only_shapes(images):
        return
    if len(images) != len(marks):
        raise BadText(
            f"{len(marks)} prompts for {len(images)} rows of images: `owners` says which row each prompt belongs to"
        )
    wrong = ((images < 0) | (marks != images * each)).nonzero()
    if len(wrong):
        row = int(wrong[0])
        if int(images[row]) < 0:
            raise BadText(f"owners[{row}]: there is no such row of images")
        raise BadText(
            f"row {row}: {int(marks[row])} image placeholders in the tokens, but {int(images[row])} images of "
            f"{each} each: {int(images[row]) * each} wanted"
        )
