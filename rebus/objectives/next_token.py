"""Predict the next token of the target text, given the picture and the prompt.

Each example counts the same, however long its target: the mean over its own tokens first, then the mean over the batch
(PaliGemma; Beyer et al., "PaliGemma: A versatile 3B VLM for transfer", 2024, and its released code).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from rebus.objectives.losses import Losses

IGNORED = -100


def next_token(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """logits (B, S, V), targets (B, S) with -100 = ignored → scalar. Smoothing spreads over the whole vocabulary.

    Rows without any target count nothing.
    """
    each = F.cross_entropy(
        logits.flatten(0, 1).float(),
        targets.flatten(),
        ignore_index=IGNORED,
        label_smoothing=label_smoothing,
        reduction="none",
    ).view_as(targets)
    real = targets != IGNORED
    lengths = real.sum(dim=1)
    rows = (each * real).sum(dim=1) / lengths.clamp(min=1)
    return rows.sum() / (lengths > 0).sum().clamp(min=1)


@dataclass(frozen=True)
class NextTokenLoss:
    """`next_token` of the network's predictions for `batch["targets"]`.

    A batch may hold several rows of tokens for each picture, one after another; the picture is then seen once.
    """

    kind: Literal["next token"] = "next token"
    label_smoothing: float = 0.0

    def __call__(self, network: Callable[..., Any], batch: Mapping[str, Tensor]) -> Losses:
        batch = dict(batch)
        rows = len(batch["tokens"]) // len(batch["pixels"])
        if rows > 1:
            see: Callable[[Tensor], Tensor] = network.see  # type: ignore[attr-defined]
            batch["seen"] = see(batch.pop("pixels")).repeat_interleave(rows, dim=0)
        logits = network(**batch).logits
        targets = batch["targets"]
        loss = next_token(logits, targets, self.label_smoothing)
        with torch.no_grad():
            real = targets != IGNORED
            right = (logits.argmax(-1) == targets) & real
            accuracy = right.sum() / real.sum().clamp(min=1)
            whole = (right | ~real).all(dim=1).float().mean()
        return Losses(loss, {"accuracy": accuracy, "whole": whole})
