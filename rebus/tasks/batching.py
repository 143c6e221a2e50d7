"""Long work in batches: a progress bar when it takes time, smaller batches when memory runs out."""

import contextlib
import logging
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch

from rebus.core.errors import BadImage, BadText, LimitExceeded, MissingFile, NotFinite, RebusError, UsageError

log = logging.getLogger("rebus")
Item = TypeVar("Item")
Result = TypeVar("Result")

_ROW = re.compile(r"^(images\[|prompt |text )(\d+)")
PATIENCE = 2.0  # seconds before a progress bar is worth showing


@dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """Options of batched work. `batch_size` None: chosen for the device; `progress` None: a progress bar for work that
    takes seconds; `on_error` "skip": an item that fails has no answer, and the others continue. `failed` is
    called with the number of each such item; without it they are logged."""

    batch_size: int | None = None
    progress: bool | None = None
    on_error: Literal["raise", "skip"] = "raise"
    failed: Callable[[int, RebusError], None] | None = None

    def __post_init__(self) -> None:
        size = self.batch_size
        if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
            raise UsageError(f"batch_size expects a whole number above 0, or None; got {size!r}")
        if self.on_error not in ("raise", "skip"):
            raise UsageError(f'on_error is "raise" or "skip"; got {self.on_error!r}')


AS_IT_SUITS = BatchOptions()
_OF_ONE_ITEM = (BadImage, BadText, LimitExceeded, MissingFile, NotFinite)  # what says nothing about the others
_NAMED = 5


def in_batches(
    items: Sequence[Item],
    work: Callable[[Sequence[Item]], Sequence[Result]],
    *,
    size: int,
    what: str,
    numbers: Sequence[int] | None = None,
    options: BatchOptions = AS_IT_SUITS,
) -> list[Any]:
    """The results of `work`, one an item, in order; None for an item that failed and is skipped, which is logged.

    When the accelerator's memory runs out the batch is halved, which is logged; with one item left `RebusError` says
    so. `what` names the items in the progress bar, which is shown on a terminal only. `numbers`: what the caller
    calls each item, where that is not its place in `items`; errors that number a row of the batch say it.
    """
    size = options.batch_size or size
    places = range(len(items)) if numbers is None else numbers
    results: dict[int, Result] = {}
    failures: dict[int, RebusError] = {}
    waiting = list(range(len(items)))
    alone: set[int] = set()  # of a batch with a fault that names none of its items
    with progress(what, len(items), options.progress) as advance:
        while waiting:
            count = 1 if waiting[0] in alone else size
            batch = waiting[:count]
            try:
                done = work([items[i] for i in batch])
            except torch.OutOfMemoryError as error:
                if len(batch) == 1:
                    raise RebusError(
                        f"out of memory with a single item ({what}). Free the device, or take a smaller model or dtype"
                    ) from error
                size = len(batch) // 2
            except RebusError as error:
                row = _ROW.match(str(error))
                named = _renumbered(error, [places[i] for i in batch])
                if options.on_error == "raise" or not isinstance(error, _OF_ONE_ITEM):
                    raise named from error.__cause__
                if len(batch) > 1 and row is None:
                    alone.update(batch)
                    continue
                failed = batch[int(row[2])] if row is not None else batch[0]
                failures[failed] = named
                waiting.remove(failed)
                advance(1)
                continue
            else:
                results.update(zip(batch, done, strict=True))
                waiting = waiting[len(batch) :]
                advance(len(batch))
                continue
            # Here, since what failed is held by the exception until its handler ends.
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            log.warning("out of memory with %d %s per batch; continuing with %d", len(batch), what, size)
    if options.failed is not None:
        for i, failure in sorted(failures.items()):
            options.failed(places[i], failure)
    elif failures:
        said = "; ".join(str(error) for _, error in sorted(failures.items())[:_NAMED])
        more = f"; and {len(failures) - _NAMED} more" if len(failures) > _NAMED else ""
        log.warning("%d of %d %s failed and have no answer: %s%s", len(failures), len(items), what, said, more)
    return [results.get(i) for i in range(len(items))]


def _renumbered(error: RebusError, numbers: Sequence[int]) -> RebusError:
    """The error with the caller's number of the row, where it begins with that of the batch's."""
    text = _ROW.sub(lambda found: f"{found[1]}{numbers[int(found[2])]}", str(error))
    error.args = (text, *error.args[1:])
    return error


@contextlib.contextmanager
def progress(what: str, total: int, wanted: bool | None = None) -> Iterator[Callable[[int], None]]:
    """Call what is given with the number of items just done; a bar appears on stderr, where that is a terminal, once
    `PATIENCE` has passed, or at once or never as it is `wanted`."""
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
            due = time.monotonic() - begun > PATIENCE if wanted is None else wanted
            if bar is None and due and console.is_terminal and done < total:
                columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
                bar = stack.enter_context(Progress(*columns, console=console, transient=True))
                task = bar.add_task(what, total=total)
            if bar is not None and task is not None:
                bar.update(task, completed=done)

        advance(0)
        yield advance
