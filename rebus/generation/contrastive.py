"""Contrastive search: a probable token whose state is unlike every state before it.

Su et al., "A Contrastive Framework for Neural Text Generation", 2022, eq. 5. `beta` weighs a third term, how well the
text goes with an image (Su et al., "Language Models Can See", 2022, eq. 4; `judged_text.py` here).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from rebus.core.capabilities import WritesText
from rebus.core.errors import UsageError
from rebus.core.outputs import Step
from rebus.generation.decoding_state import Choice, Choose, DecodingState, Strings, has_fixed_rows, keep_rows
from rebus.generation.judged_text import JudgedText

_ROUNDING = 1e-4  # of cosines and sums


@dataclass(frozen=True, kw_only=True)
class Contrastive:
    """Among the `k` most probable tokens, the best of (1 - alpha) · probability - alpha · similarity + beta · fit.

    Similarity is the largest cosine between the state after the candidate and those of the context. The context is what
    `start` shows of the prompt: its last state (B, D), or all of them if the network gives `hidden` (B, P, D).
    Fit is the share of the candidate in a softmax over how well the text with it goes with what the network was shown,
    of networks that say so (`JudgesText`); others refuse a `beta` above 0. Candidates less probable than `min_p` times
    the most probable are left out (Li et al., "Contrastive Decoding", 2023, eq. 3).
    """

    k: int = 5
    alpha: float = 0.6
    beta: float = 0.0
    min_p: float = 0.0

    def __post_init__(self) -> None:
        if self.k < 1:
            raise UsageError(f"k must be at least 1; got {self.k}")
        if not 0 <= self.alpha <= 1:
            raise UsageError(f"alpha must be between 0 and 1; got {self.alpha}")
        if not 0 <= self.beta < torch.inf:
            raise UsageError(f"beta must be 0 or more; got {self.beta}")
        if not 0 <= self.min_p <= 1:
            raise UsageError(f"min_p must be between 0 and 1; got {self.min_p}")

    def begin(self, network: WritesText, step: Step, room: int, batch: Mapping[str, Any], strings: Strings) -> Choose:
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
        alpha = self.settings.alpha
        k = min(self.settings.k, place.scores.shape[-1])
        probability, candidate = place.scores.softmax(dim=-1, dtype=torch.float32).topk(k, dim=-1)  # R k
        # A candidate that the constraints forbid has probability 0; it must not win by being unlike the rest.
        possible = (probability > 0) & (probability >= self.settings.min_p * probability[:, :1])
        score = (1 - alpha) * probability
        if self.judge is not None:
            score = score + self.settings.beta * self.judge(place, candidate, possible)
        score = score.masked_fill(~possible, -torch.inf)
        if alpha == 0:
            return Choice(_pick(candidate, score.argmax(dim=-1)))
        row, which = self._hopeful(score).nonzero(as_tuple=True)  # C candidates, row by row
        ahead = self.network.step(candidate[row, which], place.step.cache.select(row))
        state = F.normalize(ahead.hidden.float(), dim=-1)
        prompt, num_seen = place.rows[row], self.num_seen + place.at
        likeness = (self.seen[prompt, :num_seen] @ state[:, :, None]).squeeze(-1)  # C t
        likeness = likeness.masked_fill(~self.real[prompt, :num_seen], -torch.inf).amax(dim=-1)
        final = torch.full_like(score, -torch.inf)
        final[row, which] = score[row, which] - alpha * likeness
        best = final.argmax(dim=-1)
        won = (which == best[row]).nonzero().squeeze(-1)
        self.seen[place.rows, num_seen] = state[won]
        return Choice(_pick(candidate, best), keep_rows(ahead, won))

    def _hopeful(self, score: Tensor) -> Tensor:
        """(R, k): who may win yet. A cosine moves a score by alpha at most, so that who is further behind than twice
        that need not be looked at. Where steps are compiled for a number of rows, all are."""
        if has_fixed_rows(self.network):
            return torch.ones_like(score, dtype=torch.bool)
        behind = score < score.amax(dim=-1, keepdim=True) - 2 * self.settings.alpha - _ROUNDING
        return ~behind  # what is not a number stays, to be refused


def _pick(candidate: Tensor, best: Tensor) -> Tensor:
    return candidate.gather(-1, best[:, None]).squeeze(-1)
