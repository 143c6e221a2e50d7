"""Tensors without values, on which a plan traces a training step."""

from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor


def only_shapes(x: Tensor) -> bool:
    """Whether a tensor has a shape and no values. It stands for one on a GPU, whatever device it names: what a
    processor does in a way of its own is to be left out."""
    return isinstance(x, FakeTensor)
