"""A tensor that is not read yet: its shape and type are known, its values come when asked for."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor


def _nothing() -> None:
    pass


@dataclass(frozen=True, eq=False)
class LazyTensor:
    """Shape, type and a reader. Reading again reads again: nothing is kept, so one tensor is in memory at a time.

    `tie` is equal for two entries that hold the very same values, so that tied weights are written once. `rows`
    reads a range of dimension 0 alone, where that is cheaper than reading all. `release` gives back the memory that
    reading took from a mapped file; what `load` returned stays valid and would be read from the disk again.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    load: Callable[[], Tensor]
    tie: Hashable | None = None
    rows: Callable[[int, int], Tensor] | None = None
    release: Callable[[], None] = _nothing

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize

    @classmethod
    def of(cls, tensor: "Tensor | LazyTensor") -> "LazyTensor":
        """A tensor in memory as a `LazyTensor`; a `LazyTensor` as it is."""
        if isinstance(tensor, LazyTensor):
            return tensor
        values = tensor.detach()
        known = not values.is_meta and values.numel() > 0
        tie = (str(values.device), values.data_ptr(), tuple(values.shape), values.stride()) if known else None
        return cls(tuple(values.shape), values.dtype, lambda: values, tie)

    def _changed(self, shape: tuple[int, ...], load: Callable[[], Tensor]) -> "LazyTensor":
        return replace(self, shape=shape, load=load, tie=None, rows=None)

    def turned(self) -> "LazyTensor":
        """The last two dimensions exchanged."""
        return self._changed((*self.shape[:-2], self.shape[-1], self.shape[-2]), lambda: self.load().transpose(-1, -2))

    def moved(self, *order: int) -> "LazyTensor":
        """The dimensions in another order."""
        return self._changed(tuple(self.shape[i] for i in order), lambda: self.load().permute(order))

    def reshaped(self, *shape: int) -> "LazyTensor":
        """The same values, row by row, in another shape."""
        return self._changed(shape, lambda: self.load().reshape(shape))

    def part(self, index: int, parts: int) -> "LazyTensor":
        """One of `parts` equal slices along dimension 0."""
        size = self.shape[0] // parts
        return self.between(index * size, (index + 1) * size)

    def between(self, first: int, last: int) -> "LazyTensor":
        """The elements `first` to `last` of dimension 0, the last not among them."""
        shape = (last - first, *self.shape[1:])
        if self.rows is not None:
            read = self.rows
            return self._changed(shape, lambda: read(first, last))
        return self._changed(shape, lambda: self.load()[first:last])

    def at(self, index: int) -> "LazyTensor":
        """One element of dimension 0, without that dimension."""
        return self.part(index, self.shape[0]).reshaped(*self.shape[1:])

    @classmethod
    def joined(cls, pieces: Sequence["LazyTensor"]) -> "LazyTensor":
        """The pieces one after another along dimension 0."""

        def release() -> None:
            for piece in pieces:
                piece.release()

        shape = (sum(piece.shape[0] for piece in pieces), *pieces[0].shape[1:])
        return cls(shape, pieces[0].dtype, lambda: torch.cat([piece.load() for piece in pieces]), release=release)


Tensors = Mapping[str, Tensor | LazyTensor]
"""What the functions of this folder pass round: names and tensors, read or not."""
