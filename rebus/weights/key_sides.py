"""How one tensor lies in a file, where that is otherwise than on the other side of its row in a key table.

Each is put round a name, or round another of these, the inner ones being undone first:

    ("h.{i}.attn.c_attn.weight", …)                                     as it is
    (Transposed("h.{i}.attn.c_attn.weight"), (q, k, v))                 GPT-2: fused along the last dimension
    (interleaved_qkv("layers.{i}.query_key_value.weight", 32), (q, k, v))         GPT-NeoX
    (rotary_pairs("blk.{i}.attn_k.weight", 3), "blocks.{i}.attn.k.weight")        GGUF, and Llama as Meta released it
    (Permuted("conv2d/kernel", HWIO), "conv.weight")                              TensorFlow

`plain` gives what came under the name as the row means it, `written` is the reverse; neither reads a value.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import prod
from typing import NoReturn

import torch

from rebus.core.errors import BadCheckpoint
from rebus.weights.lazy_tensor import LazyTensor

HWIO = (3, 2, 0, 1)  # a kernel (height, width, in, out) of TensorFlow and JAX as PyTorch's (out, in, height, width)
HWIM = (2, 3, 0, 1)  # a depthwise one, (height, width, in, 1)


@dataclass(frozen=True)
class Side:
    """A tensor that lies in its own way; itself as it is."""

    of: "str | Side"

    @property
    def name(self) -> str:
        return self.of if isinstance(self.of, str) else self.of.name

    def under(self, prefix: str) -> "Side":
        """The same with `prefix` in front of the name."""
        return replace(self, of=prefix + self.of if isinstance(self.of, str) else self.of.under(prefix))

    def plain(self, tensor: LazyTensor, name: str) -> LazyTensor:
        """What came under `name`, as the row means it. Raises `BadCheckpoint` for a shape that cannot be."""
        return self.undo(tensor if isinstance(self.of, str) else self.of.plain(tensor, name), name)

    def written(self, tensor: LazyTensor, name: str) -> LazyTensor:
        """The reverse of `plain`."""
        tensor = self.make(tensor, name)
        return tensor if isinstance(self.of, str) else self.of.written(tensor, name)

    def undo(self, tensor: LazyTensor, name: str) -> LazyTensor:
        """This way of lying alone, undone."""
        raise NotImplementedError

    def make(self, tensor: LazyTensor, name: str) -> LazyTensor:
        """The reverse of `undo`."""
        raise NotImplementedError


@dataclass(frozen=True)
class Transposed(Side):
    """The last two dimensions are exchanged."""

    def undo(self, tensor: LazyTensor, name: str) -> LazyTensor:
        return tensor.turned() if len(tensor.shape) > 1 else _unfit(name, "two dimensions", tensor)

    make = undo


@dataclass(frozen=True)
class Unsqueezed(Side):
    """There is one more leading dimension, of size 1."""

    def undo(self, tensor: LazyTensor, name: str) -> LazyTensor:
        if tensor.shape[:1] != (1,):
            _unfit(name, "a leading dimension of size 1", tensor)
        return tensor.reshaped(*tensor.shape[1:])

    def make(self, tensor: LazyTensor, name: str) -> LazyTensor:
        return tensor.reshaped(1, *tensor.shape)


@dataclass(frozen=True)
class Squeezed(Side):
    """The leading dimension, of size 1, is missing: an element of a stack."""

    def undo(self, tensor: LazyTensor, name: str) -> LazyTensor:
        return tensor.reshaped(1, *tensor.shape)

    def make(self, tensor: LazyTensor, name: str) -> LazyTensor:
        if tensor.shape[:1] != (1,):
            _unfit(name, "one element of a stack", tensor)
        return tensor.reshaped(*tensor.shape[1:])


@dataclass(frozen=True)
class Reshaped(Side):
    """The same values row by row in the shape `here`; the row means `there`. Each may hold one −1."""

    here: tuple[int, ...]
    there: tuple[int, ...]

    def undo(self, tensor: LazyTensor, name: str) -> LazyTensor:
        return _reshaped(tensor, name, self.here, self.there)

    def make(self, tensor: LazyTensor, name: str) -> LazyTensor:
        return _reshaped(tensor, name, self.there, self.here)


@dataclass(frozen=True)
class Permuted(Side):
    """The dimensions stand in another order: the row's i-th is `order[i]` here (`HWIO`)."""

    order: tuple[int, ...]

    def undo(self, tensor: LazyTensor, name: str) -> LazyTensor:
        if len(tensor.shape) != len(self.order):
            _unfit(name, f"{len(self.order)} dimensions", tensor)
        return tensor.moved(*self.order)

    def make(self, tensor: LazyTensor, name: str) -> LazyTensor:
        return Permuted(self.of, _inverse(self.order)).undo(tensor, name)


