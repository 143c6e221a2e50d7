"""Learn the words of a codebook: rebuild the input from nearest words, pull words and features together.

Van den Oord et al., "Neural Discrete Representation Learning", 2017, Sec. 3.2, equation 3.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rebus.objectives.losses import Losses


@dataclass(frozen=True)
class CodebookLoss:
    """Squared error of the mask or image rebuilt in [−1, 1] + ‖sg(features) − words‖² + `commitment` · ‖features −
    sg(words)‖². The batch has `masks`, (B, Y, X) in [0, 1], or `pixels`.

    Words that nobody chose in a batch go `revive` of the way to a feature of it, or they would never be chosen.
    """

    kind: Literal["codebook"] = "codebook"
    commitment: float = 0.25
    revive: float = 0.2

    def __call__(self, network: Callable[..., Any], batch: Mapping[str, Tensor]) -> Losses:
        masks = batch.get("masks")
        given = batch["pixels"] if masks is None else masks
        made = network(given)
        rebuilt = F.mse_loss(made.output, given if masks is None else 2 * masks - 1)
        words = F.mse_loss(made.vectors, made.features.detach())
        total = rebuilt + words + self.commitment * F.mse_loss(made.features, made.vectors.detach())
        with torch.no_grad():
            parts = {"words_used": torch.tensor(float(made.codes.unique().numel()))}
            if masks is None:
                parts["rebuilt"] = rebuilt.detach()
            else:
                inside, wanted = made.output > 0, masks > 0.5
                overlap = (inside & wanted).flatten(1).sum(1) / (inside | wanted).flatten(1).sum(1).clamp(min=1)
                parts["iou"] = overlap.mean()
            if getattr(network, "training", False):
                self._revive(network, made.features.flatten(0, 1), made.codes)
        return Losses(total, parts)

    def _revive(self, network: Any, features: Tensor, codes: Tensor) -> None:
        words: Tensor = network.codebook
        unused = torch.bincount(codes.flatten(), minlength=len(words)) == 0
        picked = features[torch.randint(len(features), (int(unused.sum()),))].to(words.dtype)
        words[unused] = words[unused].lerp(picked, self.revive)

    def begin(self, network: nn.Module, batch: Mapping[str, Tensor]) -> None:
        """Words start at features of the first batch, or most would never be chosen."""
        seed: Callable[..., None] = network.seed_codebook  # type: ignore[assignment]
        seed(batch["masks"] if "masks" in batch else batch["pixels"])
