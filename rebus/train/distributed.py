"""Where a run happens: one process, or as many as torchrun starts, each with its device.

Weights are replicated or sharded by PyTorch's FSDP2 (Zhao et al., "PyTorch FSDP", 2023), and the matrices of blocks
split over ranks as in Shoeybi et al., "Megatron-LM", 2019, Sec. 3. A recipe says how many ranks share what; nothing
else in it knows of ranks.
"""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from rebus.core.errors import RebusError, UsageError
from rebus.core.folder_lock import locked
from rebus.nn.batch_norm import batch_norms
from rebus.nn.blocks import blocks_of, keep_heads, split_of
from rebus.nn.linear import Linear
from rebus.objectives import Learner
from rebus.objectives.ranks import examples_over
from rebus.train.config import Devices
from rebus.train.sharded_tensors import layout_of, whole

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """`rank` of `ranks`, on `device`; `part` of `parts`: which share of each batch this rank learns from. `examples`
    is the process group of the ranks that learn from the other shares; None: all ranks."""

    device: torch.device
    rank: int = 0
    ranks: int = 1
    part: int = 0
    parts: int = 1
    mesh: DeviceMesh | None = None
    examples: Any = None

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

    @contextmanager
    def alone(self, folder: Path) -> Iterator[None]:
        """The leading rank holds the folder's lock. Raises `UsageError` on every rank where another run holds it."""
        with ExitStack() as held:
            self.first(lambda: held.enter_context(locked(folder)))
            yield

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
        place = _place(devices, device)
        with examples_over(place.examples):
            yield place
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
    same_half = [list(range(first, number, split)) for first in range(split)]
    examples = dist.new_subgroups_by_enumeration(same_half)[0] if split > 1 else None
    return Ranks(device, rank, number, rank // split, parts, mesh, examples)


def distribute(learner: Learner, place: Ranks, bf16: bool = False) -> None:
    """Lay the network out over the ranks, in place: its parameters become the shares of this rank.

    `bf16`: ranks send each other bfloat16 copies of the weights, block by block, compute with these and drop them;
    gradients are added up in float32. Scalars and BatchNorm's gains are not shared: every rank has them in float32,
    and `average_replicated` keeps them equal.
    """
    if place.mesh is None:
        learner.to(place.device)
        return
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

    blocks = blocks_of(learner.network)
    if place.mesh["split"].size() > 1:
        _split(blocks, place.mesh["split"])
    learner.to(place.device)
    policy = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if bf16 else None, reduce_dtype=torch.float32 if bf16 else None
    )
    settings: Any = {
        "mesh": place.mesh["replicate", "shard"],
        "mp_policy": policy,
        "ignored_params": set(_replicated(learner)),
    }
    for block in blocks:
        fully_shard(block, **settings)
    fully_shard(learner, **settings)
    for method in ("embed", "inside"):
        register_fsdp_forward_method(learner, method)


def _replicated(learner: Learner) -> list[nn.Parameter]:
    """What every rank has whole: scalars, which have no dimension to deal out, and BatchNorm's gains and biases, which
    stay float32 beside its statistics, as its kernels ask."""
    norms = {id(p) for norm in batch_norms(learner).values() for p in norm.parameters()}
    return [p for p in learner.parameters() if p.ndim == 0 or id(p) in norms]


def _split(blocks: list[nn.Module], mesh: DeviceMesh) -> None:
    """The blocks' heads and hidden units, dealt out over the ranks of `mesh`."""
    declared = [block for block in blocks if split_of(block).columns]
    if not declared:
        raise UsageError("devices.tensor_parallel splits blocks of attention; this network has none: set it to 1")

    def sums_gradients(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        """What each rank uses for its own heads alone gets the gradients of all ranks' heads."""
        everywhere = DTensor.from_local(output, mesh, [Replicate()], run_check=False)
        return everywhere.to_local(grad_placements=[Partial()])

    for block in declared:
        columns, rows, shared = split_of(block)
        for name in (*columns, *rows, *shared):
            if type(block.get_submodule(name)) not in (Linear, nn.Linear):
                raise UsageError(f"devices.tensor_parallel splits plain linear layers; {name} has LoRA: set it to 1")
        keep_heads(block, mesh.size())
        for name in shared:
            block.get_submodule(name).register_forward_hook(sums_gradients)
        plan: dict[str, Any] = {name: ColwiseParallel() for name in columns} | {
            name: RowwiseParallel() for name in rows
        }
        parallelize_module(block, mesh, plan)


def average_replicated(learner: Learner, place: Ranks) -> None:
    """Of the gradients that FSDP leaves alone, the mean over the ranks."""
    if place.ranks == 1:
        return
    grads = [p.grad for p in _replicated(learner) if p.grad is not None]
    if grads:
        flat = torch.cat([grad.flatten() for grad in grads])
        dist.all_reduce(flat)
        means = (flat / place.ranks).split([grad.numel() for grad in grads])
        for grad, mean in zip(grads, means, strict=True):
            grad.copy_(mean.view_as(grad))


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
