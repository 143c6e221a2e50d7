"""Classifier-free guidance: several prompts are read, and the tokens go where the first differs from the others.

Ho and Salimans, "Classifier-Free Diffusion Guidance", 2022; for text: Sanchez et al., "Stay on Topic", 2023; with a
third prompt: Gafni et al., "Make-A-Scene", 2022, Sec. 3.4.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rebus.core.capabilities import WritesText
from rebus.core.errors import UsageError
from rebus.core.outputs import Step


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """`batch` is the second prompt, of as many rows as the first or one for all. `scale` 1 leaves the first alone.

    `then`: a third prompt, and how far the second goes away from it. Logits are those of the last prompt, plus for
    each of the others its scale times the difference from the one after it.
    """

    scale: float
    batch: Mapping[str, Any]
    then: "Guidance | None" = None


class GuidedWriter:
    """A `WritesText` made of one network that reads several prompts, so that every strategy works with guidance.

    Prompts of tokens alone are rows of one batch, so that each token costs one step of the network, not one for each
    prompt; others are read one after another.
    """

    def __init__(self, network: WritesText, guidance: Guidance):
        self.network = network
        self.scales, self.others = list[float](), list[Mapping[str, Any]]()
        after: Guidance | None = guidance
        while after is not None:
            self.scales.append(after.scale)
            self.others.append(after.batch)
            after = after.then

    def start(self, *, room: int, **batch: Any) -> Step:
        prompts = [batch, *self.others]
        if all(prompt.keys() == {"tokens", "mask"} for prompt in prompts):
            rows = len(batch["tokens"])
            alike = [{name: _repeated(prompt[name], rows) for name in ("tokens", "mask")} for prompt in prompts]
            step = self.network.start(room=room, **{name: _stacked([one[name] for one in alike]) for name in alike[0]})
            return self._divided(step)
        steps = [self.network.start(room=room, **prompt) for prompt in prompts]
        return self._join([steps[0], *(_with_rows(step, len(steps[0].logits)) for step in steps[1:])])

    def step(self, token: Tensor, cache: Any) -> Step:
        if isinstance(cache, _Stacked):
            return self._divided(self.network.step(token.repeat(cache.prompts), cache.of))
        return self._join([self.network.step(token, one) for one in cache.each])

    def _divided(self, step: Step) -> Step:
        prompts = len(self.scales) + 1
        logits = self._guided(step.logits.chunk(prompts))
        return Step(logits, step.hidden.chunk(prompts)[0], _Stacked(step.cache, prompts, len(logits)))

    def _join(self, steps: Sequence[Step]) -> Step:
        return Step(
            self._guided([step.logits for step in steps]), steps[0].hidden, _Caches([step.cache for step in steps])
        )

    def _guided(self, logits: Sequence[Tensor]) -> Tensor:
        each = [one.float().log_softmax(dim=-1) for one in logits]
        mixed = each[-1]
        for scale, towards, away in zip(self.scales, each[:-1], each[1:], strict=True):
            mixed = mixed + scale * (towards - away)
        return mixed


class _Caches:
    """The cache of each prompt."""

    def __init__(self, each: Sequence[Any]):
        self.each = each

    def select(self, rows: Tensor) -> "_Caches":
        return _Caches([one.select(rows) for one in self.each])


class _Stacked:
    """The cache of all prompts: the rows of the first, then those of the second. `rows`: of one of them."""

    def __init__(self, of: Any, prompts: int, rows: int):
        self.of, self.prompts, self.rows = of, prompts, rows

    def select(self, rows: Tensor) -> "_Stacked":
        every = torch.cat([rows + prompt * self.rows for prompt in range(self.prompts)])
        return _Stacked(self.of.select(every), self.prompts, len(rows))


def _with_rows(step: Step, num_rows: int) -> Step:
    """The step of a prompt that was given once for all rows."""
    if len(step.logits) == num_rows:
        return step
    rows = _which(len(step.logits), num_rows).to(step.logits.device)
    return Step(step.logits[rows], step.hidden[rows], step.cache.select(rows))


def _repeated(tensor: Tensor, num_rows: int) -> Tensor:
    return tensor if len(tensor) == num_rows else tensor[_which(len(tensor), num_rows).to(tensor.device)]


def _which(given: int, num_rows: int) -> Tensor:
    if given != 1:
        raise UsageError(f"guidance expects a second prompt of {num_rows} rows or one; got {given}")
    return torch.zeros(num_rows, dtype=torch.int64)


def _stacked(parts: Sequence[Tensor]) -> Tensor:
    """One after another along the rows, zeros (and False) at the end of shorter ones."""
    width = max(part.shape[1] for part in parts)
    return torch.cat([torch.nn.functional.pad(part, (0, width - part.shape[1])) for part in parts])
