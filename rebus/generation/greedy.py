"""Greedy search: always the most probable token."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rebus.core.capabilities import WritesText
from rebus.core.outputs import Step
from rebus.generation.decoding_state import Choice, Choose, DecodingState, Strings


@dataclass(frozen=True, kw_only=True)
class Greedy:
    """No settings: the answer is a function of the prompt."""

    def begin(self, network: WritesText, step: Step, room: int, batch: Mapping[str, Any], strings: Strings) -> Choose:
        return _most_probable


def _most_probable(place: DecodingState) -> Choice:
    return Choice(place.scores.argmax(dim=-1))
