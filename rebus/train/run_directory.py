"""The folder of a run: the settings it was begun with, and the metrics of its steps."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rebus.core.atomic_write import write_bytes_atomically
from rebus.core.config import to_dict
from rebus.core.errors import BadConfig, UnknownName, UsageError
from rebus.core.small_files import read_small
from rebus.core.strict_json import to_json
from rebus.train import checkpoint
from rebus.train.config import TrainConfig
from rebus.train.optim import rate_at
from rebus.train.setup import config_from_dict


def check_claim(config: TrainConfig, out: Path) -> None:
    """Raise `UsageError` where the folder was started with other settings, saying which differ.

    Another number of `steps` is allowed where the steps that are done would have been the same.
    """
    file = out / "config.json"
    if not file.exists():
        return
    try:
        there = config_from_dict(json.loads(read_small(file)), str(file))
    except (BadConfig, UnknownName, ValueError, TypeError, RecursionError, OSError) as error:
        raise UsageError(f"{out} was started with other settings ({str(error)[:300]}); choose another --out") from None
    if there == config:
        return
    if replace(there, steps=config.steps) != config:
        changed = _differences(to_dict(there), to_dict(config))
        raise UsageError(f"{out} was started with other settings: {changed}. Choose another --out, or the same ones")
    done = checkpoint.newest(out / "checkpoints")
    changed = f"steps was {there.steps!r} and is {config.steps!r}"
    if config.steps < done:
        raise UsageError(f"{out}: {changed}, and step {done:,} is done. Choose another --out, or steps={done} or more")
    for step in range(1, done + 1):
        before, now = rate_at(there.optim, step, there.steps), rate_at(config.optim, step, config.steps)
        if before != now:
            raise UsageError(
                f"{out}: {changed}, which would have made the learning rate of step {step:,} {now:.3g} instead of "
                f'{before:.3g}. A run is extended where its schedule does not depend on its length ("constant" or '
                '"rsqrt", no cooldown begun); choose another --out'
            )


def claim(config: TrainConfig, out: Path) -> None:
    """Write `config.json`: from now on the folder is of these settings, which `check_claim` allowed."""
    out.mkdir(parents=True, exist_ok=True)
    written = (to_json(to_dict(config), indent=2) + "\n").encode()
    file = out / "config.json"
    if not file.exists() or file.read_bytes() != written:
        write_bytes_atomically(file, written)


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], path: str = "") -> str:
    found = []
    for key in sorted({*before, *now}):
        a, b = before.get(key), now.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += [d for d in [_differences(a, b, f"{path}{key}.")] if d]
        elif a != b:
            found.append(f"{path}{key} was {a!r} and is {b!r}")
    return ", ".join(found)


def cut(metrics: Path, step: int) -> None:
    """Forget the lines after `step`: they will be written again."""
    if not metrics.exists():
        return
    kept = []
    for line in metrics.read_bytes().splitlines(keepends=True):
        try:
            if line.endswith(b"\n") and json.loads(line)["step"] <= step:
                kept.append(line)
        except (ValueError, KeyError, TypeError, RecursionError):
            continue  # the last line of a run that was killed while writing it, or what is no line of metrics
    write_bytes_atomically(metrics, b"".join(kept))
