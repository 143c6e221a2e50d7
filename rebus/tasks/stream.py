"""Streaming of captions, answers and completions."""

import contextlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from rebus.codec.text import Prompt
from rebus.core.errors import UsageError, unknown
from rebus.generation import stream as stream_tokens
from rebus.generation.familiar import in_our_names
from rebus.generation.stopping import stop_strings
from rebus.tasks.ask import question_pairs
from rebus.tasks.complete import document_pair
from rebus.tasks.image_generation import text_alone
from rebus.tasks.inputs import in_pairs
from rebus.tasks.task_model import TaskModel, decoding_for, prompt_for
from rebus.tasks.text_generation import Pair, clean, inputs


def stream(model: TaskModel, task: str, *args: Any, **options: Any) -> Iterator[str]:
    """The pieces of `caption(image, prompt)`, `ask(image, question)` or `complete(document)`: joined, that text.

    For one image or document; text alone, also where the system could write images. A system that decodes by beam
    search streams greedily. Arguments are checked at once; closing the iterator stops the model.
    """
    pair, given = pair_of(model, task, *args, **options)
    decoding = streamed_decoding(model, task, given)
    tokens = stream_tokens(model.network, inputs(model, [pair]), **model.endings(), **decoding)
    return _pieces(TextSoFar(model, decoding), tokens)


def pair_of(model: TaskModel, task: str, *args: Any, **options: Any) -> tuple[Pair, dict[str, Any]]:
    """The image and the prompt of one call of a task, and the decoding options that it was given."""
    if task not in _TASKS:
        raise unknown("task to stream", task, _TASKS, f"There are: {', '.join(_TASKS)}.")
    return _TASKS[task](model, *args, **options)


def streamed_decoding(model: TaskModel, task: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The decoding options of an answer that comes piece by piece."""
    decoding = decoding_for(model, task, given)
    if decoding["strategy"] == "beam" and "strategy" not in in_our_names(
        given
    ):  # the system's own, which has nothing to show early
        decoding = decoding_for(model, task, {"strategy": "greedy", **given})
    return text_alone(model, decoding)


class TextSoFar:
    """Incremental detokenization: the pieces of `add` and `rest`, concatenated, are what `text` gives at the end."""

    def __init__(self, model: TaskModel, decoding: Mapping[str, Any]):
        self.model, self.decoding = model, decoding
        self.stops = stop_strings(decoding.get("stop"))
        self.ids: list[int] = []
        self.told = ""

    def add(self, token: int) -> str:
        """The text that is certain with one token more, after all that was yielded before."""
        self.ids.append(token)
        text = self.text()
        return self._more(text[: len(text) - _unsure(text, self.stops)].rstrip())

    def rest(self) -> str:
        """The remaining text after the last token."""
        return self._more(self.text())

    def text(self) -> str:
        """The whole text."""
        return clean(self.model.processor.decode([self.ids])[0], self.decoding)

    def _more(self, text: str) -> str:
        if not text.startswith(self.told):
            return ""
        piece, self.told = text[len(self.told) :], text
        return piece


def _caption(
    model: TaskModel, images: Any, prompt: Prompt | None = None, **decoding: Any
) -> tuple[Pair, dict[str, Any]]:
    pairs, many = in_pairs(images, prompt_for(model, "caption") if prompt is None else prompt, "prompts")
    return _single(pairs, many), decoding


def _ask(
    model: TaskModel, images: Any, questions: str, prompt: str | None = None, **decoding: Any
) -> tuple[Pair, dict[str, Any]]:
    pairs, many = question_pairs(model, images, questions, prompt)
    return _single(pairs, many), decoding


def _complete(model: TaskModel, document: Any, **decoding: Any) -> tuple[Pair, dict[str, Any]]:
    return document_pair(model, document), decoding


_TASKS: dict[str, Callable[..., tuple[Pair, dict[str, Any]]]] = {
    "caption": _caption,
    "ask": _ask,
    "complete": _complete,
}


def _single(pairs: Sequence[Pair], many: bool) -> Pair:
    if many:
        raise UsageError("a stream is of one image and one text; got a list")
    return pairs[0]


def _pieces(text: TextSoFar, tokens: Iterator[Tensor]) -> Generator[str]:
    with contextlib.closing(tokens):  # type: ignore[type-var]
        for token in tokens:
            if piece := text.add(int(token[0])):
                yield piece
    if piece := text.rest():
        yield piece


def _unsure(text: str, stops: tuple[str, ...]) -> int:
    """How many characters at the end may yet change: half a character, or the beginning of a stop string."""
    half = len(text) - len(text.rstrip("\ufffd"))
    begun = (n for stop in stops for n in range(1, len(stop)) if text.endswith(stop[:n]))
    return max(half, max(begun, default=0))
