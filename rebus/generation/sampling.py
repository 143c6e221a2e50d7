"""Sampling: draw the next token from the model's distribution, its unlikely tail cut off.

top_p is nucleus sampling: Holtzman et al., "The Curious Case of Neural Text Degeneration", 2020.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rebus.core.capabilities import WritesText
from rebus.core.errors import UsageError
from rebus.core.outputs import Step
from rebus.generation.decoding_state import Choice, Choose, DecodingState, Strings


@dataclass(frozen=True, kw_only=True)
class Sample:
    """`temperature` divides the scores, then the `top_k` best stay, then the smallest set of probability `top_p`.

    `seed`: a whole number starts the same random stream for every row, so that a row draws what it would draw alone,
    and equal prompts get equal texts; a list gives each row its own seed (several samples of one prompt); None draws
    from PyTorch's global generator.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int | Sequence[int] | None = None

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise UsageError(
                f'temperature must be above 0; got {self.temperature}. For deterministic decoding: "greedy"'
            )
        if self.top_k is not None and self.top_k < 1:
            raise UsageError(f"top_k must be at least 1; got {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UsageError(f"top_p must be above 0 and at most 1; got {self.top_p}")

    def begin(self, network: WritesText, step: Step, room: int, batch: Mapping[str, Any], strings: Strings) -> Choose:
        device = step.logits.device
        uniform = self.draw(step.logits.shape[0], room)
        uniform = uniform if device.type == "mps" else uniform.to(device)  # which has no float64

        def choose(place: DecodingState) -> Choice:
            scores = shape(place.scores, temperature=self.temperature, top_k=self.top_k, top_p=self.top_p)
            return Choice(invert(scores, uniform[place.rows.to(uniform.device), place.at]))

        return choose

    def draw(self, num_rows: int, room: int) -> Tensor:
        """(rows, room) uniform numbers, all drawn on the CPU at once: equal on every device, and no wait per token."""
        if self.seed is None:
            return torch.rand(num_rows, room, dtype=torch.float64)
        if isinstance(self.seed, int):
            return _stream(self.seed, room).expand(num_rows, room)
        if len(self.seed) != num_rows:
            raise UsageError(f"seed expects one number, or one for each of the {num_rows} rows; got {len(self.seed)}")
        return torch.stack([_stream(seed, room) for seed in self.seed])


def _stream(seed: int, room: int) -> Tensor:
    return torch.rand(room, dtype=torch.float64, generator=torch.Generator().manual_seed(int(seed)))


def shape(scores: Tensor, *, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None) -> Tensor:
    """Scores (R, V) with the temperature applied and everything outside top_k and top_p at -inf, float32."""
    scores = scores.float() / temperature
    if top_k is not None:
        worst = scores.topk(min(top_k, scores.shape[-1]), dim=-1).values[..., -1:]
        scores = scores.masked_fill(scores < worst, -torch.inf)
    if top_p is not None and top_p < 1:
        ordered, index = scores.sort(dim=-1)
        tail = ordered.softmax(dim=-1).cumsum(dim=-1) <= 1 - top_p  # least probable first: the part to do without
        tail[..., -1] = False
        scores = scores.masked_fill(tail.scatter(-1, index, tail), -torch.inf)
    return scores


def invert(scores: Tensor, uniform: Tensor) -> Tensor:
    """The tokens (R,) at which the cumulative probability passes `uniform` (R,), float64 numbers in [0, 1)."""
    cumulative = scores.to(uniform.device).softmax(dim=-1, dtype=torch.float64).cumsum(dim=-1)
    # Where the cumulative sum stays equal, a token has no probability: `right` steps over those.
    token = torch.searchsorted(cumulative, uniform[:, None] * cumulative[:, -1:], right=True).squeeze(-1)
    return token.to(scores.device)
