"""The input of a decoding strategy when it chooses a token, and its output."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from rebus.core.capabilities import WritesText
from rebus.core.outputs import Step
from rebus.generation.cuda_graph import GraphedStep
from rebus.generation.guidance import GuidedWriter
from rebus.generation.interrupted import InterruptedWriter


class DecodingState(NamedTuple):
    """Where the writing stands. Rows that ended may have left: `rows` says which prompts these are."""

    scores: Tensor  # (R, V) scores of the next token, forbidden ones at -inf
    step: Step  # what the network said; its cache has R rows
    rows: Tensor  # (R,) which prompt each row continues
    text: Tensor  # (R, t) the tokens written so far
    at: int  # t, the number of tokens written


class Strings(NamedTuple):
    """How tokens become text, and texts the tokens of the model that judges them
    (`rebus.core.capabilities.JudgesText`).
    """

    decode: Callable[[list[int]], str] | None = None
    read: Callable[[list[str]], dict[str, Tensor]] | None = None


class Choice(NamedTuple):
    """The chosen tokens (R,), and the network's next step where choosing already needed it."""

    token: Tensor
    ahead: Step | None = None


Choose = Callable[[DecodingState], Choice]


def keep_rows(step: Step, rows: Tensor) -> Step:
    """The step of the given rows only."""
    return Step(step.logits[rows], step.hidden[rows], step.cache.select(rows))


def has_fixed_rows(network: WritesText) -> bool:
    """Whether `step` is compiled: then another number of rows costs another compilation, and ended rows stay."""
    while isinstance(network, GuidedWriter | InterruptedWriter):
        network = network.network
    return isinstance(network.step, GraphedStep) or hasattr(network.step, "_torchdynamo_orig_callable")
