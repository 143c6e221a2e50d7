"""All settings of a claim with all its seeds, in processes of one thread each; what is measured is written at once.

A cell is a setting with a seed and depends on nothing else, so an interrupted run resumes with the cells that are
missing, and ends with the numbers of one that was not.
"""

import dataclasses
import hashlib
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from rebus import __version__
from rebus.core.atomic_write import cannot_write, write_bytes_atomically
from rebus.core.errors import RebusError, UsageError
from rebus.core.small_files import read_small
from rebus.core.strict_json import to_json
from rebus.reproduce.claim import Claim, Measured

RESULTS = "results.json"
Cell = tuple[str, int]  # setting, seed
Report = Callable[[Cell, int], None]  # the cell that is done, and how many are


def stamp(claim: Claim) -> str:
    """Eight letters for what the numbers depend on: the claim's settings, its revision, the version of rebus."""
    told = [claim.name, claim.revision, __version__, repr(claim.budget), claim.settings, claim.seeds]
    return hashlib.sha256(to_json(told).encode()).hexdigest()[:8]


def run(claim: Claim, folder: Path, jobs: int = 1, report: Report | None = None) -> dict[str, Any]:
    """Measure what is missing in `folder/results.json`, and return all of it.

    Raises `UsageError` where the file belongs to another version of the claim, `RebusError` when a cell fails.
    """
    found = begun(claim, folder)
    there = {(cell["setting"], cell["seed"]) for cell in found["cells"]}
    wanted = [(setting, seed) for seed in claim.seeds for setting in claim.settings]
    missing = [cell for cell in wanted if cell not in there]
    for cell, figures in _measured(claim, missing, jobs):
        found["cells"].append({"setting": cell[0], "seed": cell[1], **figures})
        found["cells"].sort(key=lambda c: wanted.index((c["setting"], c["seed"])))
        write(folder / RESULTS, document(found))
        if report is not None:
            report(cell, len(found["cells"]))
    return found


def begun(claim: Claim, folder: Path) -> dict[str, Any]:
    """What the folder holds of this claim: all cells that were measured, or none yet."""
    fresh = {
        "claim": claim.name,
        "stamp": stamp(claim),
        "rebus": __version__,
        "torch": torch.__version__,
        "settings": list(claim.settings),
        "seeds": list(claim.seeds),
        "budget": dataclasses.asdict(claim.budget),
        "cells": [],
    }
    try:
        found = json.loads(read_small(folder / RESULTS))
        same = found["stamp"] == fresh["stamp"]
        cells = [dict(cell) for cell in found["cells"]]
    except FileNotFoundError:
        return fresh
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise UsageError(f"{folder / RESULTS}: not the results of a claim. Choose another --out") from None
    if not same:
        raise UsageError(f"{folder / RESULTS} is of another claim or version; choose another --out, or remove it")
    return {**fresh, "torch": found.get("torch", torch.__version__), "cells": cells}


def table(found: dict[str, Any]) -> Measured:
    """The figures by setting and seed."""
    measured: dict[str, dict[int, dict[str, float]]] = {}
    for cell in found["cells"]:
        measured.setdefault(cell["setting"], {})[cell["seed"]] = cell["figures"]
    return measured


def document(data: Any) -> bytes:
    return to_json(data, ensure_ascii=False, indent=1).encode() + b"\n"


def write(path: Path, data: bytes) -> None:
    """A file and the folder it is in. Raises `CannotWrite`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from None
    write_bytes_atomically(path, data)


def _measure(claim: Claim, cell: Cell) -> dict[str, Any]:
    """One cell with one thread, whatever the machine has: more of them would change the last digits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    began, used = time.monotonic(), sum(os.times()[:4])  # with the processes that it starts
    try:
        torch.manual_seed(cell[1])
        figures = claim.measure(claim.budget, *cell)
    finally:
        torch.set_num_threads(threads)
    return {
        "figures": figures,
        "seconds": round(time.monotonic() - began, 2),
        "cpu_seconds": round(sum(os.times()[:4]) - used, 2),
    }


def _measured(claim: Claim, cells: list[Cell], jobs: int) -> Iterator[tuple[Cell, dict[str, Any]]]:
    if jobs == 1:
        for cell in cells:
            yield cell, _measure(claim, cell)
        return
    context = multiprocessing.get_context("spawn")
    waiting, working = list(cells), dict[Connection, tuple[Cell, Any]]()
    try:
        while waiting or working:
            while waiting and len(working) < jobs:
                reader, writer = context.Pipe(duplex=False)
                process = context.Process(target=_child, args=(writer, claim, waiting[0]), daemon=True)
                with _deaf():
                    process.start()
                writer.close()
                working[reader] = waiting.pop(0), process
            for ready in wait(list(working)):
                assert isinstance(ready, Connection)
                cell, process = working.pop(ready)
                yield cell, _received(ready, cell, process)
    finally:
        for _, process in working.values():
            process.kill()
            process.join()


def _received(reader: Connection, cell: Cell, process: Any) -> dict[str, Any]:
    where = f"{cell[0]}, seed {cell[1]}"
    try:
        answer = reader.recv()
    except EOFError:
        process.join()
        raise RebusError(f"{where}: its process ended with code {process.exitcode}; try --jobs 1") from None
    process.join()
    reader.close()
    if isinstance(answer, str):
        raise RebusError(f"{where}: {answer}")
    return dict(answer)


@contextmanager
def _deaf() -> Iterator[None]:
    """What is started here does not hear Ctrl-C, which a terminal sends to all: it is the parent's to hear."""
    try:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    except ValueError:  # signals belong to the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _child(writer: Connection, claim: Claim, cell: Cell) -> None:
    """In a process of its own. A parent that is gone is no reason to complain."""
    try:
        answer: Any = _measure(claim, cell)
    except Exception as error:
        answer = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    try:
        writer.send(answer)
    except OSError:
        sys.exit(1)
