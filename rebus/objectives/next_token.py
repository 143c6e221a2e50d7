"""Predict the next token of the target text, given the image and the prompt.

Each example counts the same, however long its target: the mean over its own tokens first, then the mean over the batch
(PaliGemma; Beyer et al., "PaliGemma: A versatile 3B VLM for transfer", 2024, and its released code).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rebus.core.labels import IGNORED
from rebus.objectives.losses import Losses

_INPUTS = ("pixels", "image_mask", "regions", "region_mask", "tokens", "mask", "targets", "owners")


def next_token(
    logits: Tensor,
    targets: Tensor,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    text_share: float | None = None,
    text: Tensor | None = None,
) -> Tensor:
    """logits (B, S, V), targets (B, S) with -100 = ignored → scalar. Smoothing spreads over the whole vocabulary.

    `z_loss` · (ln Σ exp logits)² is added for each token, which keeps the logits from drifting (Chowdhery et al.,
    "PaLM", 2022, Sec. 5). Rows without any target count nothing. `text_share`: the weight of text in a row that has
    codes of images too, however few its tokens; `text` (B, S) says which targets are text.
    """
    scores = logits.flatten(0, 1).to(torch.promote_types(logits.dtype, torch.float32))
    each = F.cross_entropy(
        scores, targets.flatten(), ignore_index=IGNORED, label_smoothing=label_smoothing, reduction="none"
    ).view_as(targets)
    if z_loss:
        each = each + z_loss * scores.logsumexp(dim=-1).square().view_as(targets)
    real = targets != IGNORED
    rows = _mean(each, real)
    if text_share is not None and text is not None:
        words, codes = real & text, real & ~text
        shared = text_share * _mean(each, words) + (1 - text_share) * _mean(each, codes)
        rows = torch.where(words.any(dim=1) & codes.any(dim=1), shared, rows)
    return rows.sum() / real.any(dim=1).sum().clamp(min=1)


def _mean(each: Tensor, which: Tensor) -> Tensor:
    """Of each row, over some of its tokens; 0 where there are none."""
    return (each * which).sum(dim=1) / which.sum(dim=1).clamp(min=1)


@torch.no_grad()
def hits(logits: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """`accuracy`: the share of tokens that are the likeliest; `whole`: of rows with a target, those that are right
    throughout."""
    real = targets != IGNORED
    right = (logits.argmax(-1) == targets) & real
    rows = real.any(dim=1)
    whole = ((right | ~real).all(dim=1) & rows).sum() / rows.sum().clamp(min=1)
    return {"accuracy": right.sum() / real.sum().clamp(min=1), "whole": whole}


def waves(number: int, width: int) -> Tensor:
    """(number, width): row i is sines and cosines of i, from a quarter wave over all rows to 64 waves; unit length."""
    at = torch.linspace(0, 1, number)[:, None]
    angles = 2 * math.pi * at * 0.25 * 256 ** torch.linspace(0, 1, width // 2)
    return torch.cat([angles.sin(), angles.cos()], dim=1) * (2 / width) ** 0.5


def place_waves(network: nn.Module, places: tuple[int, int] | None) -> None:
    """Set the embeddings of location tokens, (first id, number), to `waves`."""
    if places is not None:
        first, number = places
        table = network.get_parameter("text.tokens.weight")
        with torch.no_grad():
            table[first : first + number] = waves(number, table.shape[1])


@dataclass(frozen=True)
class NextTokenLoss:
    """`next_token` of the network's predictions for `batch["targets"]`.

    A batch may hold several prompts for each row of images, which `owners` (T,) then gives; images are encoded once.
    Of a network that writes images, its targets hold their codes; `text_share`: the weight of all text together in a
    row that has both, by default by number, where a few words are lost among hundreds of codes.
    `places`: (first id, number) of the location tokens of a network that starts untrained. Their embeddings start as
    waves over the coordinate, so that what is learned of one place holds for its neighbours.
    """

    kind: Literal["next token"] = "next token"
    label_smoothing: float = 0.0
    z_loss: float = 0.0
    places: tuple[int, int] | None = None
    text_share: float | None = None

    def begin(self, network: nn.Module, batch: Mapping[str, Tensor]) -> None:
        """Set the embeddings of the location tokens before the first step."""
        place_waves(network, self.places)

    def examples(self, batch: Mapping[str, Tensor]) -> int:
        """Rows that the loss is the mean of: those with a target."""
        return int((batch["targets"] != IGNORED).any(dim=1).sum())

    def __call__(self, network: Callable[..., Any], batch: Mapping[str, Tensor]) -> Losses:
        marked = batch["targets"]
        made = network(**{name: batch[name] for name in _INPUTS if name in batch})
        targets = marked if made.targets is None else made.targets
        text = None if self.text_share is None else targets == marked
        loss = next_token(made.logits, targets, self.label_smoothing, self.z_loss, self.text_share, text)
        return Losses(loss, hits(made.logits, targets))
