"""A writer of a few hundred weights: a recurrent net whose state is the cache. Padding leaves the state alone."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rebus.core.outputs import Predictions, Step

VOCAB, WIDTH, EOS, PAD = 13, 16, 1, 0


class State(NamedTuple):
    hidden: Tensor
    room: int

    def select(self, rows: Tensor) -> "State":
        return State(self.hidden[rows], self.room)


class TinyWriter(nn.Module):
    """Random, but the same for the same seed. Counts its forwards and the rows in them."""

    def __init__(self, seed: int = 0, sharp: float = 3.0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.embed = nn.Embedding(VOCAB, WIDTH)
            self.cell = nn.GRUCell(WIDTH, WIDTH)
            self.head = nn.Linear(WIDTH, VOCAB)
            nn.init.normal_(self.head.weight, std=sharp / WIDTH**0.5)
        self.starts, self.rows_stepped = 0, 0

    def start(self, *, room: int, tokens: Tensor, mask: Tensor | None = None, **_: Any) -> Step:
        self.starts += 1
        hidden = self.embed.weight.new_zeros(tokens.shape[0], WIDTH)
        mask = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        for at in range(tokens.shape[1]):
            hidden = torch.where(mask[:, at, None], self.cell(self.embed(tokens[:, at]), hidden), hidden)
        return Step(self.head(hidden), hidden, State(hidden, room))

    def step(self, token: Tensor, cache: State) -> Step:
        assert cache.room > 0, "more steps than room was asked for"
        self.rows_stepped += token.shape[0]
        hidden = self.cell(self.embed(token), cache.hidden)
        return Step(self.head(hidden), hidden, State(hidden, cache.room - 1))

    def forward(self, *, tokens: Tensor, targets: Tensor, mask: Tensor | None = None) -> Predictions:
        step = self.start(room=targets.shape[1], tokens=tokens, mask=mask)
        logits = [step.logits]
        for at in range(targets.shape[1] - 1):
            step = self.step(targets[:, at].clamp(min=0), step.cache)
            logits.append(step.logits)
        return Predictions(torch.stack(logits, dim=1))


PROMPTS = torch.tensor([[2, 5, 7], [9, 3, 4], [8, 8, 2], [6, 12, 11], [3, 10, 5], [7, 7, 7]])
