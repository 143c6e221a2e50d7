"""What a detector that knows no classes learns beside names: where there are things, their boxes and their masks.

Ren et al., "Faster R-CNN", 2015; He et al., "Mask R-CNN", 2017. Normalised as in ViLD's TensorFlow reference.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import roi_align

PROPOSAL_DELTA, REGION_DELTA = 1 / 9, 1.0  # from which error on Huber's loss grows in a straight line


def proposal_score_loss(
    logits: Sequence[Float[Tensor, "B _"]],
    targets: Sequence[Bool[Tensor, "B _"]],
    sampled: Sequence[Bool[Tensor, "B _"]],
    number: int,
) -> Float[Tensor, ""]:
    """Binary cross entropy of the sampled anchors: its sum at each level over B · `number`, summed over the levels.

    An image with fewer than `number` anchors to learn from counts less.
    """
    total = sum(
        (F.binary_cross_entropy_with_logits(scores, wanted.to(scores.dtype), reduction="none") * chosen).sum()
        for scores, wanted, chosen in zip(_exact(logits), targets, sampled, strict=True)
    )
    return torch.as_tensor(total / (len(logits[0]) * number))


def proposal_box_loss(
    deltas: Sequence[Float[Tensor, "B _ 4"]],
    targets: Sequence[Float[Tensor, "B _ 4"]],
    positive: Sequence[Bool[Tensor, "B _"]],
) -> Float[Tensor, ""]:
    """Huber's loss (δ = 1/9) of the anchors with an object: at each level the mean over the deltas that are not 0,
    summed over the levels. All such anchors count, whether they were sampled or not."""
    total = deltas[0].new_zeros((), dtype=torch.promote_types(deltas[0].dtype, torch.float32))
    for given, wanted, chosen in zip(_exact(deltas), targets, positive, strict=True):
        counted = chosen[..., None] & (wanted != 0)
        losses = F.huber_loss(given, wanted, reduction="none", delta=PROPOSAL_DELTA) * counted
        total = total + losses.sum() / counted.sum().clamp(min=1)
    return total


def region_box_loss(deltas: Float[Tensor, "P 4"], targets: Float[Tensor, "P 4"]) -> Float[Tensor, ""]:
    """Huber's loss (δ = 1), the mean over the deltas of regions with an object; 0 without any."""
    (given,) = _exact([deltas])
    return F.huber_loss(given, targets, reduction="sum", delta=REGION_DELTA) / max(targets.numel(), 1)


def region_mask_loss(logits: Float[Tensor, "P S S"], targets: Float[Tensor, "P S S"]) -> Float[Tensor, ""]:
    """Binary cross entropy, the mean over all cells of regions with an object; 0 without any."""
    (given,) = _exact([logits])
    return F.binary_cross_entropy_with_logits(given, targets, reduction="sum") / max(targets.numel(), 1)


def mask_targets(
    masks: Float[Tensor, "M S S"],
    boxes: Float[Tensor, "M 4"],
    regions: Float[Tensor, "P 4"],
    objects: Int[Tensor, "P"],
    side: int,
) -> Float[Tensor, "P side side"]:
    """0 or 1 for each cell of a region: whether its centre lies in the region's object.

    `masks`: how much of each cell of the object's own box lies in it. Between cells it is interpolated, outside of the
    box there is nothing of the object.
    """
    own = boxes[objects]
    size = (own[:, 2:] - own[:, :2]).clamp(min=1e-6)
    inside = (regions - own[:, :2].repeat(1, 2)) / size.repeat(1, 2) * masks.shape[-1]
    rois = torch.cat([objects[:, None].to(inside.dtype), inside], dim=1)
    share = roi_align(masks[:, None].to(inside.dtype), rois, side, sampling_ratio=1, aligned=True)
    return (share[:, 0] >= 0.5).to(inside.dtype)


def _exact(values: Sequence[Tensor]) -> list[Tensor]:
    """In float32 or wider."""
    return [value.to(torch.promote_types(value.dtype, torch.float32)) for value in values]
