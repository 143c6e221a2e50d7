"""Classifier-free guidance: two prompts are read, and the words go where the first differs from the second.

Ho and Salimans, "Classifier-Free Diffusion Guidance", 2022; for text: Sanchez et al., "Stay on Topic", 2023.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rebus.core.capabilities import WritesText
from rebus.core.errors import UsageError
from rebus.core.outputs import Step


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """`batch` is the second prompt, of as many rows as the first or one for all. `scale` 1 leaves the first alone."""

    scale: float
    batch: Mapping[str, Any]


class GuidedWriter:
    """A `WritesText` made of one network that reads two prompts, so that every strategy works with guidance."""

    def __init__(self, network: WritesText, guidance: Guidance):
        self.network, self.guidance = network, guidance

    def start(self, *, room: int, **batch: Any) -> Step:
        first = self.network.start(room=room, **batch)
        second = self.network.start(room=room, **self.guidance.batch)
        num_rows, num_second = first.logits.shape[0], second.logits.shape[0]
        if num_second not in (1, num_rows):
            raise UsageError(f"guidance wants a second prompt of {num_rows} rows or one; got {num_second}")
        if num_second != num_rows:
            rows = torch.zeros(num_rows, dtype=torch.int64, device=second.logits.device)
            second = Step(second.logits[rows], second.hidden[rows], second.cache.select(rows))
        return self._join(first, second)

    def step(self, token: Tensor, cache: Any) -> Step:
        return self._join(self.network.step(token, cache.first), self.network.step(token, cache.second))

    def _join(self, first: Step, second: Step) -> Step:
        towards = first.logits.float().log_softmax(dim=-1)
        away = second.logits.float().log_softmax(dim=-1)
        return Step(away + self.guidance.scale * (towards - away), first.hidden, _Caches(first.cache, second.cache))


class _Caches:
    def __init__(self, first: Any, second: Any):
        self.first, self.second = first, second

    def select(self, rows: Tensor) -> "_Caches":
        return _Caches(self.first.select(rows), self.second.select(rows))
