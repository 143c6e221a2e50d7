"""Metrics and benchmarks, over the task methods of a model: whatever can do the task can be measured."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from rebus.core.errors import unknown

BENCHMARKS = {"scenes": "rebus.evaluate.scenes"}


def evaluate(model: Any, benchmark: str, **options: Any) -> dict[str, Any]:
    """Scores of a `Model` on a benchmark. Raises `UnknownName`, or `UsageError` for a model it cannot measure."""
    if benchmark not in BENCHMARKS:
        raise unknown("benchmark", benchmark, BENCHMARKS, f"Benchmarks: {', '.join(BENCHMARKS)}.")
    run: Callable[..., dict[str, Any]] = import_module(BENCHMARKS[benchmark]).evaluate
    return run(model, **options)
