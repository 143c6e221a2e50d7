"""Contrastive search: a probable token whose state is unlike every state before it.

Su et al., "A Contrastive Framework for Neural Text Generation", 2022, eq. 5. `beta` weighs a third term, how well the
text goes with an image (Su et al., "Language Models Can See", 2022, eq. 4; `judged_text.py` here).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from rebus.core.capabilities import WritesText
from rebus.core.errors import UsageError
from rebus.core.outputs import Step
from rebus.generation.decoding_state import Choice, Choose, DecodingState, Strings, keep_rows
from rebus.generation.judged_text import JudgedText

Guide = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Contrastive:
    """Among the `k` most probable tokens, the best of (1 - alpha) · probability - alpha · likeness + beta · fit.

    Likeness is the largest cosine between the state after the candidate and those of the context. The context is what
    `start` shows of the prompt: its last state (B, D), or all of them if the network gives `hidden` (B, P, D).
    Fit is the share of the candidate in a softmax over how well the text with it goes with what the network was shown,
    of networks that say so (`JudgesText`); others refuse a `beta` above 0.
    `guide(rows (R,), text (R, t), candidates (R, k))` → (R, k) numbers to add.
    """

    k: int = 5
    alpha: float = 0.6
    beta: float = 0.0
    guide: Guide | None = None

    def __post_init__(self) -> None:
        if self.k < 1:
            raise UsageError(f"k must be at least 1; got {self.k}")
        if not 0 <= self.alpha <= 1:
            raise UsageError(f"alpha must be between 0 and 1; got {self.alpha}")
        if not 0 <= self.beta < torch.inf:
            raise UsageError(f"beta must be 0 or more; got {self.beta}")

    def begin(
        self, network: WritesText, step: Step, room: int, batch: Mapping[str, Any], strings: Strings
    ) -> Choose:
        judge = JudgedText(network, strings) if self.beta else None
        return _Search(self, network, step, room, batch.get("mask"), judge)


class _Search:
    """Remembers the directions of all states so far; the winner's look-ahead is the next step, so none is wasted."""

    def __init__(
        self,
        settings: Contrastive,
        network: WritesText,
        step: Step,
        room: int,
        mask: Tensor | None,
        judge: JudgedText | None,
    ):
        self.settings, self.network, self.judge = settings, network, judge
        prompt = step.hidden if step.hidden.dim() == 3 else step.hidden[:, None]
        num_rows, self.num_seen, width = prompt.shape
        self.seen = torch.zeros(num_rows, self.num_seen + room, width, device=prompt.device)
        self.seen[:, : self.num_seen] = F.normalize(prompt.float(), dim=-1)
        self.real = torch.ones(self.seen.shape[:2], dtype=torch.bool, device=prompt.device)
        if mask is not None and mask.shape == prompt.shape[:2]:
            self.real[:, : self.num_seen] = mask

    def __call__(self, place: DecodingState) -> Choice:
        alpha, guide = self.settings.alpha, self.settings.guide
        k = min(self.settings.k, place.scores.shape[-1])
        probability, candidate = place.scores.softmax(dim=-1, dtype=torch.float32).topk(k, dim=-1)  # R k
        score = (1 - alpha) * probability
        if guide is not None:
            score = score + guide(place.rows, place.text, candidate)
        if self.judge is not None:
            score = score + self.settings.beta * self.judge(place, candidate)
        if alpha == 0:
            return Choice(_pick(candidate, score.argmax(dim=-1)))

        num_rows = candidate.shape[0]
        row = torch.arange(num_rows, device=candidate.device)
        ahead = self.network.step(candidate.flatten(), place.step.cache.select(row.repeat_interleave(k)))
        state = F.normalize(ahead.hidden.float(), dim=-1).view(num_rows, k, -1)
        num_seen = self.num_seen + place.at
        likeness = state @ self.seen[place.rows, :num_seen].mT  # R k t
        likeness = likeness.masked_fill(~self.real[place.rows, None, :num_seen], -torch.inf)
        # A candidate that the constraints forbid has probability 0; it must not win by being unlike the rest.
        score = (score - alpha * likeness.amax(dim=-1)).masked_fill(probability == 0, -torch.inf)
        best = score.argmax(dim=-1)
        self.seen[place.rows, num_seen] = state[row, best]
        return Choice(_pick(candidate, best), keep_rows(ahead, row * k + best))


def _pick(candidate: Tensor, best: Tensor) -> Tensor:
    return candidate.gather(-1, best[:, None]).squeeze(-1)
