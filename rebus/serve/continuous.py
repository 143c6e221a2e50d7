"""Continuous batching: answers that are generated together, each of which began when there was a place for it.

Yu et al., "Orca: A Distributed Serving System for Transformer-Based Generative Models", 2022: after every step answers
that have ended leave, and prompts that wait come in. All rows write at a common slot of a static cache
(`rebus.nn.cache.Cache.put`), so that the network's own `start` and `step` are all that is needed.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from rebus.core.capabilities import WritesText
from rebus.core.errors import NotFinite, RebusError
from rebus.generation import Sample
from rebus.generation.constraints import Constraints
from rebus.generation.decoding_state import has_fixed_rows
from rebus.generation.sampling import invert, shape
from rebus.generation.stopping import Stops
from rebus.serve.tickets import OutOfMemory, Ticket
from rebus.tasks.stream import TextSoFar

log = logging.getLogger("rebus")
Observe = Callable[[str, float], None]
_WASTE = 4  # times as many slots as are used, at most


@dataclass(kw_only=True)
class Request:
    """A prompt as the network takes it, a batch of one row on the CPU, and how its answer is chosen and ended."""

    ticket: Ticket
    batch: dict[str, Tensor]
    room: int  # new tokens at most
    stops: Stops
    text: TextSoFar
    streams: bool
    constraints: Constraints | None = None
    sample: Sample | None = None  # None: greedy
    uniform: Tensor | None = None  # (room,) random numbers of `sample`
    first_token: float = field(default=0.0, init=False)  # the moment

    @property
    def nbytes(self) -> int:
        """Of its pixels and tokens."""
        return sum(tensor.nbytes for tensor in self.batch.values())

    @property
    def left(self) -> int:
        return self.room - len(self.text.ids)

    @property
    def slots(self) -> int:
        """Of a cache: its prompt's, and those of the longest answer."""
        return self.batch["tokens"].shape[1] + self.room

    def take(self, token: int) -> bool:
        """Write one token more; whether the answer has ended with it."""
        usage, text = self.ticket.usage, self.text
        if not self.streams:
            text.ids.append(token)
        elif piece := text.add(token):
            self.ticket.piece(piece)
        usage.completion_tokens = len(text.ids)
        ended = self.stops.ends(text.ids)
        if not ended and self.left > 0:
            return False
        usage.finish = "stop" if ended else "length"
        if self.streams and (piece := text.rest()):
            self.ticket.piece(piece)
        self.ticket.finish(text.text())
        return True


