"""What a box shows, cut out of its image with and without some of what is around it."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor


def enlarged(boxes: Float[Tensor, "*N 4"], by: float) -> Float[Tensor, "*N 4"]:
    """Boxes xyxy whose sides are `by` times as long, about the same centre; they may reach over the image's edge.

    By 1.5: x1 becomes 1.25 · x1 − 0.25 · x2 (ViLD; Gu et al., 2021, Sec. 3.2).
    """
    low, high = boxes[..., :2], boxes[..., 2:]
    more = (by - 1) / 2 * (high - low)
    return torch.cat([low - more, high + more], dim=-1)


def crop(image: Image.Image, box: Sequence[float]) -> Image.Image:
    """The pixels that a box touches, as far as the image goes; at least one."""
    width, height = image.size
    left, top = (min(max(math.floor(at), 0), side - 1) for at, side in zip(box[:2], image.size, strict=True))
    right, bottom = max(left + 1, min(math.ceil(box[2]), width)), max(top + 1, min(math.ceil(box[3]), height))
    return image.crop((left, top, right, bottom))