@dataclass(frozen=True)
class RowOrder(Side):
    """The rows, dimension 0, stand in another order: seen as `view` (with one −1), its axes are put in `order`."""

    view: tuple[int, ...]
    order: tuple[int, ...]

    def undo(self, tensor: LazyTensor, name: str) -> LazyTensor:
        rows, known = tensor.shape[0] if tensor.shape else 0, -prod(self.view)
        if not rows or rows % known:
            _unfit(name, f"rows in groups of {known}", tensor)
        view = tuple(rows // known if size == -1 else size for size in self.view)
        rest = range(len(view), len(view) + len(tensor.shape) - 1)
        return tensor.reshaped(*view, *tensor.shape[1:]).moved(*self.order, *rest).reshaped(*tensor.shape)

    def make(self, tensor: LazyTensor, name: str) -> LazyTensor:
        turned = tuple(self.view[axis] for axis in self.order)
        return RowOrder(self.of, turned, _inverse(self.order)).undo(tensor, name)


@dataclass(frozen=True)
class PaddedRows(Side):
    """There are `rows` rows, of which only the first `used` mean anything: a vocabulary padded to a round number.

    The others are written as zeros.
    """

    rows: int
    used: int

    def undo(self, tensor: LazyTensor, name: str) -> LazyTensor:
        if tensor.shape[:1] != (self.rows,):
            _unfit(name, f"{self.rows:,} rows", tensor)
        return tensor.between(0, self.used)

    def make(self, tensor: LazyTensor, name: str) -> LazyTensor:
        if tensor.shape[:1] != (self.used,):
            _unfit(name, f"{self.used:,} rows", tensor)
        shape = (self.rows - self.used, *tensor.shape[1:])
        return LazyTensor.joined(
            [tensor, LazyTensor(shape, tensor.dtype, lambda: torch.zeros(shape, dtype=tensor.dtype))]
        )


Name = str | Side
Names = Name | tuple[Name, ...]
Row = tuple[Names, Names]
"""A row of a key table: (theirs, ours)."""


def interleaved_qkv(of: Name, num_heads: int) -> RowOrder:
    """GPT-NeoX: query, key and value of the first head, then those of the second; the row means all queries first."""
    return RowOrder(of, (num_heads, 3, -1), (1, 0, 2))


def rotary_pairs(of: Name, num_heads: int) -> RowOrder:
    """Queries or keys for rotary positions that turn neighbouring rows of a head together; the row means a row of the
    first half of the head and its like in the second. `num_heads`: of queries or of keys."""
    return RowOrder(of, (num_heads, -1, 2), (0, 2, 1))


def stacked(theirs: Name, ours: str, number: int) -> Row:
    """Layers or experts that one tensor holds on its first dimension; `{n}` in `ours` counts them."""
    return theirs, tuple(Squeezed(ours.replace("{n}", str(n))) for n in range(number))


def nested(rows: Iterable[Row], *, theirs: str = "", ours: str = "") -> list[Row]:
    """The table of a backbone inside a larger model: both sides under the prefixes they have there."""
    return [(_under(a, theirs), _under(b, ours)) for a, b in rows]


def name_of(name: Name) -> str:
    """The bare name."""
    return name if isinstance(name, str) else name.name


def _under(names: Names, prefix: str) -> Names:
    if isinstance(names, tuple):
        return tuple(prefix + name if isinstance(name, str) else name.under(prefix) for name in names)
    return prefix + names if isinstance(names, str) else names.under(prefix)


def _inverse(order: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted(range(len(order)), key=order.__getitem__))


def _reshaped(tensor: LazyTensor, name: str, old: tuple[int, ...], new: tuple[int, ...]) -> LazyTensor:
    known = all(want in (-1, have) for want, have in zip(old, tensor.shape, strict=False))
    size, fixed = prod(tensor.shape), prod(n for n in new if n != -1)
    if len(old) != len(tensor.shape) or not known or size % max(fixed, 1) or (-1 not in new and size != fixed):
        _unfit(name, f"shape {list(old)}", tensor)
    return tensor.reshaped(*(size // fixed if n == -1 else n for n in new))


def _unfit(name: str, wanted: str, tensor: LazyTensor) -> NoReturn:
    raise BadCheckpoint(f'weight "{name}": expected {wanted}; got shape {list(tensor.shape)}')
