"""See first, then speak: name what each patch of an image belongs to, and predict the next token.

An image whose every patch is supervised teaches an image encoder far more than its caption does. Dense supervision of
an encoder before and beside a language model: Tschannen et al., "SigLIP 2", 2025, Sec. 2.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rebus.core.labels import IGNORED
from rebus.objectives.losses import Losses
from rebus.objectives.next_token import hits, next_token, place_waves

HEAD = "patch_head"  # the training's own part of the network; it belongs to no checkpoint


def patch_names(scores: Tensor, names: Tensor, present: Tensor, boxes: Tensor, kinds: tuple[int, ...]) -> Tensor:
    """Cross entropy of each property over the patches that belong to something with it + of belonging, over all
    patches + 5 times the absolute error of the box's sides.

    scores (B, P, sum of kinds + 5), names (B, P, properties or more), `IGNORED` for what a thing has not, present
    (B, P) bool, boxes (B, P, 4) in [0, 1].
    """
    *each, belongs, sides = scores.split((*kinds, 1, 4), dim=-1)
    wanted = names[present]
    total = F.binary_cross_entropy_with_logits(belongs[..., 0], present.to(scores.dtype))
    total = total + 5 * F.l1_loss(sides[present], boxes[present])
    for i, part in enumerate(each):
        known = (wanted[:, i] != IGNORED).sum().clamp(min=1)
        total = total + F.cross_entropy(part[present], wanted[:, i], ignore_index=IGNORED, reduction="sum") / known
    return total


@dataclass(frozen=True)
class SeeAndSpeakLoss:
    """`next_token` + `share` · `patch_names`; batches without tokens teach the image encoder alone.

    `kinds`: how many names each property of a patch can have; "shapes" is the accuracy of the first.
    `places`: see `NextTokenLoss`.
    """

    kind: Literal["see and speak"] = "see and speak"
    kinds: tuple[int, ...] = (7, 8, 3, 3, 5)
    share: float = 0.2
    places: tuple[int, int] | None = None

    def extend(self, network: nn.Module) -> None:
        """Give the network the head that names patches."""
        width: int = network.get_submodule("image").cfg.width  # type: ignore[assignment, union-attr]
        network.add_module(HEAD, nn.Linear(width, sum(self.kinds) + 5))

    def begin(self, network: nn.Module, batch: Mapping[str, Tensor]) -> None:
        """Set the embeddings of the location tokens before the first step."""
        place_waves(network, self.places)

    def __call__(self, network: Any, batch: Mapping[str, Tensor]) -> Losses:
        features = network.look(batch["pixels"])
        scores = network.get_submodule(HEAD)(features)
        named = patch_names(scores, batch["names"], batch["present"], batch["boxes"], self.kinds)
        with torch.no_grad():
            first = batch["names"][..., 0]
            shapes = scores[..., : self.kinds[0]].argmax(-1)
            right = (shapes == first)[batch["present"] & (first != IGNORED)]
            parts = {"patches": named.detach(), "shapes": right.float().mean()}
        if "tokens" not in batch:
            return Losses(named, parts)
        targets = batch["targets"]
        given = {name: batch[name] for name in ("tokens", "mask", "targets", "owners") if name in batch}
        logits = network(**given, seen=network.project(features)).logits
        loss = next_token(logits, targets)
        parts |= {"next_token": loss.detach(), **hits(logits, targets)}
        return Losses(loss + self.share * named, parts)
