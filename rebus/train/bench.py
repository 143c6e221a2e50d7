"""How fast a model trains on this machine: whole steps on made-up batches, with the model's own objective."""

import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from rebus.core.errors import UsageError
from rebus.core.memory import peak_memory
from rebus.core.system import System
from rebus.objectives import Learner, backward, objective_of, split


def bench_train(
    network: nn.Module,
    system: System,
    config: Any,
    *,
    batch_size: int = 8,
    accumulate: int = 1,
    steps: int = 5,
    compile: bool = False,
    dtype: torch.dtype = torch.float32,
) -> dict[str, Any]:
    """The median seconds of a step (forward, loss, backward, AdamW) and what goes with it.

    bfloat16 means autocast: weights and optimiser stay float32. The first step, which also compiles, is not counted.
    Raises `UsageError` for a system that is not trained, or a batch that does not divide.
    """
    device = next(network.parameters()).device
    objective = objective_of(system, config)
    if system.example is None:
        raise UsageError(f"{system.name} has no example batch to measure")
    batch = {name: tensor.to(device) for name, tensor in system.example(config, batch_size).items()}
    parts = split(batch, accumulate)
    network.train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-6, fused=True)
    learner = Learner(objective, torch.compile(network) if compile else network, ghost=True)  # the time is the same

    def forward() -> AbstractContextManager[Any]:
        return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        backward(learner, parts, forward)
        optimiser.step()

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds = _median(step, steps, device)
    return {
        "device": str(device),
        "dtype": str(dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "objective": objective.kind,
        "batch_size": batch_size,
        "accumulate": accumulate,
        "steps": steps,
        "seconds_per_step": seconds,
        "examples_per_second": batch_size / seconds,
        "peak_memory_bytes": peak_memory(device),
        "measured_peak_flops": best_product(device, dtype),
    }


def best_product(device: torch.device, dtype: torch.dtype, side: int = 2048, tries: int = 5) -> float:
    """FLOP/s of a large square matrix product here, the best of a few: what this machine can reach at most."""
    side = side if device.type == "cpu" else 4 * side
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    seconds = []
    for _ in range(tries + 1):
        _wait(device)
        began = time.perf_counter()
        a @ b
        _wait(device)
        seconds.append(time.perf_counter() - began)
    return 2 * side**3 / min(seconds[1:])


def _median(step: Callable[[], None], steps: int, device: torch.device) -> float:
    seconds = []
    for _ in range(steps + 1):
        _wait(device)
        began = time.perf_counter()
        step()
        _wait(device)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
