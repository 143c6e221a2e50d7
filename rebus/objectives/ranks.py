"""What losses over several processes need: who has how many rows, everybody's rows, rows passed round a ring.

Without `torch.distributed` there is one rank, and nothing is sent. Losses are the same number on every rank, with
gradients whose mean over the ranks is that of the whole batch: what DDP and FSDP take.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch import distributed as dist
from torch.autograd.function import once_differentiable

# PyTorch 2.14 renames it.
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor

_group: Any = None  # the ranks that have different examples; None: all


@contextmanager
def examples_over(group: Any) -> Iterator[None]:
    """Inside, losses are over the ranks of this process group: others have the same examples (tensor parallelism)."""
    global _group
    before, _group = _group, group
    try:
        yield
    finally:
        _group = before


def world() -> tuple[int, int]:
    """(this rank, number of ranks), of those that have different examples."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(_group), dist.get_world_size(_group)
    return 0, 1


def everybodys(number: int, device: torch.device) -> list[int]:
    """A number of each rank, by rank."""
    ranks = world()[1]
    if ranks == 1:
        return [number]
    all_numbers = torch.empty(ranks, dtype=torch.int64, device=device)
    _all_gather(all_numbers, torch.tensor([number], device=device), group=_group)
    return [int(n) for n in all_numbers.tolist()]


def total(value: Tensor) -> Tensor:
    """The sum over the ranks, without gradient."""
    value = value.detach().clone()
    if world()[1] > 1:
        dist.all_reduce(value, group=_group)
    return value


def gather(rows: Float[Tensor, "B E"], counts: Sequence[int]) -> Float[Tensor, "N E"]:
    """The rows of all ranks, one rank after another. The gradient is the sum of what every rank's loss asks for."""
    return rows if len(counts) == 1 else _Gather.apply(rows, tuple(counts))


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows: Tensor, counts: tuple[int, ...]) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.counts = counts
        most = max(counts)
        padded = rows.new_zeros(most, *rows.shape[1:])
        padded[: len(rows)] = rows
        everyone = rows.new_empty(len(counts) * most, *rows.shape[1:])
        _all_gather(everyone, padded, group=_group)
        return torch.cat([part[:count] for part, count in zip(everyone.split(most), counts, strict=True)])

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[no-untyped-def]
        grad = grad.contiguous()
        dist.all_reduce(grad, group=_group)
        return grad.split(ctx.counts)[world()[0]], None


def pass_on(sent: Sequence[Tensor], rows: int) -> list[Tensor]:
    """Send tensors to the next rank of the ring; gives those of the one before, which have that many rows."""
    rank, ranks = world()
    received = [tensor.new_empty(rows, *tensor.shape[1:]) for tensor in sent]
    after, before = (rank + 1) % ranks, (rank - 1) % ranks
    operations = [dist.P2POp(dist.isend, t.contiguous(), group=_group, group_peer=after) for t in sent]
    operations += [dist.P2POp(dist.irecv, t, group=_group, group_peer=before) for t in received]
    for request in dist.batch_isend_irecv(operations):
        request.wait()
    return received
