"""Non-maximum suppression of many classes over the same boxes."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchvision.ops import box_iou

_FIRST_LOOK = 4096  # candidates that are sorted at first; the best few hundred are mostly among them


def class_nms(
    boxes: Float[Tensor, "R 4"], scores: Float[Tensor, "R C"], *, max_overlap: float, num_kept: int
) -> tuple[Int[Tensor, "K"], Int[Tensor, "K"]]:
    """The `num_kept` best of all pairs of box and class with a score above 0 (or NaN), best first: (boxes, classes).

    A pair goes that overlaps a better box of its own class by more than `max_overlap`. Since a pair depends on better
    ones alone, it is enough to go down the list until so many are kept; overlaps are the same for all classes.
    """
    num_classes = scores.shape[1]
    flat = scores.flatten()
    overlaps = (box_iou(boxes.float(), boxes.float()) > max_overlap).cpu().numpy()
    gone = np.zeros(tuple(scores.shape), dtype=np.bool_)
    kept: list[int] = []
    looked, look = 0, min(_FIRST_LOOK, flat.numel())
    while looked < flat.numel() and len(kept) < num_kept:
        best, order = flat.topk(look)  # equal scores: whichever comes, as in the reference
        order = order[~(best <= 0)]  # what is not a number stays, so that it is noticed
        for pair in order[looked:].tolist():
            box, label = divmod(pair, num_classes)
            if gone[box, label]:
                continue
            kept.append(pair)
            if len(kept) == num_kept:
                break
            gone[:, label] |= overlaps[box]
        if len(order) < look:
            break
        looked, look = look, min(16 * look, flat.numel())
    pairs = torch.tensor(kept, dtype=torch.int64, device=scores.device)
    return pairs // num_classes, pairs % num_classes