class Rows:
    """The rows that are generated together. `advance` is one step of all of them."""

    def __init__(self, network: Any, *, place: Callable[[Mapping[str, Tensor]], dict[str, Tensor]], most: int):
        self.network, self.place, self.most = network, place, most
        # Where steps are compiled for a number of rows, it stays.
        self.fixed = isinstance(network, WritesText) and has_fixed_rows(network)
        self.rows: list[Request | None] = []
        self.cache: Any = None
        self.logits: Tensor | None = None

    @property
    def live(self) -> list[int]:
        return [place for place, row in enumerate(self.rows) if row is not None]

    def admits(self, waiting: Sequence[Request]) -> int:
        """How many of the first that wait may come in now. All rows have as many slots as the longest, so that one with
        a far longer prompt waits until few are left, or its neighbours would slow down as if they were as long."""
        slots = [row.slots for row in self.rows if row is not None]
        for number, one in enumerate(waiting):
            slots.append(one.slots)
            if len(slots) > self.most or len(slots) * max(slots) > _WASTE * sum(slots):
                return number
        return len(waiting)

    @torch.inference_mode()
    def join(self, requests: Sequence[Request], observe: Observe) -> None:
        """Read the prompts and give them places. One that fails fails alone."""
        for group in _alike(requests):
            self._start(group, observe)

    def _start(self, group: list[Request], observe: Observe) -> None:
        begun = time.monotonic()
        try:
            batch = self.place(_together([one.batch for one in group], group[0]))
            step = self.network.start(room=max(one.room for one in group), **batch)
            self._put(group, step.logits, step.cache)
        except (RebusError, torch.OutOfMemoryError, RuntimeError, IndexError) as error:
            if len(group) > 1:
                for half in (group[: len(group) // 2], group[len(group) // 2 :]):
                    self._start(half, observe)
                return
            if not isinstance(error, RebusError):
                log.exception("a prompt could not be read")
            group[0].ticket.fail(in_our_words(error))
            return
        seconds = time.monotonic() - begun
        for _ in group:
            observe("encode", seconds)

    def _put(self, group: list[Request], logits: Tensor, cache: Any) -> None:
        if self.cache is None:
            self.cache, self.logits, self.rows = cache, logits, list[Request | None](group)
            if self.fixed:
                self._widen(self.most)
            return
        if len(self.rows) - len(self.live) < len(group):
            self._widen(min(self.most, 2 ** (len(self.live) + len(group) - 1).bit_length()))
        assert self.logits is not None
        places = [place for place, row in enumerate(self.rows) if row is None][: len(group)]
        index = torch.tensor(places, device=logits.device)
        room = max(one.left for one in (*group, *(row for row in self.rows if row is not None)))
        self.cache = self.cache.put(index, cache, room)
        self.logits = self.logits.index_copy(0, index, logits)
        for place, one in zip(places, group, strict=True):
            self.rows[place] = one

    def _widen(self, number: int) -> None:
        """More places: copies of the first, which hold nothing."""
        self._keep([*range(len(self.rows)), *[0] * (number - len(self.rows))])
        self.cache = self.cache.free(self._idle())

    def _keep(self, places: Sequence[int]) -> None:
        """The given places, in that order; what is given again is an empty place."""
        assert self.logits is not None
        index = torch.tensor(places, device=self.logits.device)
        seen: set[int] = set()
        rows: list[Request | None] = []
        for place in places:
            rows.append(None if place in seen else self.rows[place])
            seen.add(place)
        self.cache, self.logits, self.rows = self.cache.select(index), self.logits[index], rows

    @torch.inference_mode()
    def advance(self, observe: Observe) -> None:
        """Choose a token for every row, let those go that have ended, and read the tokens of the others."""
        dead = [place for place in self.live if self.rows[place].ticket.dead]  # type: ignore[union-attr]
        if dead:
            self._leave(dead)
        if not self.live:
            return
        assert self.logits is not None
        begun = time.monotonic()
        tokens = self._choose(self.logits)
        finite = self.logits.amax(dim=1).isfinite()
        ended = []
        for place, (token, sound) in enumerate(torch.stack([tokens, finite], dim=1).tolist()):
            row = self.rows[place]
            if row is None:
                continue
            if not sound:
                row.ticket.fail(NotFinite("the model's answer to this request is not a number"))
                ended.append(place)
                continue
            over = row.take(token)
            now = time.monotonic()
            if not row.first_token:
                row.first_token = now
                observe("first_token", now - row.ticket.submitted)
            if over:
                ended.append(place)
                if len(row.text.ids) > 1:
                    observe("per_token", (now - row.first_token) / (len(row.text.ids) - 1))
        tokens = self._leave(ended, tokens)
        while self.live:
            try:
                step = self.network.step(tokens, self.cache.free(self._idle()))
                self.cache, self.logits = step.cache, step.logits
                break
            except torch.OutOfMemoryError as error:  # the one who came last makes way
                last = max(self.live, key=lambda place: self.rows[place].ticket.submitted)  # type: ignore[union-attr]
                self.rows[last].ticket.fail(in_our_words(error))  # type: ignore[union-attr]
                tokens = self._leave([last], tokens)
        observe("step", time.monotonic() - begun)

    def _choose(self, logits: Tensor) -> Tensor:
        """(R,) the next token of every row."""
        live = [(place, row) for place, row in enumerate(self.rows) if row is not None]
        scores = logits
        for place, row in live:
            if row.constraints is not None:
                scores = scores.clone() if scores is logits else scores
                so_far = torch.tensor([row.text.ids], dtype=torch.int64, device=logits.device)
                first = torch.zeros(1, dtype=torch.int64, device=logits.device)
                scores[place] = row.constraints(logits[place : place + 1], first, so_far)[0]
        tokens = scores.argmax(dim=-1)
        kinds: dict[Sample, list[int]] = {}
        for place, row in live:
            if row.sample is not None:
                kinds.setdefault(replace(row.sample, seed=None), []).append(place)
        for kind, places in kinds.items():
            index = torch.tensor(places, device=logits.device)
            likely = shape(scores[index], temperature=kind.temperature, top_k=kind.top_k, top_p=kind.top_p)
            numbers = [row.uniform[len(row.text.ids)] for row in (self.rows[p] for p in places)]  # type: ignore
            uniform = torch.stack(numbers)
            uniform = uniform if logits.device.type == "mps" else uniform.to(logits.device)  # which has no float64
            tokens = tokens.index_copy(0, index, invert(likely, uniform))
        return tokens

    def _leave(self, places: Sequence[int], tokens: Tensor | None = None) -> Tensor:
        """Empty the places. Where at most half are taken then, the others go. Gives the tokens (R,) of those that
        stay."""
        assert self.logits is not None
        tokens = self.logits.new_zeros(len(self.rows), dtype=torch.int64) if tokens is None else tokens
        for place in places:
            row = self.rows[place]
            if row is not None and not row.ticket.done:
                row.ticket.bury()
            self.rows[place] = None
        live = self.live
        if not live:
            self.cache = self.logits = None
            self.rows = []
        elif places and not self.fixed and 2 * len(live) <= len(self.rows):
            self._keep(live)
            return tokens[live]
        return tokens

    def _idle(self) -> Tensor:
        assert self.logits is not None
        idle = [place for place, row in enumerate(self.rows) if row is None]
        return torch.tensor(idle, dtype=torch.int64, device=self.logits.device)

    def end(self, error: RebusError) -> None:
        """Every answer fails."""
        for place in self.live:
            self.rows[place].ticket.fail(error)  # type: ignore[union-attr]
        self.cache, self.logits, self.rows = None, None, []


def in_our_words(error: Exception) -> RebusError:
    """An error that may be shown to a user; a bug of the program stays what it is."""
    if isinstance(error, torch.OutOfMemoryError) or isinstance(error.__cause__, torch.OutOfMemoryError):
        return OutOfMemory("the device has no memory left for this request; try again later, or ask for less")
    return error if isinstance(error, RebusError) else RebusError("the model failed on this request")


def _signature(request: Request) -> tuple[Any, ...]:
    """Equal for prompts that can be read together: whatever they are made of has one shape, tokens apart, of which none
    has more than twice as many as another."""
    rest = {name: tensor for name, tensor in request.batch.items() if name not in ("tokens", "mask")}
    shapes = ((name, tuple(tensor.shape), tensor.dtype) for name, tensor in sorted(rest.items()))
    return request.batch["tokens"].shape[1].bit_length(), *shapes


def _alike(requests: Sequence[Request]) -> list[list[Request]]:
    groups: dict[tuple[Any, ...], list[Request]] = {}
    for request in requests:
        groups.setdefault(_signature(request), []).append(request)
    return list(groups.values())


def _together(batches: Sequence[Mapping[str, Tensor]], request: Request) -> dict[str, Tensor]:
    """Batches of one row as one batch, tokens padded on the right."""
    if len(batches) == 1:
        return dict(batches[0])
    pad = request.text.model.endings()["pad_id"]
    longest = max(batch["tokens"].shape[1] for batch in batches)
    found = {name: [batch[name] for batch in batches] for name in batches[0]}
    found["tokens"] = [F.pad(tokens, (0, longest - tokens.shape[1]), value=pad) for tokens in found["tokens"]]
    found["mask"] = [F.pad(mask, (0, longest - mask.shape[1]), value=False) for mask in found["mask"]]
    return {name: torch.cat(tensors) for name, tensors in found.items()}
