"""What an objective returns."""

from collections.abc import Mapping, Sequence
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


def sum_of(losses: Sequence[Losses]) -> Losses:
    """The totals of several batches together; of each other number the mean of those that have it."""
    total = losses[0].total
    for one in losses[1:]:
        total = total + one.total
    found: dict[str, list[Tensor]] = {}
    for one in losses:
        for name, value in one.parts.items():
            found.setdefault(name, []).append(value)
    return Losses(total, {name: sum(values[1:], values[0]) / len(values) for name, values in found.items()})
