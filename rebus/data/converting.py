"""Convert any image data set: to shards, to a folder with a table, or to fewer rows of Parquet.

The records are cut into units of `shard_size`; each becomes one shard. A unit counts when its journal is there, which
is written after its files; one that was cut off is done again. When all are done, `skipped.jsonl` names the damaged
records and files, and the conversion is done.
"""

import itertools
import shutil
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rebus.core.atomic_write import write_file_atomically, write_folder_atomically
from rebus.core.errors import RebusError, UsageError
from rebus.data.annotated_size import PixelsOfImages, has_places, resized
from rebus.data.damaged_files import check_files
from rebus.data.filters import Sifted
from rebus.data.layouts.coyo import Parquet
from rebus.data.record import BadRecord, Reader, Record
from rebus.data.record_to_json import facts_of, image_of, row_of
from rebus.data.resize_images import Fitted, Fitting, fit
from rebus.data.resumable_units import Units, lines_of
from rebus.data.tar_shards import TarWriter, key_of, shard_name

SKIPPED, TABLE = "skipped.jsonl", "captions.jsonl"
LEAST_SEEN = 100  # records before too many can be damaged
To = Literal["webdataset", "folder", "parquet"]
LineIndex = Generator[dict[str, Any], None, None]
Report = Callable[[str], None]  # hears "written" or why a record was not


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """`to`: the layout to write. `most_damaged`: the share of records, and of files, above which a conversion stops."""

    to: To = "webdataset"
    shard_size: int = 10_000
    fitting: Fitting = field(default_factory=Fitting)
    most_damaged: float = 0.1
    threads: int = 2


@dataclass(frozen=True)
class Counts:
    """Records written and skipped, and the files of which some records could not even be found."""

    written: int
    skipped: int
    damaged_files: int = 0


