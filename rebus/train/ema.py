"""A running average of the weights, which is often better than the last ones. Polyak & Juditsky 1992.

average ← decay · average + (1 − decay) · weights, after each step, with min(decay, (1 + n) / (10 + n)) at step n
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """The averages of a network's trained parameters, in float32, beside the network."""

    def __init__(self, network: nn.Module, decay: float):
        self.decay, self.steps = decay, 0
        self.parameters = {n: p for n, p in network.named_parameters() if p.requires_grad}
        self.values: dict[str, Tensor] = {n: p.detach().float().clone() for n, p in self.parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights as they are now; the first steps count more, since the start is no good guess."""
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        for name, parameter in self.parameters.items():
            self.values[name].lerp_(parameter.float(), 1 - decay)

    @torch.no_grad()
    def exchange(self) -> None:
        """The averages into the network, its weights here; and back."""
        for name, parameter in self.parameters.items():
            weights = parameter.detach().float().clone()
            parameter.copy_(self.values[name])
            self.values[name] = weights


@contextmanager
def averaged(average: Average | None) -> Iterator[None]:
    """Inside, the network has the averaged weights, if there are any."""
    if average is None:
        yield
        return
    average.exchange()
    try:
        yield
    finally:
        average.exchange()
