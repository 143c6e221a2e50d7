"""What an objective returns."""

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor


class Losses(NamedTuple):
    """`total` is what is minimised; `parts` are numbers worth a curve of their own, detached.

    `means`: of a total that is a sum of means over different things, each of them by the name of what it is a mean over
    (see `rebus.objectives.accumulate`); None where the total is one mean.
    """

    total: Tensor
    parts: Mapping[str, Tensor]
    means: Mapping[str, Tensor] | None = None
