"""An answer on its way: from the thread that asked to the thread that computes, and back piece by piece."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from rebus.core.errors import RebusError

State = Literal["piece", "done", "failed"]


class QueueFull(RebusError):
    """As many requests wait as may. `retry_after`: seconds after which there is probably a place."""

    def __init__(self, waiting: int, retry_after: int):
        super().__init__(f"{waiting} requests wait already, which is all that may; try again in {retry_after} s")
        self.retry_after = retry_after


class Cancelled(RebusError):
    """Nobody waits for this answer any more."""


class TooLate(RebusError):
    """The answer took longer than a request may."""


class OutOfMemory(RebusError):
    """The device has no memory left for this request."""


@dataclass
class Usage:
    """Tokens read and generated, image placeholders among those read, and why the answer ended."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    finish: Literal["stop", "length"] = "stop"


class Ticket:
    """What `Batcher.submit` gives. `result()` waits for the answer; iterating gives a text's pieces as they come."""

    def __init__(self, seconds: float | None = None):
        self.usage = Usage()
        self.submitted = time.monotonic()
        self.deadline = None if seconds is None else self.submitted + seconds
        self._changed = threading.Condition()
        self._events: list[tuple[State, Any]] = []
        self._listeners: list[Callable[[], None]] = []
        self._cancelled = False

    def result(self, timeout: float | None = None) -> Any:
        """The answer. Raises what went wrong, or `TooLate` after `timeout` seconds; the answer may still come then."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.done, timeout):
                raise TooLate(f"no answer within {timeout:g} s")
        state, value = self._events[-1]
        if state == "failed":
            raise value
        return value

    def __iter__(self) -> Iterator[str]:
        told = 0
        while True:
            with self._changed:
                while len(self._events) <= told:
                    self._changed.wait()
                state, value = self._events[told]
            told += 1
            if state == "failed":
                raise value
            if state == "done":
                return
            yield value

    def cancel(self) -> None:
        """Nobody needs the answer any more: its place is free after the step that is under way."""
        self._cancelled = True
        self._tell()

    @property
    def done(self) -> bool:
        return bool(self._events) and self._events[-1][0] != "piece"

    @property
    def dead(self) -> bool:
        """Whether nothing more need be computed: cancelled, or too late."""
        return self._cancelled or (self.deadline is not None and time.monotonic() > self.deadline)

    def bury(self) -> None:
        """End a dead one."""
        self.fail(Cancelled("the request was cancelled") if self._cancelled else TooLate("the answer took too long"))

    def event(self, number: int) -> tuple[State, Any] | None:
        """The event of that number, or None while it is still to come."""
        return self._events[number] if number < len(self._events) else None

    def listen(self, listener: Callable[[], None]) -> None:
        """`listener()` is called after each event, by the thread that computes."""
        with self._changed:
            self._listeners.append(listener)
        listener()

    def piece(self, text: str) -> None:
        self._add(("piece", text))

    def finish(self, answer: Any) -> None:
        self._add(("done", answer))

    def fail(self, error: BaseException) -> None:
        self._add(("failed", error))

    def _add(self, event: tuple[State, Any]) -> None:
        with self._changed:
            if not self.done:
                self._events.append(event)
        self._tell()

    def _tell(self) -> None:
        with self._changed:
            self._changed.notify_all()
            listeners = list(self._listeners)
        for listener in listeners:
            listener()
