"""Dynamic batching: calls of a task that may share a batch, collected while the one before them is computed."""

import contextlib
import copy
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from rebus.codec.decode_image import open_image
from rebus.codec.regions import ImageRegions
from rebus.core.capabilities import WritesText
from rebus.core.errors import RebusError, UsageError
from rebus.core.strict_json import to_json
from rebus.generation.interrupted import InterruptedWriter
from rebus.serve.continuous import in_our_words
from rebus.serve.tickets import Ticket
from rebus.tasks.complete import many_documents
from rebus.tasks.inputs import many_images, many_texts

log = logging.getLogger("rebus")

# Of each task, what every call has its own of; calls that are equal in all else share a batch.
OWN: Mapping[str, tuple[str, ...]] = {
    "embed_images": ("images",),
    "embed_texts": ("texts",),
    "classify": ("images",),
    "match": ("images",),
    "logits": ("images",),
    "probabilities": ("images",),
    "caption": ("images", "prompt"),
    "ask": ("images", "questions"),
    "detect": ("images",),
    "segment": ("images", "phrases"),
    "read": ("images",),
    "complete": ("document",),
    "imagine": ("prompts",),
    "explain": ("images", "texts"),
}
ABILITY = {"logits": "match", "probabilities": "match"}  # what a model must be able to, where it has another name


@dataclass(kw_only=True)
class Job:
    """One call of a task. `own`: its image, text or document; `shared`: the other arguments by name."""

    ticket: Ticket
    task: str
    own: dict[str, Any]
    shared: dict[str, Any]
    streams: bool = False

    @property
    def nbytes(self) -> int:
        """Of its images."""
        return sum(3 * one.width * one.height for one in self.own.values() if isinstance(one, Image.Image))

    @property
    def key(self) -> str:
        """Equal for those that share a batch."""
        alone = id(self) if self.streams else 0
        return to_json([self.task, alone, sorted(self.own), self.shared], sort_keys=True, default=repr)


def job(ticket: Ticket, task: str, arguments: Mapping[str, Any], streams: bool) -> Job:
    """A call whose images are opened here, by who asks: a bad one fails before it is queued."""
    own = {name: arguments[name] for name in OWN[task] if arguments.get(name) is not None}
    shared = {name: value for name, value in arguments.items() if name not in OWN[task] and value is not None}
    for name in own:
        own[name] = _one(name, own[name])
    return Job(ticket=ticket, task=task, own=own, shared=shared, streams=streams)


def _one(name: str, value: Any) -> Any:
    """Checked to be a single item."""
    if name == "images":
        (image, *_), many = many_images(value)
        return _single(image if isinstance(image, ImageRegions) else open_image(image), name, many)
    if name == "document":
        (document, *_), many = many_documents(value)
        return _single(document, name, many)
    if not isinstance(value, str):
        (text, *_), many = many_texts(value, name)
        return _single(text, name, many)
    return value


def _single(value: Any, name: str, many: bool) -> Any:
    if many:
        raise UsageError(f"{name}: a request is of one; submit each of several, and they share a batch")
    return value


def run(model: Any, jobs: Sequence[Job], between: Callable[[], None]) -> None:
    """Compute the jobs, which share a batch. `between` is called between the steps of a decoding."""
    working = [one for one in jobs if not one.ticket.dead]
    for one in jobs:
        if one.ticket.dead:
            one.ticket.bury()
    if not working:
        return

    def tick() -> None:
        if all(one.ticket.dead for one in working):
            raise _NobodyWaits
        between()

    own = model
    if isinstance(model.network, WritesText) and working[0].task != "explain":  # which looks into the network itself
        own = copy.copy(model)
        own.network = InterruptedWriter(model.network, tick)
    try:
        if working[0].streams:
            _stream(own, working[0])
            return
        answers = _call(own, working)
    except _NobodyWaits:
        for one in working:
            one.ticket.bury()
    except Exception as error:
        if len(working) > 1:  # who is at fault fails alone
            for part in (working[: len(working) // 2], working[len(working) // 2 :]):
                run(model, part, between)
            return
        if not isinstance(error, RebusError | torch.OutOfMemoryError):
            log.exception("a request failed")
        working[0].ticket.fail(in_our_words(error))
    else:
        for one, answer in zip(working, answers, strict=True):
            one.ticket.finish(answer)


class _NobodyWaits(Exception):
    pass


def _call(model: Any, jobs: Sequence[Job]) -> list[Any]:
    method = getattr(model, jobs[0].task)
    if jobs[0].task == "explain":  # of one image at a time
        return [method(one.own["images"], one.own["texts"]) for one in jobs]
    lists = {name: [one.own[name] for one in jobs] for name in jobs[0].own}
    return list(method(**lists, **jobs[0].shared, progress=False))


def _stream(model: Any, one: Job) -> None:
    """Piece by piece, and alone."""
    pieces: Iterator[str] = model.stream(one.task, *one.own.values(), **one.shared)
    text = ""
    with contextlib.closing(pieces):  # type: ignore[type-var]
        for piece in pieces:
            one.ticket.piece(piece)
            text += piece
    one.ticket.finish(text)


def check_task(model: Any, task: str) -> None:
    """Raises `UnsupportedTask` where the model cannot do it, naming models that can."""
    if task not in OWN:
        raise UsageError(f"no task {task!r} to submit; there are: {', '.join(OWN)}")
    if task != "explain":  # no task of a card; who cannot says so when asked
        model._can(ABILITY.get(task, task))
