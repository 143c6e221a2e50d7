"""What an objective returns."""

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor


class Losses(NamedTuple):
    """`total` is what is minimised; `parts` are numbers worth a curve of their own, detached."""

    total: Tensor
    parts: Mapping[str, Tensor]
