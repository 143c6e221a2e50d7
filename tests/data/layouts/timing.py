"""How long something takes when the machine has time for it."""

import time
from collections.abc import Callable


def quickest(work: Callable[[], object], tries: int = 5) -> float:
    """Seconds of the quickest of a few tries."""
    seconds = []
    for _ in range(tries):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
        if seconds[-1] < 0.5:
            break
    return min(seconds)
