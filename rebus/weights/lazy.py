"""A tensor that is not read yet: its shape and type are known, its values come when asked for."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Lazy:
    """Shape, type and a reader. Reading again reads again: nothing is kept, so one tensor is in memory at a time.

    `tie` is equal for two entries that hold the very same values, so that tied weights are written once.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    load: Callable[[], Tensor]
    tie: Hashable | None = None

    @property
    def nbytes(self) -> int:
        count = 1
        for size in self.shape:
            count *= size
        return count * self.dtype.itemsize

    @classmethod
    def of(cls, tensor: "Tensor | Lazy") -> "Lazy":
        """A tensor in memory as a `Lazy`; a `Lazy` as it is."""
        if isinstance(tensor, Lazy):
            return tensor
        values = tensor.detach()
        tie = None if values.is_meta else (str(values.device), values.data_ptr(), tuple(values.shape), values.stride())
        return cls(tuple(values.shape), values.dtype, lambda: values, tie if values.numel() else None)

    def turned(self) -> "Lazy":
        """The last two dimensions exchanged."""
        shape = (*self.shape[:-2], self.shape[-1], self.shape[-2])
        return Lazy(shape, self.dtype, lambda: self.load().transpose(-1, -2))

    def reshaped(self, *shape: int) -> "Lazy":
        """The same values, row by row, in another shape."""
        return Lazy(shape, self.dtype, lambda: self.load().reshape(shape))

    def part(self, index: int, parts: int) -> "Lazy":
        """One of `parts` equal slices along dimension 0."""
        rows = self.shape[0] // parts
        shape = (rows, *self.shape[1:])
        return Lazy(shape, self.dtype, lambda: self.load()[index * rows : (index + 1) * rows])

    @classmethod
    def joined(cls, pieces: Sequence["Lazy"]) -> "Lazy":
        """The pieces one after another along dimension 0."""
        rows = sum(piece.shape[0] for piece in pieces)
        return cls((rows, *pieces[0].shape[1:]), pieces[0].dtype, lambda: torch.cat([piece.load() for piece in pieces]))


Tensors = Mapping[str, Tensor | Lazy]
"""What the functions of this folder pass round: names and tensors, read or not."""
