"""Counters and histograms in Prometheus's text format."""

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterator

_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)  # seconds
STAGES = {
    "fetch": "an image from its web address",
    "decode": "images from bytes",
    "prepare": "pixels and tokens of a request",
    "queue": "from the request to its begin",
    "encode": "images and prompt by the network",
    "first_token": "from the request to the first token",
    "per_token": "each token after the first, a mean for each answer",
    "step": "one step of all rows",
    "search": "of an index, with the encoding of texts and images",
}


class Metrics:
    """Seconds of each stage by model, answers by status, and what is asked for at the moment (`gauge`)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._histograms: dict[tuple[str, str], list[float]] = {}  # (stage, model) → counts of each bound, sum
        self._answers: dict[tuple[str, int], int] = {}
        self._gauges: dict[tuple[str, str], Callable[[], float]] = {}

    def observe(self, stage: str, seconds: float, model: str = "") -> None:
        with self._lock:
            found = self._histograms.setdefault((stage, model), [0.0] * (len(_BOUNDS) + 2))
            found[bisect_left(_BOUNDS, seconds)] += 1
            found[-1] += seconds

    def answered(self, route: str, status: int) -> None:
        with self._lock:
            self._answers[route, status] = self._answers.get((route, status), 0) + 1

    def gauge(self, name: str, model: str, read: Callable[[], float]) -> None:
        self._gauges[name, model] = read

    def text(self) -> str:
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        with self._lock:
            histograms = {key: list(value) for key, value in sorted(self._histograms.items())}
            answers = dict(sorted(self._answers.items()))
        for stage, what in STAGES.items():
            name = f"rebus_{stage}_seconds"
            yield f"# HELP {name} {what}"
            yield f"# TYPE {name} histogram"
            for (of, model), counts in histograms.items():
                if of == stage:
                    yield from _histogram(name, f'model="{_escaped(model)}"', counts)
        yield "# HELP rebus_answers_total answers by route and status"
        yield "# TYPE rebus_answers_total counter"
        for (route, status), count in answers.items():
            yield f'rebus_answers_total{{route="{_escaped(route)}",status="{status}"}} {count}'
        for name in dict.fromkeys(name for name, _ in self._gauges):
            yield f"# TYPE rebus_{name} gauge"
            for (of, model), read in self._gauges.items():
                if of == name:
                    yield f'rebus_{name}{{model="{_escaped(model)}"}} {read():g}'


def _histogram(name: str, labels: str, counts: list[float]) -> Iterator[str]:
    total = 0.0
    for bound, count in zip((*_BOUNDS, "+Inf"), counts, strict=False):
        total += count
        yield f'{name}_bucket{{{labels},le="{bound}"}} {total:g}'
    yield f"{name}_sum{{{labels}}} {counts[-1]:.6f}"
    yield f"{name}_count{{{labels}}} {total:g}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
