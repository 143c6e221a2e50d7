"""A whole download: a table of addresses in, shards and a journal out; begun as often as need be.

The rows are cut into units of `shard_size`. A unit is done when its journal is there, which names its shard and is
written after it, both in `units/`; one that was cut off is done again from its first row. When all are done, their
journals are compared: of an image that came in several units, the first stays. What stays follows from the journals
alone, so that what comes now may be cut off and done again: each shard goes to its place, `00000.tar`, without the
images that came before. Then `journal.jsonl` is written, with one line for each row, and the download is done.
"""

import itertools
import json
import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rebus.core.atomic_write import flush, write_file_atomically
from rebus.data.downloading.download_unit import Report, Settings, do_unit
from rebus.data.downloading.url_rows import Rows
from rebus.data.over_ray import over_ray
from rebus.data.resumable_units import UNITS, Units
from rebus.data.tar_shards import copy_without, shard_name

JOURNAL = "journal.jsonl"
SAME_URLS = "same_urls.npy"
Over = Literal["threads", "ray"]


class Download:
    """The images of `tables` into `folder`. `over` "ray": units are spread over a Ray cluster that shares the folder.

    Opening it reads what the files say about themselves. Raises `UsageError`, `MissingFile`, `MissingExtra`.
    """

    def __init__(self, tables: Sequence[Path], folder: Path, settings: Settings, over: Over = "threads"):
        self.rows = Rows(tables, settings.url, settings.text)
        self.settings, self.over = settings, over
        self.count = -(-len(self.rows) // settings.shard_size)
        plan = {
            "work": "download",
            "tables": self.rows.describe(),
            "shard_size": settings.shard_size,
            "resize": settings.fitting.resize,
            "quality": settings.fitting.quality if settings.fitting.resize else None,
            "phash": settings.phash,
            "url": self.rows.url,
            "text": self.rows.text,
        }
        self.units = Units(folder, plan, JOURNAL)

    @property
    def done(self) -> int:
        """Rows whose unit is done already."""
        if self.units.finished:
            return len(self.rows)
        return sum(self._size(unit) for unit in range(self.count) if self._is_done(unit))

    def run(self, report: Report = lambda outcome: None) -> Counter[str]:
        """Do what is left to do; how many rows had each outcome. `report` hears them as they come.

        Raises `CannotWrite`, `NetworkError`, `UsageError`; what was finished stays, and the next run goes on.
        """
        with self.units.opened():
            if not self.units.finished:
                while missing := [unit for unit in range(self.count) if not self._is_done(unit)]:
                    self._fetch(missing, report)
                self.units.finish(settled(self.units, self.count))
            return outcomes(self.units.last)

    def _fetch(self, missing: Sequence[int], report: Report) -> None:
        same_urls = self._same_urls()
        if self.over == "ray":
            _over_ray(self, missing, report)
            return
        for unit in missing:
            do_unit(self.units, unit, self.rows, self.part(same_urls, unit), self.settings, report)

    def part(self, same_urls: np.ndarray, unit: int) -> np.ndarray:
        start = unit * self.settings.shard_size
        return np.asarray(same_urls[start : start + self.settings.shard_size])

    def _is_done(self, unit: int) -> bool:
        if not self.units.journal(unit).exists():
            return False
        return (self.units.folder / shard_name(unit)).exists() or _fetched_shard(self.units, unit).exists()

    def _size(self, unit: int) -> int:
        return min(self.settings.shard_size, len(self.rows) - unit * self.settings.shard_size)

    def _same_urls(self) -> np.ndarray:
        path = self.units.folder / UNITS / SAME_URLS
        if not path.exists():
            with write_file_atomically(path) as file:
                np.save(file, self.rows.same_urls(), allow_pickle=False)
        found: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
        return found


def settled(units: Units, count: int) -> Iterator[dict[str, Any]]:
    """The lines of all units, with images of earlier rows named. Each shard is put in its place before."""
    same = _same_images(units, count)
    for unit in range(count):
        lines = _lines(units, unit)
        _place(units, unit, {line["key"] for line in lines if line["row"] in same})
        for line in lines:
            if line["row"] in same:
                kept: dict[str, Any] = {name: line[name] for name in ("sha256", "url") if name in line}
                yield {"row": line["row"], "outcome": "same_image", "of": same[line["row"]], **kept}
            else:
                yield line


def _place(units: Units, unit: int, gone: Collection[str]) -> None:
    """The shard of a unit goes to its place, without the samples `gone`."""
    fetched, shard = _fetched_shard(units, unit), units.folder / shard_name(unit)
    if not fetched.exists():  # it went before the last end
        return
    if not gone:
        os.replace(fetched, shard)
        with suppress(OSError):  # some file systems flush no directory
            flush(shard.parent)
        return
    with write_file_atomically(shard) as file:
        copy_without(fetched, gone, file)
    fetched.unlink()


def _fetched_shard(units: Units, unit: int) -> Path:
    return units.folder / UNITS / str(next(units.rows(unit))["shard"])


def _lines(units: Units, unit: int) -> list[dict[str, Any]]:
    """The lines about rows, which come after the one about the shard, in the order of the rows."""
    return sorted(itertools.islice(units.rows(unit), 1, None), key=lambda line: int(line["row"]))


def _same_images(units: Units, count: int) -> dict[int, int]:
    """Row → the first row with the same image, whichever of them arrived first."""
    rows: list[int] = []
    digests: dict[str, list[bytes]] = {"sha256": [], "phash": []}
    for unit in range(count):
        for line in _lines(units, unit):
            if line["outcome"] == "ok":
                rows.append(line["row"])
                digests["sha256"].append(bytes.fromhex(line["sha256"])[:16])
                digests["phash"].append(line.get("phash", f"row {line['row']}").encode())
    same: dict[int, int] = {}
    for column in digests.values():
        _, first, inverse = np.unique(np.array(column, dtype=np.bytes_), return_index=True, return_inverse=True)
        for place in np.flatnonzero(first[inverse] < np.arange(len(rows))):
            same.setdefault(rows[place], rows[first[inverse[place]]])
    return same


def outcomes(journal: Path) -> Counter[str]:
    """How many rows of a finished journal had each outcome."""
    with open(journal, "rb") as file:
        return Counter(json.loads(line)["outcome"] for line in file)


def _over_ray(download: Download, missing: Sequence[int], report: Report) -> None:
    """Each unit is one task with its own threads."""
    for row in over_ray([{"unit": unit} for unit in missing], RayUnit(download)):
        for outcome in row["outcomes"]:
            report(str(outcome))


class RayUnit:
    """`do_unit` as a function of a row of a Ray data set."""

    def __init__(self, download: Download):
        self.tables = [file.resolve() for file in download.rows.files]
        self.folder, self.settings, self.plan = download.units.folder.resolve(), download.settings, download.units.plan

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        unit = int(row["unit"])
        download = Download(self.tables, self.folder, self.settings)
        heard: list[str] = []
        same_urls = download.part(np.load(self.folder / UNITS / SAME_URLS, mmap_mode="r", allow_pickle=False), unit)
        do_unit(download.units, unit, download.rows, same_urls, self.settings, heard.append)
        return {"unit": unit, "outcomes": heard}
