"""Work on a folder that is done in units and resumes after any interruption."""

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rebus.core.atomic_write import DRAFT, cannot_write, write_file_atomically
from rebus.core.errors import RebusError, UsageError
from rebus.core.folder_lock import locked
from rebus.core.strict_json import to_json

PLAN = "plan.json"
UNITS = "units"


def lines_of(rows: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    """JSON lines. What JSON does not have becomes a text, lone surrogates are escaped."""
    for row in rows:
        yield to_json(row, default=str).encode("ascii") + b"\n"


class Units:
    """A folder that is filled in units, each done wholly or not at all.

    `plan.json` says what is being done. A unit writes its files first and then `units/00000.jsonl`, its journal, by
    which it exists; a unit without one is done again and overwrites what it left. When all are there, `finish` writes
    the last file, by which the work is done, and removes `units/`. One process at a time may work on a folder.
    """

    def __init__(self, folder: Path, plan: Mapping[str, Any], last: str):
        self.folder, self.plan, self.last = folder, dict(plan), folder / last

    @contextmanager
    def opened(self) -> Iterator["Units"]:
        """Make or take up the folder. Raises `UsageError` for a folder of other work, `CannotWrite`."""
        if self.folder.is_dir():
            self._check_plan()  # before a lock is left in a folder of other things
        with locked(self.folder):
            try:
                self._check_plan()
                self._begin()
            except OSError as error:
                raise cannot_write(self.folder, error) from error
            yield self

    def _begin(self) -> None:
        if not (self.folder / PLAN).exists():
            with write_file_atomically(self.folder / PLAN) as file:
                file.write(to_json(self.plan, indent=1).encode())
        (self.folder / UNITS).mkdir(exist_ok=True)
        for where in (self.folder, self.folder / UNITS):
            for draft in where.glob(f".*{DRAFT}"):
                shutil.rmtree(draft) if draft.is_dir() else draft.unlink()
        if self.finished:
            self._tidy()

    @property
    def finished(self) -> bool:
        return self.last.exists()

    def journal(self, unit: int) -> Path:
        return self.folder / UNITS / f"{unit:05d}.jsonl"

    def missing(self, count: int) -> list[int]:
        """The units of 0 to `count` that are still to be done."""
        return [unit for unit in range(count) if not self.journal(unit).exists()]

    def commit(self, unit: int, rows: Iterable[Mapping[str, Any]]) -> None:
        """The unit is done: its files are written already."""
        with write_file_atomically(self.journal(unit)) as file:
            file.writelines(lines_of(rows))

    def rows(self, unit: int) -> Iterator[dict[str, Any]]:
        """The journal of a unit."""
        with open(self.journal(unit), "rb") as file:
            yield from map(json.loads, file)

    def finish(self, rows: Iterable[Mapping[str, Any]]) -> None:
        with write_file_atomically(self.last) as file:
            file.writelines(lines_of(rows))
        self._tidy()

    def _tidy(self) -> None:
        shutil.rmtree(self.folder / UNITS, ignore_errors=True)

    def _check_plan(self) -> None:
        path = self.folder / PLAN
        if not path.exists():
            strange = [p.name for p in self.folder.iterdir() if not p.name.startswith(".")]
            if strange:
                raise UsageError(
                    f"{self.folder}: has other files in it ({strange[0]}); choose an empty folder for --out"
                )
            return
        try:
            before = json.loads(path.read_bytes())
        except ValueError:
            raise RebusError(f"{path}: damaged; choose another folder for --out") from None
        for name in before | self.plan:
            was, now = before.get(name), json.loads(to_json(self.plan.get(name)))
            if was != now:
                raise UsageError(
                    f"{self.folder}: was started with {name} {_short(was)}, and now it is {_short(now)}; "
                    "use the same options, or choose another folder for --out"
                )


def _short(value: Any) -> str:
    text = to_json(value)
    return text if len(text) <= 100 else text[:99] + "…"
