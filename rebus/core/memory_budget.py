"""A memory budget shared by all threads of the process: a request for more than is left waits until others are done."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rebus.core.limits import check, limit


class MemoryBudget:
    """At most `limit(name)` bytes are held at any time. A thread that holds some must not ask for more."""

    def __init__(self, name: str):
        self.name = name
        self._start()
        if hasattr(os, "register_at_fork"):  # what threads of the parent hold, nobody gives back in a child
            os.register_at_fork(after_in_child=self._start)

    def _start(self) -> None:
        self._used = 0
        self._changed = threading.Condition()

    @contextmanager
    def held(self, size: int, what: str) -> Iterator[None]:
        """Hold `size` bytes, waited for. Raises `LimitExceeded` where they are more than all there is."""
        check(self.name, size, f"{what}: bytes of memory")
        most = limit(self.name)
        with self._changed:
            self._changed.wait_for(lambda: self._used + size <= most)
            self._used += size
        try:
            yield
        finally:
            with self._changed:
                self._used -= size
                self._changed.notify_all()
