"""Where a run happens: one process, or as many as torchrun starts, each with its device.

Weights are replicated or sharded by PyTorch's FSDP2 (Zhao et al., "PyTorch FSDP", 2023), and decoders' matrices split
over ranks as in Shoeybi et al., "Megatron-LM", 2019, Sec. 3. A recipe says how many ranks share what; nothing else in
it knows of ranks.
"""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from rebus.core.errors import RebusError, UsageError
from rebus.nn.blocks import blocks_of, keep_heads, split_of
from rebus.objectives import Learner
from rebus.train.config import Devices
from rebus.train.sharded_tensors import layout_of, whole

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """`rank` of `ranks`, on `device`; `part` of `parts`: which share of each batch this rank learns from."""

    device: torch.device
    rank: int = 0
    ranks: int = 1
    part: int = 0
    parts: int = 1
    mesh: DeviceMesh | None = None

    @property
    def leads(self) -> bool:
        """One rank writes files and speaks; the others follow."""
        return self.rank == 0

    def first(self, work: Callable[[], T]) -> T:
        """What `work` gives on the leading rank, or the error it raises, on every rank."""
        if self.ranks == 1:
            return work()
        told: list[Any] = [None, None]
        if self.leads:
            try:
                told[0] = work()
            except RebusError as error:
                told[1] = error
        dist.broadcast_object_list(told)
        if told[1] is not None:
            raise told[1]
        return told[0]

    def any(self, happened: bool) -> bool:
        """Whether it happened on any rank."""
        if self.ranks == 1:
            return happened
        flag = torch.tensor(int(happened), device=self.device)
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        return bool(flag)

    def wait(self) -> None:
        if self.ranks > 1:
            dist.barrier()


@contextmanager
def join_ranks(devices: Devices) -> Iterator[Ranks]:
    """Join the other ranks that torchrun started, if it did; leave them at the end.

    Raises `UsageError` for numbers of ranks that do not divide, or a device that is not there.
    """
    number = int(os.environ.get("WORLD_SIZE", "1"))
    device = _device(devices.device)
    begun = number > 1 and not dist.is_initialized()
    if begun:
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        yield _place(devices, device)
    finally:
        if begun:
            dist.destroy_process_group()


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    local = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device(name, local) if name == "cuda" else torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"devices.device={name}: this machine has {torch.cuda.device_count()} GPUs")
    return device


def _place(devices: Devices, device: torch.device) -> Ranks:
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return Ranks(device)
    number, rank = dist.get_world_size(), dist.get_rank()
    split = devices.tensor_parallel
    if split < 1 or number % split:
        raise UsageError(f"{number} ranks do not divide by devices.tensor_parallel={split}")
    parts = number // split
    shard = devices.shard or parts
    if shard < 1 or parts % shard:
        raise UsageError(f"devices.shard={shard} does not divide the {parts} ranks that share a batch")
    names = ("replicate", "shard", "split")
    mesh = init_device_mesh(device.type, (parts // shard, shard, split), mesh_dim_names=names)
    return Ranks(device, rank, number, rank // split, parts, mesh)


def distribute(learner: Learner, place: Ranks) -> None:
    """Lay the network out over the ranks, in place: its parameters become the shares of this rank.

    Scalars (temperature, bias) cannot be shared: every rank has them, and `average_scalars` keeps them equal.
    """
    if place.mesh is None:
        learner.to(place.device)
        return
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    blocks = blocks_of(learner.network)
    if place.mesh["split"].size() > 1:
        _split(blocks, place.mesh["split"])
    mesh = place.mesh["replicate", "shard"]
    scalars = {p for p in learner.parameters() if p.ndim == 0}
    learner.to(place.device)
    for block in blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(learner, mesh=mesh, ignored_params=scalars)
    for method in ("embed", "inside"):
        register_fsdp_forward_method(learner, method)


def _split(blocks: list[nn.Module], mesh: DeviceMesh) -> None:
    """The matrices of decoders, dealt out over the ranks of `mesh`: heads and hidden units."""
    splits = [(block, split_of(block)) for block in blocks]
    if not any(split.columns for _, split in splits):
        raise UsageError("devices.tensor_parallel splits decoders; this network has none: set it to 1")
    for block, split in splits:
        if split.columns:
            keep_heads(block, mesh.size())
            plan = {name: ColwiseParallel() for name in split.columns}
            parallelize_module(block, mesh, {**plan, **{name: RowwiseParallel() for name in split.rows}})


def average_scalars(learner: Learner, place: Ranks) -> None:
    """Of the gradients that FSDP leaves alone, the mean over the ranks."""
    if place.ranks > 1:
        for parameter in learner.parameters():
            if parameter.ndim == 0 and parameter.grad is not None:
                dist.all_reduce(parameter.grad)
                parameter.grad /= place.ranks


def clip_gradients(learner: Learner, most: float) -> float:
    """Shorten all gradients together to length `most` at most; gives the length that they had."""
    kinds: dict[Any, list[Tensor]] = {}
    for parameter in learner.parameters():
        if parameter.grad is not None:
            kinds.setdefault(layout_of(parameter.grad), []).append(parameter.grad)
    norms = [whole(nn.utils.get_total_norm(grads)) for grads in kinds.values()]
    norm = math.hypot(*(float(n) for n in norms))
    if norm > most and math.isfinite(norm):
        for grads in kinds.values():
            torch._foreach_mul_(grads, most / (norm + 1e-6))
    return norm
