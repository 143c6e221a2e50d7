"""The output of a command: answers on stdout, everything else on stderr."""

import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from rebus.core.strict_json import to_json


class Bar(Protocol):
    """A progress bar."""

    def advance(self, note: str = "", count: int = 1) -> None: ...


def shown(text: str) -> str:
    """A file name or label on one line of a terminal: what is not printable is escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def note(text: str) -> None:
    """One line on stderr: `rebus: …`."""
    print(f"rebus: {shown(' '.join(text.split()))}", file=sys.stderr, flush=True)


def say(text: str = "") -> None:
    """One line of the answer, at once."""
    print(text, flush=True)


def emit(document: Any) -> None:
    """The one JSON document of a command: strict, and escaped where stdout is not UTF-8."""
    utf8 = (sys.stdout.encoding or "utf-8").lower().replace("-", "") == "utf8"
    print(to_json(document, ensure_ascii=not utf8, indent=2), flush=True)


def bold(text: str) -> str:
    """Bold on a terminal."""
    return f"\x1b[1m{text}\x1b[0m" if sys.stdout.isatty() and not os.environ.get("NO_COLOR") else text


def table(head: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[int] = ()) -> Iterator[str]:
    """Aligned lines; columns in `right` are numbers. The last column is cut where a terminal ends."""
    cells = [list(head), *map(list, rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    room = shutil.get_terminal_size((120, 24)).columns if sys.stdout.isatty() else None
    for number, row in enumerate(cells):
        parts = [c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        line = "  ".join(parts).rstrip()
        if room is not None and len(line) > room:
            line = line[: room - 1] + "…"
        yield bold(line) if number == 0 else line


def short_count(number: int) -> str:
    """1,234,567 → `1.2M`."""
    for unit, size in (("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            return f"{number / size:.3g}{unit}" if number < 999.5 * size else f"{number / size:.0f}{unit}"
    return str(number)


class _Silent:
    def advance(self, note: str = "", count: int = 1) -> None:
        """Nobody watches."""


class _Drawn:
    def __init__(self, progress: Any, task: Any):
        self._progress, self._task = progress, task

    def advance(self, note: str = "", count: int = 1) -> None:
        self._progress.update(self._task, advance=count, note=note)


@contextmanager
def bar(title: str, total: int, *, done: int = 0, when: bool = True) -> Iterator[Bar]:
    """A progress bar on stderr, where stderr is a terminal (and `when`)."""
    if not when or not sys.stderr.isatty():
        yield _Silent()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Column

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=12),
        MofNCompleteColumn(table_column=Column(no_wrap=True, min_width=len(f"{total}/{total}"))),
        TimeRemainingColumn(table_column=Column(no_wrap=True, min_width=7)),
        TextColumn("{task.fields[note]}", table_column=Column(no_wrap=True, overflow="ellipsis")),
    )  # the note alone is cut where a terminal ends
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield _Drawn(progress, progress.add_task(title, total=total, completed=done, note=""))
