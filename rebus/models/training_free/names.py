"""Ids and captions of the pairs of a table, and the place of an id without looking at all of them.

The names of mapped files are JSON lines end to end, with a sorted list of the ids' hashes, so that the place of one
among millions is found by touching a few pages. Those in memory are a dictionary.
"""

import json
from collections.abc import Iterable, Sequence
from hashlib import blake2b

import numpy as np
import torch
from torch import Tensor

Named = tuple[str, str]  # id, caption


def hash_id(name: str) -> int:
    """64 bits of an id, as a signed number."""
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little", signed=True)


class StoredNames:
    """Names in mapped memory: `lines` of JSON end to end, where each `ends`, the `hashes` of the ids in ascending
    `order`. Without lines ids are row numbers; without hashes, in older files, they are read through once."""

    def __init__(
        self,
        count: int,
        lines: Tensor | None = None,
        ends: Tensor | None = None,
        hashes: Tensor | None = None,
        order: Tensor | None = None,
    ):
        self.count, self.lines, self.ends = count, lines, ends
        self.hashes, self.order = hashes, order

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, place: int) -> Named:
        if self.lines is None or self.ends is None:
            return str(range(self.count)[place]), ""
        first = int(self.ends[place - 1]) if place else 0
        name, caption = json.loads(bytes(self.lines[first : int(self.ends[place])].numpy()))
        return name, caption

    def place(self, name: str) -> int | None:
        """Where the pair of an id lies; None for an id that is not there."""
        if self.lines is None:
            return int(name) if name.isdecimal() and str(int(name)) == name and int(name) < self.count else None
        if self.hashes is None or self.order is None:
            self.hashes, self.order = index_of(self[i][0] for i in range(self.count))
        wanted = hash_id(name)
        at = int(np.searchsorted(self.hashes.numpy(), wanted))
        while at < self.count and int(self.hashes[at]) == wanted:
            place = int(self.order[at])
            if self[place][0] == name:
                return place
            at += 1
        return None


def index_of(ids: Iterable[str]) -> tuple[Tensor, Tensor]:
    """(hashes in ascending order, the place of each), int64."""
    hashes = torch.tensor([hash_id(name) for name in ids], dtype=torch.int64)
    order = hashes.argsort(stable=True)
    return hashes[order], order


class Names:
    """Names of all places of a table: those of mapped files first, then those in memory, which can be added to."""

    def __init__(self, ids: Sequence[str], captions: Sequence[str], stored: StoredNames | None = None):
        self.stored = stored
        self.ids, self.captions = list(ids), list(captions)
        self._places: dict[str, int] | None = None  # of those in memory; made when first asked for

    def __getitem__(self, place: int) -> Named:
        row = place - self.num_stored
        if row < 0:
            assert self.stored is not None
            return self.stored[place]
        return self.ids[row], self.captions[row] if self.captions else ""

    @property
    def num_stored(self) -> int:
        return 0 if self.stored is None else len(self.stored)

    def places(self, name: str) -> list[int]:
        """All places of an id: a removed pair leaves its place, and its id may come again."""
        if self._places is None:
            self._places = {one: self.num_stored + row for row, one in enumerate(self.ids)}
        found = [self._places.get(name), None if self.stored is None else self.stored.place(name)]
        return [place for place in found if place is not None]

    def add(self, ids: Sequence[str], captions: Sequence[str]) -> None:
        """More names, in memory; captions one each or none."""
        if captions and not self.captions:
            self.captions = [""] * len(self.ids)
        first = self.num_stored + len(self.ids)
        self.ids += ids
        if self.captions:
            self.captions += captions or [""] * len(ids)
        if self._places is not None:
            self._places.update((name, first + row) for row, name in enumerate(ids))

    def copy(self) -> "Names":
        return Names(self.ids, self.captions, self.stored)
