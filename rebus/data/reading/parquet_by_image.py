"""Rows of Parquet about the same image, by its bytes: a row for each caption is one image with several captions."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rebus.data.reading.disk_cache import Arrays, kept
from rebus.data.reading.long_reading import watched
from rebus.data.reading.row_to_record import LABELS
from rebus.data.reading.rows_by_image import RowGroups, grouped, hash_of

_SAMPLED = 1_000  # rows whose images are compared before all are


def by_image(
    files: Sequence[Path], groups: np.ndarray, column: str, chosen: Mapping[int, np.ndarray]
) -> RowGroups | None:
    """The rows that are read, as numbers over all row groups; None where each has an image of its own.

    `groups`, `chosen`: as of `rebus.data.layouts.coyo.Parquet`. Rows of another label are of another image, as in
    tables. Where no two of the first rows have the same image, none have: images alone are not read through.
    """
    starts = np.cumsum([0, *groups[:, 3]])
    rows = [starts[n] + chosen.get(n, np.arange(groups[n, 3])) for n in range(len(groups))]
    numbers = np.concatenate(rows).astype(np.int64)
    first = np.fromiter(_sampled(files, groups, column), dtype=np.uint64)
    if len(np.unique(first)) == len(first):
        return None
    own = [files[n] for n in np.unique(groups[:, 0])]  # of a split, perhaps, each with all its row groups
    hashes = kept("parquet-images", own, partial(_all, files, groups, column))["images"]
    found = grouped(hashes[numbers], numbers)
    return found if len(found) < len(numbers) else None


def _sampled(files: Sequence[Path], groups: np.ndarray, column: str) -> Iterator[int]:
    left = _SAMPLED
    for group in groups:
        for image in _hashes(files, group, column, left):
            yield image
            left -= 1
        if left <= 0:
            return


def _all(files: Sequence[Path], groups: np.ndarray, column: str) -> Arrays:
    images: list[int] = []
    for number, group in enumerate(watched(groups, len(groups), "comparing images")):
        own = [*_hashes(files, group, column, int(group[3]))]
        own += [hash_of(f"\0{number} {n}".encode()) for n in range(len(own), int(group[3]))]  # damaged: each alone
        images += own
    return {"images": np.array(images, dtype=np.uint64)}


def _hashes(files: Sequence[Path], group: np.ndarray, column: str, most: int) -> Iterator[int]:
    """Of the images of the first rows of a row group, as far as it can be read. What is empty is alone."""
    import pyarrow.parquet as pq

    number, own, first, _ = (int(n) for n in group)
    seen = 0
    try:
        with pq.ParquetFile(files[number]) as opened:
            labels = [name for name in opened.schema_arrow.names if name.lower() in LABELS]
            for batch in opened.iter_batches(min(256, most), [own], columns=[column, *labels], use_threads=False):
                for row in batch.to_pylist():
                    if seen == most:
                        return
                    yield hash_of(_name(row, column, f"\0{number} {first + seen}"))
                    seen += 1
    except (OSError, ValueError, KeyError):  # those of pyarrow derive from these
        return


def _name(row: Mapping[str, Any], column: str, alone: str) -> bytes:
    image = row[column]
    data = image.get("bytes") if isinstance(image, Mapping) else image
    labels = repr([value for name, value in row.items() if name != column]).encode("utf-8", "surrogatepass")
    return bytes(data) + b"\0" + labels if data else alone.encode()
