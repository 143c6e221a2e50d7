"""One unit of a download: some rows in, one shard and one journal out, or nothing.

A unit knows nothing of other units, so that units can be done in any order, on any machine, and again.
"""

import hashlib
import queue
import random
import secrets
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from rebus.codec.image_formats import kind_of
from rebus.core.atomic_write import write_file_atomically
from rebus.core.errors import LimitExceeded, MissingExtra, NetworkError, RebusError
from rebus.core.limits import check
from rebus.core.memory_budget import MemoryBudget
from rebus.data.annotated_size import PixelsOfImages, has_places, resized
from rebus.data.downloading.addresses import Addresses
from rebus.data.downloading.failure import OFFLINE, Failure
from rebus.data.downloading.fetching import Caps, fetch
from rebus.data.downloading.host_scheduler import HostScheduler, Job
from rebus.data.downloading.url_rows import PHASH, Rows
from rebus.data.reading.row_to_record import any_case, record_of
from rebus.data.record import BadRecord
from rebus.data.record_to_json import annotations_of
from rebus.data.resize_images import ENDING, Fitted, Fitting, fit
from rebus.data.resumable_units import UNITS, Units
from rebus.data.tar_shards import TarWriter, key_of, shard_name

_LEAST = 50  # rows of a unit, of ten hosts, none of which came: then the network is off
_LEAST_HOSTS = 10
_WAITING = 16  # images that wait to be written
_memory = MemoryBudget("MAX_DOWNLOAD_MEMORY")
_IN_PIXELS = ("boxes", "phrases")  # columns that readers of shards take for places in the image


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How images are fetched and kept. `retries`: further tries of a row. `per_host`: requests at once to one host.

    `phash`: images are also the same where COYO's column `image_phash` says so. `url`, `text`: names of columns.
    """

    caps: Caps = field(default_factory=Caps)
    threads: int = 16
    retries: int = 2
    per_host: int = 4
    shard_size: int = 10_000
    fitting: Fitting = field(default_factory=Fitting)
    phash: bool = False
    url: str | None = None
    text: str | None = None
    addresses: Addresses = field(default_factory=Addresses)

    def __post_init__(self) -> None:
        check("MAX_DOWNLOAD_MEMORY", self.caps.max_bytes, "max_bytes of one file")


@dataclass(frozen=True)
class Came:
    """What came of a row: an image, or a failure."""

    row: int
    image: Fitted | None
    sha256: str = ""
    failure: Failure | None = None


Report = Callable[[str], None]  # hears the outcome of each row


def do_unit(
    units: Units,
    unit: int,
    rows: Rows,
    same_urls: np.ndarray,
    settings: Settings,
    report: Report = lambda outcome: None,
) -> None:
    """Fetch the rows of a unit, write its shard, then its journal: one line for each row, in the order they came.

    The shard has a name of its own, which the first line of the journal tells: should two machines do the same unit,
    since one was thought lost, then one journal counts, and the shard that belongs to it.

    Raises `CannotWrite`, `NetworkError` where nothing can be reached at all. The unit is then not done.
    """
    start = unit * settings.shard_size
    stop = min(start + settings.shard_size, len(rows))
    journal: list[dict[str, Any]] = []
    values: dict[int, Mapping[str, Any]] = {}
    jobs: list[Job] = []

    def note(row: int, outcome: str, **more: Any) -> None:
        journal.append({"row": row, "outcome": outcome, **more})
        report(outcome)

    def told(url: str) -> dict[str, str]:
        return {"url": url} if rows.lists else {}  # by which the images of pages are found again

    for number, value in rows.between(start, stop):
        url = None if value is None else value.get(rows.url)
        if value is None:
            note(number, "bad_row")
        elif not isinstance(url, str) or not url:
            note(number, "bad_url", why="no address")
        elif same_urls[number - start] != number:
            note(number, "same_url", of=int(same_urls[number - start]), **told(url))
        else:
            values[number] = value
            jobs.append(Job(number, url, _host(url)))

    in_pixels = PixelsOfImages(str(rows.files[0]))
    shard = units.folder / UNITS / f"{unit:05d}-{secrets.token_hex(8)}.tar"
    with write_file_atomically(shard) as file, closing(TarWriter(file)) as tar:
        guard = _Online()
        with closing(_fetched(jobs, settings)) as arriving:
            for came in arriving:
                guard.check(came, values[came.row][rows.url])
                if came.image is None:
                    assert came.failure is not None
                    note(came.row, came.failure.outcome, why=came.failure.why)
                    continue
                value = values[came.row]
                more = told(value[rows.url])
                names = {"sha256": came.sha256} | ({"phash": str(value[PHASH])} if _phash(value, settings) else {})
                key = key_of(unit, came.row - start, settings.shard_size)
                text = value.get(rows.text)
                text = text if isinstance(text, str) else None
                try:
                    said = _in_image(_facts(value, rows, text), came, rows, in_pixels)
                except BadRecord as error:
                    note(came.row, "annotations", why=error.reason)
                    continue
                facts = {"key": key, "status": "success", "row": came.row, **came.image.facts, "sha256": came.sha256}
                tar.add(key, came.image.data, came.image.ending, text, said | facts)
                note(came.row, "ok", shard=shard_name(unit), key=key, **names, **more)
    units.commit(unit, [{"shard": shard.name}, *journal])


def _facts(value: Mapping[str, Any], rows: Rows, text: str | None) -> dict[str, Any]:
    others = {name: cell for name, cell in value.items() if name not in (rows.url, rows.text, *_bytes(value))}
    return {**others, "url": value[rows.url], "caption": text}


def _in_image(facts: Mapping[str, Any], came: Came, rows: Rows, in_pixels: PixelsOfImages) -> dict[str, Any]:
    """The facts of a row, their boxes and phrases in the pixels of the image as it is written. Raises `BadRecord`."""
    assert came.image is not None
    key = f"row {came.row}"
    said = any_case(facts)
    words = rows.in_words(came.row, {name: said.get(name) for name in (*_IN_PIXELS, "objects")}, key)
    size = {side: said.get(side) for side in ("width", "height")}
    record = record_of({name: words.get(name) for name in _IN_PIXELS} | size, key, None)
    if not has_places(record):
        return dict(facts)
    record = in_pixels(record, came.image.original)
    record = resized(record, came.image.original, came.image.size, came.image.scale)
    now_boxes = {"objects"} - words.keys()
    rest = {name: value for name, value in facts.items() if name.lower() not in {*_IN_PIXELS, *now_boxes}}
    return rest | annotations_of(record)


def _bytes(value: Mapping[str, Any]) -> list[str]:
    """Columns that JSON cannot hold."""
    return [name for name, cell in value.items() if isinstance(cell, bytes)]


def _phash(value: Mapping[str, Any], settings: Settings) -> bool:
    return settings.phash and value.get(PHASH) is not None


def _host(url: str) -> str:
    try:
        return urlsplit(url).netloc.lower()
    except ValueError:
        return ""


class _Online:
    """Stops a run whose network is off, before all rows are noted as lost."""

    def __init__(self) -> None:
        self.hosts: set[str] = set()
        self.tried, self.came = 0, False

    def check(self, came: Came, url: str) -> None:
        self.came = self.came or came.failure is None or came.failure.outcome not in OFFLINE
        if self.came:
            return
        self.tried += 1
        self.hosts.add(_host(url))
        if self.tried >= _LEAST and len(self.hosts) >= _LEAST_HOSTS:
            assert came.failure is not None
            raise NetworkError(
                f"none of {self.tried} images of {len(self.hosts)} hosts could be reached ({came.failure.why}); "
                "is the network up? Run the same command to resume"
            )


def _fetched(jobs: list[Job], settings: Settings) -> Generator[Came, None, None]:
    """What comes of the jobs, as it comes. Closing it ends the threads soon: they touch no files.

    Bytes of all threads together stay within MAX_DOWNLOAD_MEMORY, but for the few images that wait to be written.
    """
    turns = HostScheduler(jobs, settings.per_host)
    arrived: queue.Queue[Came] = queue.Queue(maxsize=min(2 * settings.threads, _WAITING))

    def put(came: Came) -> None:
        while not turns.closed:
            with suppress(queue.Full):
                arrived.put(came, timeout=0.5)
                break

    def work() -> None:
        while (job := turns.take()) is not None:
            with ExitStack() as held:
                came = _try(job, settings, lambda: turns.closed, held)
                failure = came.failure
                if failure is not None and failure.again and job.tries < settings.retries:
                    wait = max(failure.after, 2.0**job.tries * random.uniform(0.5, 1.0) * settings.caps.timeout / 10)
                    job.tries += 1
                    turns.again(job, wait)
                else:
                    put(came)
                    turns.finish(job)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(settings.threads, len(jobs)))]
    try:
        for thread in threads:
            thread.start()
        for _ in jobs:
            yield arrived.get()
    finally:
        turns.close()


def _try(job: Job, settings: Settings, stopped: Callable[[], bool], held: ExitStack) -> Came:
    def hold(size: int) -> None:
        held.enter_context(_memory.held(size, job.url[:80]))

    try:
        data = fetch(job.url, settings.caps, settings.addresses, stopped, hold)
        return Came(job.row, _opened(data, settings.fitting), hashlib.sha256(data).hexdigest())
    except Failure as failure:
        return Came(job.row, None, failure=failure)
    except Exception as error:  # a row may not end the run, whatever a stranger's server sends
        return Came(job.row, None, failure=Failure("broken", f"{type(error).__name__}: {str(error)[:200]}"))


def _opened(data: bytes, fitting: Fitting) -> Fitted:
    kind = kind_of(data[:512]) if data else "an empty file"
    if kind not in ENDING:
        raise Failure("no_image", f"not an image, but {kind}")
    try:
        return fit(data, fitting)
    except LimitExceeded as error:
        raise Failure("limit", str(error)) from None
    except MissingExtra as error:
        raise Failure("no_decoder", str(error)) from None
    except RebusError as error:
        raise Failure("damaged", str(error)) from None
