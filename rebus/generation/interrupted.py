"""A network that lets others work between its steps."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from rebus.core.capabilities import WritesText
from rebus.core.outputs import Step


class InterruptedWriter:
    """`network`, which calls `between` before each step of any decoding; what that raises ends the decoding."""

    def __init__(self, network: WritesText, between: Callable[[], None]):
        self.network, self.between = network, between

    def start(self, *, room: int, **batch: Any) -> Step:
        return self.network.start(room=room, **batch)

    def step(self, token: Tensor, cache: Any) -> Step:
        self.between()
        return self.network.step(token, cache)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.network, name)
