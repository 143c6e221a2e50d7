"""Whose turn it is: many threads, few requests to a host, and no thread that only waits."""

import heapq
import itertools
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass
class Job:
    """A row to be fetched, and how often that was tried."""

    row: int
    url: str
    host: str
    tries: int = 0


@dataclass
class HostScheduler:
    """Hosts in turn, each with at most `per_host` requests under way. It is the host of the row, not of redirects."""

    jobs: Iterable[Job]
    per_host: int
    _waiting: dict[str, deque[Job]] = field(default_factory=dict)
    _ready: deque[str] = field(default_factory=deque)  # hosts with rows that may go now, each once
    _running: Counter[str] = field(default_factory=Counter)
    _later: list[tuple[float, int, Job]] = field(default_factory=list)
    _left: int = 0
    _closed: bool = False

    def __post_init__(self) -> None:
        self._changed = threading.Condition()
        self._numbers = itertools.count()
        for job in self.jobs:
            self._left += 1
            self._enqueue(job)

    def take(self) -> Job | None:
        """The next row, waited for; None when all are finished or the turns are closed."""
        with self._changed:
            while self._left and not self._closed:
                now = time.monotonic()
                while self._later and self._later[0][0] <= now:
                    self._enqueue(heapq.heappop(self._later)[2])
                if self._ready:
                    return self._next()
                self._changed.wait(self._later[0][0] - now if self._later else None)
        return None

    def finish(self, job: Job) -> None:
        with self._changed:
            self._left -= 1
            self._release(job.host)

    def again(self, job: Job, seconds: float) -> None:
        """The row comes back after that time; its host is free meanwhile."""
        with self._changed:
            heapq.heappush(self._later, (time.monotonic() + seconds, next(self._numbers), job))
            self._release(job.host)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def closed(self) -> bool:
        return self._closed

    def _next(self) -> Job:
        host = self._ready.popleft()
        job = self._waiting[host].popleft()
        self._running[host] += 1
        self._make_ready(host)
        return job

    def _enqueue(self, job: Job) -> None:
        self._waiting.setdefault(job.host, deque()).append(job)
        if len(self._waiting[job.host]) == 1:
            self._make_ready(job.host)

    def _release(self, host: str) -> None:
        full = self._running[host] == self.per_host
        self._running[host] -= 1
        if full:
            self._make_ready(host)
        self._changed.notify_all()

    def _make_ready(self, host: str) -> None:
        if self._waiting[host] and self._running[host] < self.per_host:
            self._ready.append(host)
