"""A progress bar over what the first opening of a large data set reads through."""

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

PATIENCE = 2.0  # seconds before a bar is worth showing
_EVERY = 0.1  # seconds

_T = TypeVar("_T")


def watched(items: Iterable[_T], total: int, what: str) -> Iterator[_T]:
    """The items. A bar called `what` appears on stderr, where that is a terminal, once `PATIENCE` has passed."""
    begun = time.monotonic()
    rest = iter(items)
    for done, item in enumerate(rest, start=1):
        yield item
        if time.monotonic() - begun > PATIENCE:
            yield from _under_a_bar(rest, done, total, what)


def _under_a_bar(items: Iterable[_T], done: int, total: int, what: str) -> Iterator[_T]:
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    if not console.is_terminal:
        yield from items
        return
    with Progress(console=console, transient=True) as bar:
        task, told = bar.add_task(what, total=total, completed=done), time.monotonic()
        for number, item in enumerate(items, start=done + 1):
            yield item
            if time.monotonic() - told > _EVERY:  # telling costs more than a row
                told = time.monotonic()
                bar.update(task, completed=number)
