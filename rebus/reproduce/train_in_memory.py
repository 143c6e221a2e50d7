"""Train a small network in memory: the optimisers, schedules and objectives of `rebus.train`, without its files.

A claim makes dozens of runs of some seconds each, of networks and data that no recipe has.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rebus.train.config import Optim
from rebus.train.optim import make_optimisers, rate_at, set_rate

Check = Callable[[int], bool]


def fit(
    network: nn.Module,
    objective: Callable[[Any, Mapping[str, Tensor]], Any],
    batch_at: Callable[[int], Mapping[str, Tensor]],
    optim: Optim,
    steps: int,
    check: Check | None = None,
) -> None:
    """`steps` updates of `network` by the batches 0, 1, …; `check` is called after each step, and ends the run by
    True.
    """
    begin = getattr(objective, "begin", None)
    if begin is not None:
        begin(network, batch_at(0))
    optimisers = make_optimisers(network, optim)
    learned = [p for p in network.parameters() if p.requires_grad]
    network.train()
    for step in range(1, steps + 1):
        objective(network, batch_at(step - 1)).total.backward()
        nn.utils.clip_grad_norm_(learned, optim.clip_norm)
        set_rate(optimisers, rate_at(optim, step, steps))
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        if check is not None and check(step):
            break
    network.eval()


def rows_at(seed: int, index: int, number: int, of: int) -> Tensor:
    """int64 (number,): the rows of batch `index`, drawn from `of` with replacement; a function of its arguments."""
    draws = torch.Generator().manual_seed(seed * 1_000_003 + index)
    return torch.randint(of, (number,), generator=draws)
