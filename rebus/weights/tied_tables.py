"""Tied weights that a file may hold under any of several names, and more than once."""

from collections.abc import Mapping, Sequence

from rebus.core.errors import BadCheckpoint
from rebus.weights.lazy_tensor import LazyTensor, Tensors


def one_table(tensors: Tensors, names: Sequence[str]) -> Mapping[str, LazyTensor]:
    """The tensors with the table under the first of `names`, whichever of them the file has.

    Raises `BadCheckpoint` where two of them differ, since one would be lost.
    """
    found = {name: LazyTensor.of(tensor) for name, tensor in tensors.items()}
    there = [name for name in names if name in found]
    if not there:
        return found
    kept = found.pop(there[0])
    for name in there[1:]:
        other = found.pop(name)
        same = other.tie is not None and other.tie == kept.tie
        if not same and not (other.shape == kept.shape and other.load().equal(kept.load())):
            raise BadCheckpoint(f"{there[0]} and {name} are tied in this model, and differ in this file")
    return {**found, names[0]: kept}
