"""What a teacher makes of regions: its embeddings, written once and read in training.

A folder of them holds, for each unit of records, `00000.safetensors` (`boxes` (R, 4) in pixels of the image, `vectors`
(R, E) float16, of all its records one after another), `regions.jsonl` with a line for each record (its key, its unit,
its first row and the one after its last), and `labels.safetensors` with the texts of the data set's labels.
"""

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from rebus.core.errors import MissingFile, RebusError, UsageError, unknown

REGIONS, LABELS = "regions.jsonl", "labels.safetensors"
NAMES = "names"  # in the metadata of `LABELS`: a JSON list, in the order of its rows


def unit_file(unit: int) -> str:
    return f"{unit:05d}.safetensors"


class TaughtRegions:
    """The embeddings in a folder. Raises `MissingFile` where it is not finished, `RebusError` where it is damaged."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        try:
            lines = (self.folder / REGIONS).read_bytes().splitlines()
        except FileNotFoundError:
            raise MissingFile(
                f"{self.folder}: no {REGIONS}. `rebus data regions … --out {self.folder}` writes it, and resumes an "
                "interrupted run"
            ) from None
        try:
            self._rows = {
                line["key"]: (line["unit"], *line["rows"]) for line in map(json.loads, lines) if "rows" in line
            }
            with safe_open(self.folder / LABELS, "numpy") as file:
                self._names: list[str] = json.loads(file.metadata()[NAMES])
                self._labels: np.ndarray = file.get_tensor("vectors")
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise RebusError(f"{self.folder}: damaged ({error}); embed the regions again") from None

    @property
    def width(self) -> int:
        """Numbers of an embedding."""
        return int(self._labels.shape[1])

    def of(self, key: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Boxes (R, 4) float32 and vectors (R, E) float16 of a record; None for one that was not embedded."""
        if key not in self._rows:
            return None
        unit, first, last = self._rows[key]
        file = _opened(self.folder / unit_file(unit))
        return file.get_slice("boxes")[first:last], file.get_slice("vectors")[first:last]

    def labels(self, names: Sequence[str]) -> np.ndarray:
        """(C, E) float32: the texts of these labels. Raises `UnknownName` for one that the data set did not have."""
        places = {name: row for row, name in enumerate(self._names)}
        for name in names:
            if name not in places:
                raise unknown("label among those that the teacher was given", name, places)
        return self._labels[[places[name] for name in names]]

    def check_width(self, width: int) -> None:
        """Raises `UsageError` where a detector embeds regions in another space."""
        if self.width != width:
            raise UsageError(
                f"{self.folder}: the teacher's embeddings have {self.width} numbers, the detector's {width} "
                "(model.embed)"
            )


@lru_cache(maxsize=64)
def _opened(path: Path) -> Any:
    try:
        return safe_open(path, "numpy").__enter__()
    except (OSError, SafetensorError) as error:
        raise RebusError(f"{path}: cannot be read ({error}); embed the regions again") from None
