"""A model on a benchmark, with all that is needed to repeat the run."""

import dataclasses
import math
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from typing import Any

import torch

from rebus import __version__
from rebus.core.errors import UnsupportedTask, UsageError, unknown
from rebus.data.held_out_scenes import SCENES
from rebus.data.record import Reader
from rebus.evaluate.benchmarks import BENCHMARKS
from rebus.evaluate.benchmarks.walk import BATCH, Source
from rebus.evaluate.outcome import Outcome, bars

Data = str | os.PathLike[str] | Reader

_NAMED = 20  # damaged records that a result names


@dataclass(frozen=True, kw_only=True)
class Result:
    """`document`: scores and everything to repeat them, ready for JSON. `outcome`: what a report is drawn from."""

    document: dict[str, Any]
    outcome: Outcome


def measure(
    model: Any,
    benchmark: str,
    data: Data | None,
    *,
    layout: str = "auto",
    split: str | None = None,
    number: int | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    root: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Result:
    """Measure a `Model` on data on disk (or a `Reader`, or "scenes", where the benchmark has a set of these).
    `number` records drawn by `seed`; None takes all.

    Raises `UnknownName` for a benchmark or an option that does not exist, `UnsupportedTask` for a model that cannot do
    it, `UsageError` without data or for data it cannot use, `RebusError` when a tenth of the records is damaged.
    """
    module = find(benchmark)
    chosen = options_of(benchmark, options)
    if data is None:
        raise UsageError(f"{benchmark} needs --data PATH; it reads {module.READS}")
    if module.TASKS and not set(module.TASKS) & model.tasks:
        raise UnsupportedTask(
            f"{benchmark} needs a model that can {' or '.join(module.TASKS)}; "
            f"this one does {', '.join(sorted(model.tasks))}"
        )
    if data == SCENES:
        data, split = of_scenes(benchmark, split), split or "test"
    source = Source(data, layout, split, number, seed, batch_size or BATCH, root)
    began, clock = datetime.now(UTC), time.monotonic()
    outcome: Outcome = module.run(model, source, chosen)
    document = {
        "benchmark": benchmark,
        **describe_model(model),
        "scores": plain(outcome.scores),
        "notes": list(outcome.notes),
        "data": _describe_data(source),
        "options": plain(dataclasses.asdict(chosen)) | {"batch_size": source.batch_size},
        **surroundings(model, began, time.monotonic() - clock),
    }
    return Result(document=document, outcome=outcome)


def measure_scenes(model: Any, **options: Any) -> Result:
    """The same of the scenes benchmark. Its scores stand in the document itself too, where programs look for them."""
    from rebus.evaluate import evaluate

    began, clock = datetime.now(UTC), time.monotonic()
    detector = options.pop("detector", None)
    found = plain(evaluate(model, "scenes", detector=detector, **options))
    scores = {name: value for name, value in found.items() if isinstance(value, float | dict)}
    document = {
        **found,
        "benchmark": "scenes",
        **describe_model(model),
        "scores": scores,
        "notes": [],
        "data": {"path": None, "layout": "scenes", "split": options.get("split"), "records": options.get("number")},
        "options": {name: options[name] for name in ("objects",) if name in options},
        **surroundings(model, began, time.monotonic() - clock),
    }
    single = {name: value for name, value in scores.items() if isinstance(value, float)}
    return Result(document=document, outcome=Outcome(scores=scores, plots=[bars("scores", "scenes", single)]))


def find(benchmark: str) -> Any:
    """The module of a benchmark. Raises `UnknownName`."""
    if benchmark not in BENCHMARKS:
        raise unknown("benchmark", benchmark, BENCHMARKS, f"Benchmarks: {', '.join(BENCHMARKS)}.")
    return import_module(BENCHMARKS[benchmark])


def of_scenes(benchmark: str, split: str | None) -> Reader:
    """Held-out scenes for this benchmark. Raises `UsageError` where it has none, `UnknownName` for another split."""
    module = find(benchmark)
    if not hasattr(module, "HELD_OUT"):
        raise UsageError(
            f"{benchmark} does not support scenes, only the benchmark scenes does; it reads {module.READS}"
        )
    reader: Reader = module.HELD_OUT(split or "test")
    return reader


def options_of(benchmark: str, given: Mapping[str, Any]) -> Any:
    """The options of a benchmark. Raises `UnknownName` for one that it does not have."""
    kind = find(benchmark).Options
    names = [field.name for field in dataclasses.fields(kind)]
    for name in given:
        if name not in names:
            raise unknown(f"option of {benchmark}", name, names, f"It has: {', '.join(names) or 'none'}.")
    return kind(**given)


def describe_model(model: Any) -> dict[str, Any]:
    """Which model this is, by name."""
    card = getattr(model, "card", None)
    return {"model": card.name if card is not None else type(model).__name__}


def surroundings(model: Any, began: datetime, seconds: float) -> dict[str, Any]:
    """Where and when it ran."""
    device = getattr(model, "device", None)
    name = torch.cuda.get_device_name(device) if getattr(device, "type", "") == "cuda" else platform.machine()
    return {
        "device": f"{device or 'cpu'} ({name})",
        "dtype": str(getattr(model, "dtype", "")).removeprefix("torch."),
        "versions": {"rebus": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "date": began.isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
    }


def plain(value: Any) -> Any:
    """The value as JSON has it: what is no number (nothing to measure it on) is null."""
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _describe_data(source: Source) -> dict[str, Any]:
    measured = source.opened[0]
    damaged = [reason for records in source.opened for reason in records.damaged]
    path = os.fspath(source.data) if isinstance(source.data, str | os.PathLike) else None
    return {
        "path": None if path is None else os.path.abspath(path),
        "layout": type(measured.reader).__module__.rsplit(".", 1)[-1],
        "split": source.split,
        "records": measured.total,
        "used": measured.used,
        "number": source.number,
        "seed": source.seed,
        "fingerprint": [records.fingerprint for records in source.opened],
        "damaged": {"count": len(damaged), "first": damaged[:_NAMED]},
        "damaged_files": [fault for records in source.opened for fault in records.damaged_files],
    }
