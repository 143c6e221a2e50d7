"""Name regions by their nearest text: the classification loss of ViLD-text.

Gu et al., "Open-vocabulary Object Detection via Vision and Language Knowledge Distillation", 2021, Sec. 3.3.
"""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F


def region_text(
    scores: Float[Tensor, "R N"], labels: Int[Tensor, "R"], judged: Bool[Tensor, "R N"] | None = None
) -> Float[Tensor, ""]:
    """Mean cross entropy over the regions, class 0 being the background; 0 without regions.

    `judged` says which classes a region is compared with, its own among them; all others are left out of the softmax.
    (The reference multiplies the scores of rare classes by 0, so that they stay in it at 0, far below the others.)
    """
    if judged is not None:
        scores = scores.masked_fill(~judged, -math.inf)
    exact = scores.to(torch.promote_types(scores.dtype, torch.float32))
    return F.cross_entropy(exact, labels, reduction="sum") / max(len(labels), 1)


def judged_classes(
    labels: Int[Tensor, "R"], images: Int[Tensor, "R"], known: Bool[Tensor, "B C"]
) -> Bool[Tensor, "R N"]:
    """With which of background and classes a region is compared where annotation is federated (LVIS; Gupta et al.,
    2019, Sec. 3).

    `known[b, c]`: all objects of class c in image b are labelled, or there are none. A labelled region is of no other
    class, whatever was annotated. A background region may be an object of any class that is not known, and is compared
    with the known ones alone. `images`: the row of each region's image.
    """
    background = torch.ones(len(known), 1, dtype=torch.bool, device=known.device)
    return torch.cat([background, known], dim=1)[images] | (labels > 0)[:, None]
