"""The options of the task methods, for type checkers, and how they are separated."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict

if TYPE_CHECKING:
    from rebus.tasks.batching import BatchOptions

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


class Drawing(Decoding, total=False):
    """And of how many images of a prompt the best is returned."""

    best_of: int


class Classifying(Batching, total=False):
    """The same of labels; `orders`: over how many random orders of the examples scores are averaged."""

    examples: Any
    orders: int


def divided(options: Any, on_error: OnError) -> "tuple[BatchOptions, dict[str, Any]]":
    """What a caller says of batches, and what of decoding."""
    from rebus.tasks.batching import BatchOptions

    given: dict[str, Any] = dict(options)
    size, bar = given.pop("batch_size", None), given.pop("progress", None)
    return BatchOptions(batch_size=size, progress=bar, on_error=on_error), given