class Converter:
    """Writes the records of `reader` into `folder`. `source`: what tells this work from other work, for its plan.

    Raises `UsageError` for a layout that cannot hold them.
    """

    def __init__(self, reader: Reader, folder: Path, source: Mapping[str, Any], settings: Conversion):
        self.reader, self.settings = reader, settings
        self.in_pixels = PixelsOfImages(str(source.get("source", "the data set")))
        self.ends = np.cumsum([0, *reader.sizes], dtype=np.int64)
        if settings.to == "parquet" and not without_images(reader):
            raise UsageError("only Parquet files of URLs without images are written as Parquet")
        fitting = settings.fitting
        plan = {
            **source,
            "records": self.total,
            "to": settings.to,
            "shard_size": settings.shard_size,
            "resize": fitting.resize,
            "quality": fitting.quality if fitting.resize else None,
        }
        self.units = Units(folder, plan, SKIPPED)
        self.count = -(-self.total // settings.shard_size)

    @property
    def total(self) -> int:
        return int(self.ends[-1])

    @property
    def done(self) -> int:
        """Records that are done already."""
        if self.units.finished:
            return self.total
        left = self.units.missing(self.count)
        return self.total - sum(len(self._numbers(unit)) for unit in left)

    def run(self, report: Report = lambda outcome: None) -> Counts:
        """Do what is left to do. Raises `CannotWrite`; `RebusError` when too many records or files are damaged."""
        faults = check_files(self.reader, self.settings.most_damaged, "allow more (most_damaged, --max-bad)")
        with self.units.opened():
            if self.units.finished:
                with open(self.units.last, "rb") as file:
                    skipped = sum(b'"skipped"' in line for line in file)
                return Counts(self.total - skipped, skipped, len(faults))
            counts = self._counts()
            for unit in self.units.missing(self.count):
                counts = self._unit(unit, counts, report)
            if not counts.written and counts.skipped:
                first = next(self._skipped())
                raise RebusError(f"none of {self.total:,} records could be written; the first: {_said(first)}")
            if self.settings.to == "folder":
                with write_file_atomically(self.units.folder / TABLE) as file:
                    file.writelines(lines_of(line["row"] for line in self._lines() if "row" in line))
            self.units.finish(itertools.chain(({"damaged_file": fault} for fault in faults), self._skipped()))
            return replace(counts, damaged_files=len(faults))

    def _unit(self, unit: int, counts: Counts, report: Report) -> Counts:
        places = [self._place(number) for number in self._numbers(unit)]
        if self.settings.to == "parquet":
            self._write_parquet(unit, places)
            journal: list[dict[str, Any]] = [{"written": len(places)}]
            for _ in places:
                report("written")
        else:
            journal = [{"written": 0}]
            write = self._write_tar if self.settings.to == "webdataset" else self._write_folder
            with closing(write(unit, self._samples(places))) as lines:
                for seen, line in enumerate(lines, start=1):
                    if line:
                        journal.append(line)
                    journal[0]["written"] += "skipped" not in line
                    report(line.get("skipped", "written"))
                    if "skipped" in line:
                        skipped = counts.skipped + seen - journal[0]["written"]
                        self._check(skipped, counts.written + counts.skipped + seen, line)
        self.units.commit(unit, journal)
        written = int(journal[0]["written"])
        return Counts(counts.written + written, counts.skipped + len(places) - written)

    def _write_tar(self, unit: int, samples: Iterable["Sample"]) -> LineIndex:
        """A line for each record: empty, or why it was skipped."""
        with write_file_atomically(self.units.folder / shard_name(unit)) as file, closing(TarWriter(file)) as tar:
            for number, sample in enumerate(samples):
                if sample.fitted is None:
                    yield sample.line
                    continue
                key = key_of(unit, number, self.settings.shard_size)
                record = sample.record
                caption = record.captions[0] if record.captions else None
                facts = facts_of(record, key, sample.fitted)
                tar.add(key, sample.fitted.data, sample.fitted.ending, caption, facts, record.label)
                yield {}

    def _write_folder(self, unit: int, samples: Iterable["Sample"]) -> LineIndex:
        """A line for each record: its row of the table, or why it was skipped."""
        target = self.units.folder / f"{unit:05d}"
        with write_folder_atomically(target) as draft:
            for number, sample in enumerate(samples):
                if sample.fitted is None:
                    yield sample.line
                    continue
                name = f"{key_of(unit, number, self.settings.shard_size)}.{sample.fitted.ending}"
                (draft / name).write_bytes(sample.fitted.data)
                yield {"row": row_of(sample.record, f"{target.name}/{name}", sample.fitted)}
            shutil.rmtree(target, ignore_errors=True)  # of a unit that was cut off before its journal

    def _write_parquet(self, unit: int, places: list[tuple[int, int]]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        with write_file_atomically(self.units.folder / f"{unit:05d}.parquet") as file:
            tables = [table_of(self.reader, block, rows) for block, rows in _by_block(places)]
            pq.write_table(pa.concat_tables(tables), file)

    def _samples(self, places: list[tuple[int, int]]) -> Iterator["Sample"]:
        """In order, several at a time."""
        with ThreadPoolExecutor(self.settings.threads) as pool:
            step = 8 * self.settings.threads
            for start in range(0, len(places), step):
                yield from pool.map(self._sample, places[start : start + step])

    def _sample(self, place: tuple[int, int]) -> "Sample":
        key = f"block {place[0]}, row {place[1]}"
        record = Record(key=key)
        try:
            record = self.reader.read(*place)
            fitted = fit(image_of(record), self.settings.fitting)
            if has_places(record):
                record = self.in_pixels(record, fitted.original)
                if fitted.size != fitted.original:
                    record = resized(record, fitted.original, fitted.size, fitted.scale)
            return Sample(record, fitted)
        except BadRecord as error:
            return Sample(record, None, error.key, error.reason)
        except (RebusError, OSError) as error:
            return Sample(record, None, record.key, str(error))

    def _check(self, skipped: int, seen: int, line: Mapping[str, Any]) -> None:
        if seen >= LEAST_SEEN and skipped > self.settings.most_damaged * seen:
            raise RebusError(
                f"{skipped:,} of the first {seen:,} records are damaged, more than the fraction "
                f"{self.settings.most_damaged:g}; the last: {_said(line)}. To continue anyway, allow more"
            )

    def _numbers(self, unit: int) -> range:
        start = unit * self.settings.shard_size
        return range(start, min(start + self.settings.shard_size, self.total))

    def _place(self, number: int) -> tuple[int, int]:
        block = int(np.searchsorted(self.ends, number, side="right")) - 1
        return block, number - int(self.ends[block])

    def _counts(self) -> Counts:
        written = skipped = 0
        for unit in range(self.count):
            for line in self.units.rows(unit) if self.units.journal(unit).exists() else ():
                written += line.get("written", 0)
                skipped += "skipped" in line
        return Counts(written, skipped)

    def _lines(self) -> Iterator[dict[str, Any]]:
        for unit in range(self.count):
            yield from self.units.rows(unit)

    def _skipped(self) -> Iterator[dict[str, Any]]:
        return (line for line in self._lines() if "skipped" in line)


@dataclass(frozen=True)
class Sample:
    """A record and its image, or the key and the reason for which there is none."""

    record: Record
    fitted: Fitted | None
    key: str = ""
    reason: str = ""

    @property
    def line(self) -> dict[str, Any]:
        return {"key": self.key, "skipped": self.reason}


def without_images(reader: Reader) -> bool:
    """Whether these are Parquet files of addresses."""
    inner = reader.reader if isinstance(reader, Sifted) else reader
    return isinstance(inner, Parquet) and inner.image is None


def table_of(reader: Reader, block: int, rows: list[int]) -> Any:
    """Rows of a row group with all their columns."""
    import pyarrow.parquet as pq

    if isinstance(reader, Sifted):
        rows, reader = [int(reader.rows[block][row]) for row in rows], reader.reader
    assert isinstance(reader, Parquet)
    file, group = (int(n) for n in reader.groups[block][:2])
    with pq.ParquetFile(reader.files[file]) as opened:
        return opened.read_row_group(group, use_threads=False).take([reader.row_in_group(block, row) for row in rows])


def _by_block(places: list[tuple[int, int]]) -> Iterator[tuple[int, list[int]]]:
    found: dict[int, list[int]] = {}
    for block, row in places:
        found.setdefault(block, []).append(row)
    yield from found.items()


def _said(line: Mapping[str, Any]) -> str:
    text = f"{line['key']}: {line['skipped']}"
    return text if len(text) <= 300 else text[:299] + "…"
