"""Metrics and benchmarks over the task methods of a model: any model with the task can be evaluated."""

from importlib import import_module
from typing import Any

from rebus.core.errors import unknown
from rebus.evaluate.benchmarks import BENCHMARKS as ON_DISK

BENCHMARKS = {"scenes": "rebus.evaluate.scenes", **ON_DISK}


def evaluate(model: Any, benchmark: str, **options: Any) -> dict[str, Any]:
    """Scores of a `Model` on a benchmark: the options are those of `rebus.evaluate.scenes.evaluate` for scenes, else of
    `rebus.evaluate.measure.measure`.

    Raises `UnknownName`, or `UsageError` for a model that does not support the benchmark.
    """
    if benchmark not in BENCHMARKS:
        raise unknown("benchmark", benchmark, BENCHMARKS, f"Benchmarks: {', '.join(BENCHMARKS)}.")
    if benchmark in ON_DISK:
        from rebus.evaluate.measure import measure

        scores: dict[str, Any] = measure(model, benchmark, options.pop("data", None), **options).document["scores"]
        return scores
    found: dict[str, Any] = import_module(BENCHMARKS[benchmark]).evaluate(model, **options)
    return found
