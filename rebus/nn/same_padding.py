"""TensorFlow's "SAME" padding at stride 2: the size decides how much, and the larger half is on the right and below."""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def pad_same(x: Float[Tensor, "B C Y X"], kernel: int, value: float = 0.0) -> Float[Tensor, "B C _ _"]:
    """`x` with a margin, after which a window of `kernel` cells at stride 2 gives ⌈size / 2⌉ of them each way."""
    padding: list[int] = []
    for size in (x.shape[3], x.shape[2]):
        total = kernel - 2 + size % 2
        padding += [total // 2, total - total // 2]
    return F.pad(x, padding, value=value)
