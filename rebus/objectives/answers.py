"""Pick one of several: answers that are right to a degree, statements, verdicts, the regions of a phrase.

Teney et al., "Tips and Tricks for Visual Question Answering", 2017, Sec. 3.4, scores answers by how many people gave
them; VisualBERT (Li et al., 2019) compares by the Kullback-Leibler divergence, which for a single correct answer is
cross entropy.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from rebus.core.labels import OF_READERS
from rebus.objectives.losses import Losses


def soft_answers(logits: Tensor, scores: Tensor) -> Tensor:
    """Σ score · (log score − log p) over the last dimension, mean over the rows of the batch.

    logits, scores (B, A) or (B, Q, R); scores from 0 to 1 need not sum to 1, and a row of zeros counts as no loss.
    """
    log_p = F.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), dim=-1)
    return F.kl_div(log_p, scores.to(log_p.dtype), reduction="batchmean")


@dataclass(frozen=True)
class AnswerLoss:
    """`soft_answers` of the network's choices for the batch's `scores`."""

    kind: Literal["soft answers"] = "soft answers"

    def examples(self, batch: Mapping[str, Tensor]) -> int:
        """Rows that the loss is the mean of."""
        return len(batch["scores"])

    def __call__(self, network: Callable[..., Any], batch: Mapping[str, Tensor]) -> Losses:
        scores = batch["scores"]
        logits = network(**{name: value for name, value in batch.items() if name not in OF_READERS}).logits
        with torch.no_grad():
            picked = scores.gather(-1, logits.argmax(-1, keepdim=True))
            parts = {"accuracy": picked.float().mean()}
        return Losses(soft_answers(logits, scores), parts)
