"""Predict the next token, and keep the states of a sentence's tokens apart.

Su et al., "A Contrastive Framework for Neural Text Generation", 2022 (SimCTG), eqs. 2 and 3; MAGIC adapts its language
model to captions by it. Contrastive search asks how like a state is to those before it, which says little where all
states of a language model point the same way, as those of GPT-2 do.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from rebus.core.errors import UsageError
from rebus.core.labels import IGNORED
from rebus.objectives.losses import Losses
from rebus.objectives.next_token import hits

_INPUTS = ("tokens", "mask", "targets")


def contrastive_tokens(
    hidden: Float[Tensor, "B S D"], real: Bool[Tensor, "B S"], margin: float = 0.5
) -> Float[Tensor, ""]:
    """Mean of max(0, margin − 1 + cosine) over the pairs of different real tokens of one row, pooled over the batch;
    0 where no row has two."""
    states = F.normalize(hidden.to(torch.promote_types(hidden.dtype, torch.float32)), dim=-1)
    pairs = real[:, :, None] & real[:, None] & ~torch.eye(real.shape[1], dtype=torch.bool, device=real.device)
    hinge = (margin - 1 + states @ states.mT).clamp(min=0)
    return (hinge * pairs).sum() / pairs.sum().clamp(min=1)


@dataclass(frozen=True)
class ContrastiveTokenLoss:
    """The mean cross entropy of all tokens of the batch, plus `contrastive_tokens` of their states.

    Both pool the batch, so that it is not divided (`accumulate` 1). Raises `UsageError` for a network that does not
    show its states.
    """

    kind: Literal["contrastive tokens"] = "contrastive tokens"
    margin: float = 0.5

    def __call__(self, network: Callable[..., Any], batch: Mapping[str, Tensor]) -> Losses:
        targets = batch["targets"]
        predictions = network(**{name: batch[name] for name in _INPUTS if name in batch})
        logits, hidden = predictions.logits, predictions.hidden
        if hidden is None:
            raise UsageError(f"the objective {self.kind!r} is for language models, which show the states of their text")
        scores = logits.flatten(0, 1).to(torch.promote_types(logits.dtype, torch.float32))
        likelihood = F.cross_entropy(scores, targets.flatten(), ignore_index=IGNORED)
        apart = contrastive_tokens(hidden, targets != IGNORED, self.margin)
        parts = {"next_token": likelihood.detach(), "apart": apart.detach(), **hits(logits, targets)}
        return Losses(likelihood + apart, parts)
