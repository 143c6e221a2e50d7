"""Long work in batches: a progress bar when it takes time, smaller batches when memory runs out."""

import contextlib
import logging
import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from rebus.core.errors import RebusError

log = logging.getLogger("rebus")
Item = TypeVar("Item")
Result = TypeVar("Result")

_ROW = re.compile(r"^(images\[|prompt |text )(\d+)")
PATIENCE = 2.0  # seconds before a progress bar is worth showing


def in_batches(
    items: Sequence[Item],
    work: Callable[[Sequence[Item]], Sequence[Result]],
    *,
    size: int,
    what: str,
    numbers: Sequence[int] | None = None,
) -> list[Result]:
    """The results of `work`, one an item, in order.

    When the accelerator's memory runs out the batch is halved, which is logged; with one item left `RebusError` says
    so. `what` names the items in the progress bar, which is shown on a terminal only. `numbers`: what the caller
    calls each item, where that is not its place in `items`; errors that number a row of the batch say it.
    """
    results: list[Result] = []
    with progress(what, len(items)) as advance:
        while len(results) < len(items):
            batch = items[len(results) : len(results) + size]
            try:
                done = work(batch)
            except torch.OutOfMemoryError as error:
                if len(batch) == 1:
                    raise RebusError(
                        f"out of memory with a single item ({what}). Free the device, or take a smaller model or dtype"
                    ) from error
                size = len(batch) // 2
            except RebusError as error:
                places = range(len(items)) if numbers is None else numbers
                raise _renumbered(error, places[len(results) : len(results) + len(batch)]) from error.__cause__
            else:
                results += done
                advance(len(batch))
                continue
            # Here, since what failed is held by the exception until its handler ends.
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            log.warning("out of memory with %d %s at once; going on with %d", len(batch), what, size)
    return results


def _renumbered(error: RebusError, numbers: Sequence[int]) -> RebusError:
    """The error with the caller's number of the row, where it begins with that of the batch's."""
    text = _ROW.sub(lambda found: f"{found[1]}{numbers[int(found[2])]}", str(error))
    error.args = (text, *error.args[1:])
    return error


@contextlib.contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Call what is given with the number of items just done; a bar appears on stderr once `PATIENCE` has passed."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    begun, done = time.monotonic(), 0
    with contextlib.ExitStack() as stack:
        bar: Progress | None = None
        task = None

        def advance(count: int) -> None:
            nonlocal bar, task, done
            done += count
            if bar is None and console.is_terminal and done < total and time.monotonic() - begun > PATIENCE:
                columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
                bar = stack.enter_context(Progress(*columns, console=console, transient=True))
                task = bar.add_task(what, total=total)
            if bar is not None and task is not None:
                bar.update(task, completed=done)

        yield advance
