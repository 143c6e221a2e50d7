"""Features of an image's regions, for networks that read regions: an image as a detector saw it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rebus.core.errors import BadRegions

_SLACK = 2.0  # pixels by which a detector's box may leave its image


@dataclass(frozen=True, eq=False)
class ImageRegions:
    """An image as a detector saw it; tasks take it wherever they take an image.

    `features` (R, D) float32; `boxes` (R, 4) xyxy in pixels of an image of `size` (width, height), where they are
    known; `key` names the image in messages. Raises `BadRegions` for no regions, for values that are not finite, and
    for boxes that are not inside of the image.
    """

    features: np.ndarray
    boxes: np.ndarray | None = None
    size: tuple[int, int] | None = None
    key: str = "regions"

    def __post_init__(self) -> None:
        features = self._numbers("features", self.features)
        if features.ndim != 2 or not features.size:
            raise BadRegions(f"{self.key}: features are (regions, width), at least one; got {tuple(features.shape)}")
        object.__setattr__(self, "features", features)
        if self.boxes is None:
            return
        boxes = self._numbers("boxes", self.boxes)
        if boxes.shape != (len(features), 4):
            raise BadRegions(f"{self.key}: {len(features)} regions need boxes ({len(features)}, 4); got {boxes.shape}")
        if (boxes[:, :2] > boxes[:, 2:]).any():
            raise BadRegions(
                f"{self.key}: boxes are left, top, right, bottom; in one of them right < left or bottom < top"
            )
        limits = np.array(self.size * 2 if self.size else [np.inf] * 4, np.float32)
        if (boxes < -_SLACK).any() or (boxes > limits + _SLACK).any():
            of = "" if self.size is None else f" of {self.size[0]} × {self.size[1]} pixels"
            raise BadRegions(f"{self.key}: a box leaves the image{of}: they are not of the same image")
        object.__setattr__(self, "boxes", boxes)

    def _numbers(self, what: str, values: Any) -> np.ndarray:
        try:
            found = np.asarray(values, dtype=np.float32)
        except (TypeError, ValueError):
            raise BadRegions(f"{self.key}: {what} are not a table of numbers") from None
        bad = int(np.size(found) - np.isfinite(found).sum())
        if bad:
            raise BadRegions(f"{self.key}: {bad} of {found.size:,} numbers of the {what} are not finite")
        return found

    def of_size(self, size: tuple[int, int], name: str) -> "ImageRegions":
        """The same, known to be of the image `name` of `size` (width, height). Raises `BadRegions` where it is not."""
        if self.size is not None and self.size != size:
            raise BadRegions(
                f"{self.key}: these are regions of an image of {self.size[0]} × {self.size[1]} pixels; {name} has "
                f"{size[0]} × {size[1]}: they belong to another image"
            )
        return replace(self, size=size)

    @property
    def shares(self) -> np.ndarray | None:
        """The boxes in shares of the image, (R, 4), within it; None where boxes or size are not known."""
        if self.boxes is None or self.size is None:
            return None
        return (self.boxes / np.array(self.size * 2, np.float32)).clip(0, 1)


def regions_batch(rows: Sequence[Sequence[ImageRegions]]) -> dict[str, Tensor]:
    """`regions` (B, R, D) and `region_mask` (B, R) bool, those of a row's images one after another; `boxes` (B, R, 4)
    in shares of the image where all are known; `region_types` (B, R), the number of the image in its row, where a row
    has several. Raises `BadRegions` for features of different width."""
    widths = {regions.features.shape[1]: regions.key for row in rows for regions in row}
    if len(widths) > 1:
        said = ", ".join(f"{width} ({key})" for width, key in widths.items())
        raise BadRegions(f"features of different widths cannot form a batch: {said}")
    for i, row in enumerate(rows):
        if not row:
            raise BadRegions(f"images[{i}]: a row without an image, among rows with regions")
    parts: Mapping[str, list[np.ndarray]] = {
        "regions": [np.concatenate([regions.features for regions in row]) for row in rows]
    }
    boxes = [[regions.shares for regions in row] for row in rows]
    if all(part is not None for row in boxes for part in row):
        parts = {**parts, "boxes": [np.concatenate([part for part in row if part is not None]) for row in boxes]}
    if any(len(row) > 1 for row in rows):
        numbers = [[np.full(len(regions.features), i) for i, regions in enumerate(row)] for row in rows]
        parts = {**parts, "region_types": [np.concatenate(row) for row in numbers]}
    lengths = torch.tensor([len(row) for row in parts["regions"]])
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    padded = {
        name: torch.nn.utils.rnn.pad_sequence([torch.from_numpy(value) for value in values], batch_first=True)
        for name, values in parts.items()
    }
    return {**padded, "region_mask": mask}
