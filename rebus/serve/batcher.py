"""Many requests to one model at once, each as if it were alone.

Answers of generative models are generated together, and requests join and leave between steps
(`rebus.serve.continuous`). All other work is done in batches of what has come meanwhile (`rebus.serve.jobs`): encoders,
detection, search by beams. One thread computes; submitters decode images and tokenise in their own threads.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import torch

from rebus.core.capabilities import PicksAnswers, WritesText
from rebus.core.errors import RebusError, UsageError
from rebus.core.limits import limit
from rebus.generation import Sample
from rebus.generation.constraints import Constraints, Forced, prompt_text
from rebus.generation.stopping import Stops
from rebus.serve.continuous import Observe, Request, Rows, in_our_words
from rebus.serve.feature_cache import FeatureCache
from rebus.serve.jobs import Job, check_task, job, run
from rebus.serve.tickets import QueueFull, Ticket
from rebus.tasks.image_generation import text_alone, writes_images
from rebus.tasks.stream import TextSoFar, pair_of, streamed_decoding
from rebus.tasks.task_model import decoding_for, on_device

log = logging.getLogger("rebus")
_CONTINUOUS = ("caption", "ask", "complete")  # of models that generate their answers
_TOGETHER = frozenset({"strategy", "max_new_tokens", "stop", "max_sentences", "allowed", "no_repeat_ngram_size"})
_SAMPLING = frozenset({"temperature", "top_k", "top_p", "seed"})


class Batcher:
    """`submit(task, …)` takes one item as `model.<task>(…)` does, and gives a `Ticket` at once.

    `max_batch`: rows computed together. `max_queue`: requests that may wait; one more raises `QueueFull`, as do images
    beyond MAX_IMAGE_MEMORY. `timeout`: seconds that an answer may take. `cache_bytes`: of image features that are kept.
    `observe(stage, seconds)` is called with "prepare", "queue", "encode", "first_token", "per_token" and "step".

    The model is used by the batcher alone until `close`, or the end of a `with` block.
    """

    def __init__(
        self,
        model: Any,
        *,
        max_batch: int = 32,
        max_queue: int = 256,
        timeout: float | None = None,
        cache_bytes: int = 256_000_000,
        observe: Observe = lambda stage, seconds: None,
    ):
        if max_batch < 1 or max_queue < 1:
            raise UsageError(f"max_batch and max_queue are at least 1; got {max_batch} and {max_queue}")
        self.model, self.max_batch, self.max_queue, self.timeout = model, max_batch, max_queue, timeout
        self.observe = observe
        self.features = FeatureCache(cache_bytes)
        self.features.wrap(model.network)
        self._rows = Rows(model.network, place=lambda batch: on_device(model, batch), most=max_batch)
        self._prompts: deque[Request] = deque()
        self._jobs: deque[Job] = deque()
        self._wake = threading.Condition()
        self._closed = False
        self._pace = 0.1  # seconds from one answer to the next, as it was lately
        self._last = time.monotonic()
        self._thread = threading.Thread(target=self._work, name="rebus batcher", daemon=True)
        self._thread.start()

    def __enter__(self) -> "Batcher":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def submit(self, task: str, *args: Any, stream: bool = False, **options: Any) -> Ticket:
        """One item of a task: `submit("caption", image)`, `submit("classify", image, labels=["dog", "cat"])`.

        Texts of generative models come piece by piece with `stream`. Raises what the task would for its arguments
        (`BadImage`, `UsageError`, …), and `QueueFull`. What goes wrong later is raised by the ticket.
        """
        check_task(self.model, task)
        self._check_open()
        ticket = Ticket(self.timeout)
        begun = time.monotonic()
        generates = task in _CONTINUOUS and isinstance(self.model.network, WritesText)
        generates = generates and not (task == "ask" and isinstance(self.model.network, PicksAnswers))
        request: Request | Job | None = None
        if generates:
            request = self._request(ticket, task, args, options, stream)
        if request is None:
            request = job(ticket, task, _named(task, args, options), stream and generates)
        self.observe("prepare", time.monotonic() - begun)
        with self._wake:
            self._check_open()
            held = sum(one.nbytes for one in self._waiting())
            full = held and held + request.nbytes > limit("MAX_IMAGE_MEMORY")
            if full or self.waiting >= self.max_queue:
                raise QueueFull(self.waiting, max(1, round(self._pace * self.waiting)))
            (self._prompts if isinstance(request, Request) else self._jobs).append(request)  # type: ignore[arg-type]
            self._wake.notify()
        return ticket

    @property
    def waiting(self) -> int:
        """Requests that have not begun."""
        return len(self._prompts) + len(self._jobs)

    @property
    def running(self) -> int:
        """Rows that are generated now."""
        return len(self._rows.live)

    def close(self) -> None:
        """Stop computing; what is not answered fails. The model is as it was."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()
        self.features.unwrap()

    def _check_open(self) -> None:
        if self._closed:
            raise UsageError("this batcher is closed")

    def _request(
        self, ticket: Ticket, task: str, args: tuple[Any, ...], options: dict[str, Any], stream: bool
    ) -> Request | None:
        """None for what does not decode row by row: beams, contrastive search, examples, images among the text."""
        if "examples" in options or options.get("on_error", "raise") != "raise":
            return None
        model = self.model
        if task == "complete" and writes_images(model) and not stream:
            return None
        pair, given = pair_of(model, task, *args, **options)
        decoding = streamed_decoding(model, task, given) if stream else decoding_for(model, task, given)
        decoding = text_alone(model, decoding)
        strategy = decoding["strategy"]
        taken = _TOGETHER | _SAMPLING if strategy == "sample" else _TOGETHER
        if strategy not in ("greedy", "sample") or any(
            decoding[name] is not None and name not in taken for name in decoding
        ):
            return None
        image, prompt = pair
        batch = model.processor(images=None if image == [] else [image], texts=[prompt])
        ticket.usage.prompt_tokens = int(batch["mask"].sum())
        ends = model.endings()
        room = decoding["max_new_tokens"]
        if isinstance(room, bool) or not isinstance(room, int) or room < 1:
            raise UsageError(f"max_new_tokens must be at least 1; got {room}")
        room = min(room, model.processor.text.spec.context)  # a cache is as large as an answer may be long
        stops = Stops(ends["eos_id"], decoding.get("stop"), ends["decode"], decoding.get("max_sentences"))
        settings = {name: decoding[name] for name in _SAMPLING if decoding.get(name) is not None}
        sample = Sample(**settings) if strategy == "sample" else None
        return Request(
            ticket=ticket,
            batch=batch,
            room=room,
            stops=stops,
            text=TextSoFar(model, decoding),
            streams=stream,
            constraints=self._constraints(decoding, batch, room, ends),
            sample=sample,
            uniform=None if sample is None else sample.draw(1, room)[0],
        )

    def _constraints(
        self, decoding: dict[str, Any], batch: dict[str, torch.Tensor], room: int, ends: dict[str, Any]
    ) -> Constraints | None:
        forced = Forced(room, ends.get("first_id"), ends.get("last_id"))
        ngram = decoding.get("no_repeat_ngram_size") or 0
        if decoding.get("allowed") is None and not ngram and forced.first is None and forced.last is None:
            return None
        context = prompt_text(self.model.network, on_device(self.model, batch)) if ngram else None
        return Constraints(decoding.get("allowed"), ngram, context, forced, ends["decode"])

    def _work(self) -> None:
        while True:
            with self._wake:
                while not (self._closed or self._prompts or self._jobs or self._rows.rows):
                    self._wake.wait()
                    self._last = time.monotonic()  # a time without requests says nothing of the pace
                if self._closed:
                    break
            self._turn()
            if self._jobs:
                self._begin(jobs := self._next_jobs())
                with self.features.set_aside() if jobs[0].task == "explain" else nullcontext():
                    run(self.model, jobs, self._between)
                self._count(len(jobs))
        closed = RebusError("the server is shutting down")
        self._rows.end(closed)
        for waiting in self._waiting():
            waiting.ticket.fail(closed)

    def _waiting(self) -> Iterator[Request | Job]:
        yield from self._prompts
        yield from self._jobs

    def _between(self) -> None:
        """While a job decodes, the rows go on too."""
        if self._closed:
            raise RebusError("the server is shutting down")
        if self._prompts or self._rows.rows:
            self._turn()

    def _turn(self) -> None:
        """Let those in that wait, and take a step."""
        with self._wake:
            self._bury()
            number = self._rows.admits(self._prompts)
            joining = [self._prompts.popleft() for _ in range(number)]
        before = self.running + number
        try:
            if joining:
                self._begin(joining)
                self._rows.join(joining, self.observe)
            self._rows.advance(self.observe)
        except Exception as error:
            log.exception("a step of all rows failed")
            self._rows.end(in_our_words(error))
        self._count(before - self.running)

    def _bury(self) -> None:
        """Requests that nobody waits for need not wait either."""
        for queue in (self._prompts, self._jobs):
            for dead in [one for one in queue if one.ticket.dead]:
                queue.remove(dead)  # type: ignore[arg-type]
                dead.ticket.bury()

    def _next_jobs(self) -> list[Job]:
        """The first that waits, and those that may share its batch."""
        with self._wake:
            key = self._jobs[0].key
            found = [one for one in self._jobs if one.key == key][: self.max_batch]
            for one in found:
                self._jobs.remove(one)
        return found

    def _begin(self, requests: "list[Request] | list[Job]") -> None:
        now = time.monotonic()
        for one in requests:
            self.observe("queue", now - one.ticket.submitted)

    def _count(self, answered: int) -> None:
        now = time.monotonic()
        for _ in range(answered):
            self._pace += 0.05 * ((now - self._last) / answered - self._pace)
        if answered:
            self._last = now


_POSITIONS = {  # of the arguments that a task takes by position
    "caption": ("images", "prompt"),
    "ask": ("images", "questions", "prompt"),
    "complete": ("document",),
    "classify": ("images", "labels", "templates", "multi"),
    "detect": ("images", "labels", "templates"),
    "segment": ("images", "phrases"),
    "match": ("images", "texts"),
    "logits": ("images", "texts"),
    "probabilities": ("images", "texts"),
    "read": ("images",),
    "embed_images": ("images",),
    "embed_texts": ("texts",),
    "imagine": ("prompts",),
    "explain": ("images", "texts"),
}


def _named(task: str, args: tuple[Any, ...], options: dict[str, Any]) -> dict[str, Any]:
    """The arguments by name."""
    names = _POSITIONS[task]
    if len(args) > len(names):
        raise UsageError(f"{task} takes {', '.join(names)}; got {len(args)} values")
    return {**dict(zip(names, args, strict=False)), **options}
