"""Which records of a data set are learned from and which are held out: never the same."""

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rebus.core.errors import RebusError, UsageError
from rebus.data.damaged_files import OverReader
from rebus.data.inspecting import chosen
from rebus.data.layouts import open_layout
from rebus.data.reading.shard_files import NoSplits
from rebus.data.record import Reader, Record
from rebus.data.shuffle import WINDOW

SHARE, MOST = 0.1, 1000  # of the records, and records at most, that are held out where no split says which
_SEED = 0  # of their choice, which must not change with that of a run
_COMPARED = 3  # records by which two readers are taken to be one

log = logging.getLogger("rebus")


@dataclass(frozen=True)
class Part(OverReader):
    """The records of a reader that are held out, or all others. `held`: sorted rows, of each block."""

    reader: Reader
    held: tuple[np.ndarray, ...]
    others: bool

    @property
    def sizes(self) -> Sequence[int]:
        counts = [len(rows) for rows in self.held]
        return [whole - n for whole, n in zip(self.reader.sizes, counts, strict=True)] if self.others else counts

    @property
    def window(self) -> int:
        return int(getattr(self.reader, "window", WINDOW))

    def read(self, block: int, row: int) -> Record:
        rows = self.held[block]
        if self.others:  # as many further as held-out rows come before it
            return self.reader.read(block, row + int(np.searchsorted(rows - np.arange(len(rows)), row, side="right")))
        return self.reader.read(block, int(rows[row]))


def open_parts(
    path: str,
    layout: str,
    split: str | None,
    val_split: str | None,
    measured: bool = True,
    root: str | None = None,
) -> tuple[Reader, Reader | UsageError]:
    """What is learned from, and what is held out, or why there is nothing of the kind, as where nothing is `measured`.

    Where the data set has no splits, `val_split` is None, or both name the same records, a part of `split` is held out,
    which is logged. Raises what `open_layout` raises, naming the setting `data.split`; `UsageError` where the split to
    be held out is part of what is learned from.
    """
    train, has_splits = _opened(path, layout, split, "split", root)
    if not measured:
        return train, UsageError(f"{path}: nothing is held out, since nothing is to be measured (eval_every=0)")
    if not has_splits or val_split is None:
        return hold_out(train, path)
    try:
        val, has_splits = _opened(path, layout, val_split, "val_split", root)
    except UsageError as error:
        return train, UsageError(f"{error}. data.val_split=none holds out a part of data.split")
    if not has_splits or _same(train, val):
        return hold_out(train, path)
    if split is None:
        raise UsageError(
            f"{path}: data.split=none learns from every split, data.val_split={val_split} included, which should be "
            "held out: set data.split=train, or data.val_split=none to hold out a part of everything"
        )
    return train, val


def hold_out(reader: Reader, name: str) -> tuple[Reader, Reader | UsageError]:
    """All but a tenth of the records, at most 1,000, and that part; always the same ones."""
    sizes = list(reader.sizes)
    total = sum(sizes)
    if total < 2:
        return reader, UsageError(f"{name}: of {total} records none can be held out; name another data.val_split")
    places = np.array(chosen(sizes, min(MOST, max(1, round(SHARE * total))), _SEED), dtype=np.int64)
    ends = np.searchsorted(places[:, 0], np.arange(len(sizes) + 1))
    held = tuple(places[begin:end, 1] for begin, end in itertools.pairwise(ends))
    log.warning(
        f"{name}: no validation split: {len(places):,} random records of {total:,} are held out and "
        "not learned from; data.val_split names another split"
    )
    return Part(reader, held, others=True), Part(reader, held, others=False)


def _opened(path: str, layout: str, split: str | None, setting: str, root: str | None) -> tuple[Reader, bool]:
    """The reader of a split, and whether the data set has any; all of it where it has none."""
    has_splits = True
    try:
        reader = open_layout(path, layout, split, root)
    except NoSplits:
        reader, has_splits = open_layout(path, layout, None, root), False
    except UsageError as error:
        if split is None or f'split "{split}"' not in str(error):
            raise
        raise UsageError(f"data.{setting}={split}: {error}") from None
    unread = getattr(reader, "unread", ())
    if unread and getattr(reader, "labelled_by_folder", False):
        raise UsageError(f"{unread[0]}. Folder names are not used as labels while there is a table")
    return reader, has_splits


def _same(one: Reader, other: Reader) -> bool:
    """Whether two readers give the same records: layouts of a single file know no splits."""
    sizes = list(one.sizes)
    return sizes == list(other.sizes) and all(
        _shown(one, place) == _shown(other, place) for place in chosen(sizes, _COMPARED, _SEED)
    )


def _shown(reader: Reader, place: tuple[int, int]) -> Any:
    try:
        record = reader.read(*place)
    except RebusError as error:
        return str(error)
    return record.key, record.image, record.captions, record.document, record.video
