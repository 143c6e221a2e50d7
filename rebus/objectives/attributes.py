"""Name the attributes of each object in an image from one pooled vector: an image encoder trained on labels only."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from rebus.core.labels import IGNORED
from rebus.objectives.losses import Losses
from rebus.objectives.patch_names import HEAD


def attributes(
    scores: Float[Tensor, "B S K"], labels: Int[Tensor, "B S A"], kinds: tuple[int, ...]
) -> Float[Tensor, ""]:
    """Cross entropy of each attribute over the slots that hold an object + binary cross entropy of holding one.

    `scores`: of each slot the classes of each attribute, `kinds` of them, then one for holding an object. `labels`:
    -100 in slots without.
    """
    *each, present = scores.split((*kinds, 1), dim=-1)
    there = labels[..., 0] != IGNORED
    total = F.binary_cross_entropy_with_logits(present[..., 0], there.to(scores.dtype))
    for i, part in enumerate(each):
        total = total + F.cross_entropy(part.flatten(0, 1), labels[..., i].flatten(), ignore_index=IGNORED)
    return total


@dataclass(frozen=True)
class AttributesLoss:
    """`attributes` of a linear layer over the network's pooled vectors, for `slots` objects."""

    kind: Literal["attributes"] = "attributes"
    kinds: tuple[int, ...] = (7, 8, 3, 3)
    slots: int = 5

    def extend(self, network: nn.Module) -> None:
        """Give the network the layer that names attributes, which belongs to no checkpoint."""
        width = network.get_parameter("positions").shape[1]
        network.add_module(HEAD, nn.Linear(width, self.slots * (sum(self.kinds) + 1)))

    def __call__(self, network: Any, batch: Mapping[str, Tensor]) -> Losses:
        scores = network.get_submodule(HEAD)(network.pooled(batch["pixels"]))
        scores = scores.unflatten(1, (self.slots, -1))
        total = attributes(scores, batch["labels"], self.kinds)
        with torch.no_grad():
            labels = batch["labels"]
            guesses = torch.stack([part.argmax(-1) for part in scores.split((*self.kinds, 1), dim=-1)[:-1]], dim=-1)
            right = (guesses == labels)[labels[..., 0] != IGNORED].float().mean(0)
        return Losses(total, {f"attribute_{i}": value for i, value in enumerate(right)})
