"""Conditions on the files that a search gives: date, folder, size, kind, labels."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from rebus.core.errors import UsageError
from rebus.index.snapshot import Snapshot

_LABEL = re.compile(r"(?P<label>.+?)\s*(?P<sign>[<>])\s*(?P<number>\d*\.?\d+)\s*$")
_SIZE = re.compile(r"(\d+)\s*[x×]\s*(\d+)")


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """All of them hold. `since`, `until`: seconds, of which the second is not included; `under`: a folder below the
    root; `larger`: least sides, in either order; `kinds`: formats as Pillow calls them, or endings; `labels`: (label,
    "<" or ">", probability)."""

    since: float | None = None
    until: float | None = None
    under: str | None = None
    larger: tuple[int, int] | None = None
    kinds: tuple[str, ...] = ()
    labels: tuple[tuple[str, str, float], ...] = ()

    def met_by(self, snapshot: Snapshot) -> np.ndarray:
        """(N,) of the rows that have a vector; labels are left to `labelled`."""
        kept = np.ones(len(snapshot), dtype=bool)
        if self.since is not None:
            kept &= snapshot.column("taken") >= self.since
        if self.until is not None:
            kept &= snapshot.column("taken") < self.until
        if self.larger is not None:
            sides = np.sort(np.stack([snapshot.column("width"), snapshot.column("height")]), axis=0)
            kept &= (sides >= np.sort(self.larger)[:, None]).all(axis=0)
        if self.under is not None:
            folder = os.fsencode(self.under.strip("/")) + b"/"
            kept &= np.array([path.startswith(folder) for path in snapshot.paths[: len(snapshot)]], dtype=bool)
        if self.kinds:
            wanted = {_KINDS.get(kind.lower().lstrip("."), kind.upper()) for kind in self.kinds}
            kept &= np.array([kind in wanted for kind in snapshot.column("format")], dtype=bool)
        return kept

    def labelled(self, probabilities: np.ndarray, labels: Sequence[str]) -> np.ndarray:
        """(N,) from probabilities (N, labels)."""
        kept = np.ones(len(probabilities), dtype=bool)
        for label, sign, number in self.labels:
            column = probabilities[:, list(labels).index(label)]
            kept &= column > number if sign == ">" else column < number
        return kept


EVERYTHING = Conditions()
_KINDS = {"jpg": "JPEG", "jpe": "JPEG", "jfif": "JPEG", "tif": "TIFF", "heic": "HEIF", "dib": "BMP", "apng": "PNG"}


def read_label(text: str) -> tuple[str, str, float]:
    """ "dog>0.5". Raises `UsageError`."""
    found = _LABEL.match(text)
    if found is None or float(found["number"]) > 1:
        raise UsageError(f'--label expects a label, > or <, and a probability, like "dog>0.5"; got {text!r}')
    return found["label"].strip(), found["sign"], float(found["number"])


def read_size(text: str) -> tuple[int, int]:
    """ "1920x1080". Raises `UsageError`."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"--larger expects width x height in pixels, like 1920x1080; got {text!r}")
    return int(found[1]), int(found[2])


def read_date(text: str, end: bool = False) -> float:
    """Seconds of a local date: 2024, 2024-05, 2024-05-31, or with a time, 2024-05-31T18:30. `end`: of the moment after
    the year, month, day or minute. Raises `UsageError`."""
    for form in ("%Y", "%Y-%m", "%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"):
        try:
            found = datetime.strptime(text.strip(), form)
        except ValueError:
            continue
        try:
            return (_after(found, form) if end else found).timestamp()
        except (OverflowError, OSError, ValueError):
            break
    raise UsageError(f"a date is like 2024, 2024-05, 2024-05-31 or 2024-05-31T18:30; got {text!r}")


def _after(moment: datetime, form: str) -> datetime:
    if form == "%Y":
        return moment.replace(year=moment.year + 1)
    if form == "%Y-%m":
        return (moment + timedelta(days=32)).replace(day=1)
    return moment + (timedelta(days=1) if form == "%Y-%m-%d" else timedelta(minutes=1))
