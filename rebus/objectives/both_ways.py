"""Captions from left to right and from right to left (VirTex), and sets of labels.

Desai & Johnson, "VirTex: Learning Visual Representations from Textual Annotations", 2021, Sec. 3. The two directions
are added; each is the mean over all tokens of the batch, so that long captions count more than short ones.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from rebus.core.errors import UsageError
from rebus.core.labels import IGNORED, reversed_rows
from rebus.objectives.losses import Losses
from rebus.objectives.next_token import hits

_INPUTS = ("pixels", "tokens", "mask", "targets", "owners")


def token_mean(logits: Float[Tensor, "B S V"], targets: Int[Tensor, "B S"]) -> Float[Tensor, ""]:
    """Cross entropy, the mean over all targets of the batch that are not −100; 0 where there is none."""
    scores = logits.flatten(0, 1).to(torch.promote_types(logits.dtype, torch.float32))
    total = F.cross_entropy(scores, targets.flatten(), ignore_index=IGNORED, reduction="sum")
    return total / (targets != IGNORED).sum().clamp(min=1)


def label_set(logits: Float[Tensor, "B V"], labels: Int[Tensor, "B K"]) -> Float[Tensor, ""]:
    """Cross entropy against the labels of each row (−100: none), every distinct one with the same share (Mahajan et
    al., "Exploring the Limits of Weakly Supervised Pretraining", 2018). Rows without labels count nothing.

    Raises `UsageError` for a label that has no logit."""
    num_labels = logits.shape[1]
    if labels.numel() and int(labels.max()) >= num_labels:
        raise UsageError(f"label {int(labels.max())} has no output: the network has {num_labels}, from 0")
    exact = torch.promote_types(logits.dtype, torch.float32)
    wanted = torch.zeros(len(logits), num_labels + 1, dtype=exact, device=logits.device)  # the last is for no label
    wanted = wanted.scatter(1, labels.masked_fill(labels == IGNORED, num_labels), 1.0)[:, :num_labels]
    number = wanted.sum(dim=1)
    each = -(wanted * logits.to(wanted.dtype).log_softmax(dim=1)).sum(dim=1) / number.clamp(min=1)
    return each.sum() / (number > 0).sum().clamp(min=1)


@dataclass(frozen=True)
class BothWaysLoss:
    """`token_mean` of the captions in `batch["targets"]`, and of the same read backwards where the network does.

    `unknown`: the id of words that the tokenizer does not know, which are not learned; None: there is no such id.
    """

    kind: Literal["captions both ways"] = "captions both ways"
    unknown: int | None = 0

    def examples(self, batch: Mapping[str, Tensor]) -> int:
        """Words that each direction is the mean of."""
        return int((self._known(batch["targets"]) != IGNORED).sum())

    def __call__(self, network: Callable[..., Any], batch: Mapping[str, Tensor]) -> Losses:
        inputs = {name: batch[name] for name in _INPUTS if name in batch}
        out = network(**inputs)
        forward = token_mean(out.logits, self._known(batch["targets"]))
        if out.backward is None:
            return Losses(forward, hits(out.logits, batch["targets"]))
        _, _, targets = reversed_rows(batch["tokens"], batch.get("mask"), batch["targets"])
        backward = token_mean(out.backward, self._known(targets))
        parts = {"forward": forward.detach(), "backward": backward.detach(), **hits(out.logits, batch["targets"])}
        return Losses(forward + backward, parts)

    def _known(self, targets: Tensor) -> Tensor:
        return targets if self.unknown is None else targets.masked_fill(targets == self.unknown, IGNORED)


@dataclass(frozen=True)
class LabelSetLoss:
    """`label_set` of the labels in `batch["targets"]`: the baseline that learns from the set of words or classes."""

    kind: Literal["label set"] = "label set"

    def examples(self, batch: Mapping[str, Tensor]) -> int:
        """Rows with a label."""
        return int((batch["targets"] != IGNORED).any(dim=1).sum())

    def __call__(self, network: Callable[..., Any], batch: Mapping[str, Tensor]) -> Losses:
        logits = network(pixels=batch["pixels"]).logits[:, 0]
        return Losses(label_set(logits, batch["targets"]), {})
