"""What the task methods take beside their inputs, for type checkers."""

from collections.abc import Sequence
from typing import Any, Literal, TypedDict

OnError = Literal["raise", "skip"]


class Batching(TypedDict, total=False):
    """How many items at a time, and whether a progress bar is shown."""

    batch_size: int | None
    progress: bool | None


class Decoding(Batching, total=False):
    """The decoding options of `rebus.generation`, which strategy takes which is said there."""

    max_new_tokens: int
    strategy: Literal["greedy", "sample", "beam", "contrastive"]
    temperature: float
    top_k: int | None
    top_p: float | None
    seed: int | Sequence[int] | None
    num_beams: int
    length_penalty: float
    early_stopping: bool | Literal["never"]
    both_ways: float
    no_repeat_ngram_size: int
    k: int
    alpha: float
    beta: float
    min_p: float
    stop: str | Sequence[str] | None
    max_sentences: int | None
    allowed: Any
    guidance: Any
    do_sample: bool


class Showing(Decoding, total=False):
    """And examples that are shown in the prompt: a list of them, or what `shots` makes of it."""

    examples: Any


class Classifying(Batching, total=False):
    """The same of labels; `orders`: over how many random orders of the examples scores are averaged."""

    examples: Any
    orders: int
