"""Endless shuffled passes over a data set in blocks, as a function of the seed: nothing to save, resumed anywhere.

Blocks come in a new order in each pass. Rows are shuffled among the blocks of one window, so that neighbours in the
order lie close on disk, and only the rows of one window are ever held as numbers.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np

from rebus.core.errors import UsageError

WINDOW = 65_536  # rows shuffled together, at least


class ShuffledOrder:
    """Number n of the endless order → (block, row). Each row comes once in every `len(order)` numbers.

    `shuffle` False gives the rows as they lie. Raises `UsageError` for a data set without records.
    """

    def __init__(self, sizes: Sequence[int], seed: int, *, shuffle: bool = True, window: int = WINDOW):
        self.sizes = np.asarray(sizes, dtype=np.int64)
        self.total = int(self.sizes.sum())
        if not self.total:
            raise UsageError("the data set holds no records")
        self.seed, self.shuffle, self.window = seed, shuffle, window
        self._pass = lru_cache(maxsize=2)(self._blocks_of)
        self._rows = lru_cache(maxsize=3)(self._rows_of)

    def __len__(self) -> int:
        return self.total

    def place(self, number: int) -> tuple[int, int]:
        """Where record `number` of the endless order lies."""
        turn, at = divmod(number, self.total)
        blocks, ends, starts = self._pass(turn)
        first = int(np.searchsorted(ends, at, side="right"))
        if self.shuffle:
            window = int(np.searchsorted(starts, first, side="right")) - 1
            begin = int(starts[window])
            at -= int(ends[begin - 1]) if begin else 0
            block, row = self._rows(turn, window)[at]
            return int(block), int(row)
        return int(blocks[first]), int(at - (ends[first - 1] if first else 0))

    def places(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """The places of numbers `start` to `stop`."""
        return (self.place(number) for number in range(start, stop))

    def __getstate__(self) -> tuple[np.ndarray, int, bool, int]:
        return self.sizes, self.seed, self.shuffle, self.window

    def __setstate__(self, state: tuple[np.ndarray, int, bool, int]) -> None:
        sizes, seed, shuffle, window = state
        self.__init__(sizes, seed, shuffle=shuffle, window=window)  # type: ignore[misc]

    def _blocks_of(self, turn: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The blocks of a pass in order, how many rows have come when each ends, and where each window begins."""
        blocks = np.flatnonzero(self.sizes)
        if self.shuffle:
            blocks = np.random.Generator(np.random.PCG64([self.seed, turn])).permutation(blocks)
        ends = np.cumsum(self.sizes[blocks])
        begins = np.concatenate([[0], ends[:-1]]) // self.window
        return blocks, ends, np.flatnonzero(np.diff(begins, prepend=-1))

    def _rows_of(self, turn: int, window: int) -> np.ndarray:
        """(rows, 2): block and row of each place in a window."""
        blocks, _, starts = self._pass(turn)
        inside = blocks[starts[window] :][: np.append(starts, len(blocks))[window + 1] - starts[window]]
        sizes = self.sizes[inside]
        rows = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        pairs = np.stack([np.repeat(inside, sizes), rows], axis=1)
        return np.random.Generator(np.random.PCG64([self.seed, turn, window])).permutation(pairs)
