"""Traces on disk: the second plan of a model needs neither its network nor PyTorch.

A file is found by everything that a trace depends on, this package's files and PyTorch's version included, and counts
only if it is as it was written.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rebus.core.atomic_write import write_bytes_atomically
from rebus.core.cache import cache_home
from rebus.core.errors import CannotWrite
from rebus.core.small_files import read_small
from rebus.core.strict_json import to_json
from rebus.plan.step import Contrast, Memory, Part, Step, Trace

if TYPE_CHECKING:
    from rebus.core.system import System


def trace_by_name(name: str, image_size: int | None, step: Step) -> Trace:
    """Of a catalogue name. Raises what `configuration` and `trace` raise."""

    def work() -> Trace:
        from rebus.plan.configuration import configuration
        from rebus.plan.trace import trace

        return trace(*configuration(name, image_size), step)

    return _stored({"name": name, "image_size": image_size, "step": asdict(step)}, work)


def trace_of(system: "System", config: Any, step: Step) -> Trace:
    """Of a configuration. Raises what `trace` raises."""

    def work() -> Trace:
        from rebus.plan.trace import trace

        return trace(system, config, step)

    return _stored({"system": system.name, "config": repr(config), "step": asdict(step)}, work)


def _stored(asked: dict[str, Any], work: Callable[[], Trace]) -> Trace:
    key = hashlib.sha256(to_json([asked, _versions()], sort_keys=True).encode()).hexdigest()
    path = cache_home() / "plans" / f"{key}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):  # damaged, or not there
        return _read(read_small(path))
    found = work()
    with suppress(OSError, CannotWrite):  # no room: it is worked out again next time
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes_atomically(path, _written(found))
    return found


def _written(trace: Trace) -> bytes:
    body = to_json(asdict(trace)).encode()
    return hashlib.sha256(body).hexdigest().encode() + b"\n" + body


def _read(data: bytes) -> Trace:
    digest, _, body = data.partition(b"\n")
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise ValueError("damaged")
    found = json.loads(body)
    found["parts"] = tuple(Part(**part) for part in found["parts"])
    found["moments"] = tuple(Memory(**moment) for moment in found["moments"])
    found["contrast"] = found["contrast"] and Contrast(**found["contrast"])
    found["image_size"] = found["image_size"] and tuple(found["image_size"])
    return Trace(**found)


@cache
def _versions() -> list[Any]:
    """Of all that a trace is made by."""
    package = Path(__file__).parents[1]
    return [version("torch"), version("timm"), *sorted(_stamps(package))]


def _stamps(package: Path) -> Iterator[tuple[str, int, int]]:
    for path in (*package.rglob("*.py"), *package.glob("checkpoints/*/config.json")):
        told = path.stat()
        yield str(path.relative_to(package)), told.st_size, told.st_mtime_ns
