"""Train an autoencoder whose middle is words of a codebook.

Van den Oord et al., "Neural Discrete Representation Learning", 2017, eq. 3.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from rebus.core.outputs import Quantised
from rebus.objectives.losses import Losses


def quantisation(made: Quantised, wanted: Tensor, commitment: float = 0.25) -> Tensor:
    """Squared error of the output + words moved to their features + `commitment` · features held to their words."""
    words = F.mse_loss(made.vectors, made.features.detach())
    held = F.mse_loss(made.features, made.vectors.detach())
    return F.mse_loss(made.output, wanted) + words + commitment * held


@dataclass(frozen=True)
class MaskQuantisationLoss:
    """`quantisation` of a mask autoencoder; `batch["masks"]` (B, 64, 64) in [0, 1], its output in [−1, 1]."""

    kind: Literal["mask_quantisation"] = "mask_quantisation"
    commitment: float = 0.25

    def __call__(self, network: Callable[..., Any], batch: Mapping[str, Tensor]) -> Losses:
        masks = batch["masks"]
        made = network(masks)
        loss = quantisation(made, 2 * masks - 1, self.commitment)
        with torch.no_grad():
            inside, wanted = made.output > 0, masks > 0.5
            share = (inside & wanted).sum() / (inside | wanted).sum().clamp(min=1)
            used = made.codes.unique().numel()
        return Losses(loss, {"iou": share, "codes_used": torch.tensor(float(used))})
