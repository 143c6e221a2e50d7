"""How fast a model trains on this machine: whole steps on made-up batches, with the model's own objective."""

import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from rebus.core.capabilities import EmbedsImages, EmbedsText, WritesText
from rebus.core.errors import UsageError
from rebus.core.memory import peak_memory
from rebus.objectives import Learner, NextTokenLoss, SigmoidLoss, SoftmaxLoss, backward, split

PROMPT, ANSWER = 16, 16  # tokens of a writer's made-up text


def bench_train(
    network: nn.Module,
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
    Raises `UsageError` for a network that no objective here trains, or a batch that does not divide.
    """
    device = next(network.parameters()).device
    objective = objective_of(network, config)
    batch = made_up(network, config, batch_size, device)
    parts = split(batch, accumulate)
    network.train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-6, fused=True)
    learner = Learner(objective, torch.compile(network) if compile else network)

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


def objective_of(network: nn.Module, config: Any) -> SoftmaxLoss | SigmoidLoss | NextTokenLoss:
    """What the paper of the network trains it by."""
    if isinstance(network, WritesText):
        return NextTokenLoss()
    if isinstance(network, EmbedsImages) and isinstance(network, EmbedsText) and hasattr(network, "log_scale"):
        return SigmoidLoss() if hasattr(network, "bias") else SoftmaxLoss()
    raise UsageError(f"{type(config).__name__.removesuffix('Config')} is not trained by any objective of bench --train")


def made_up(network: nn.Module, config: Any, rows: int, device: torch.device) -> dict[str, Tensor]:
    """Noise and random words in the shapes that training has."""
    image, size = config.image, config.image.image_size
    random = torch.Generator().manual_seed(0)
    batch: dict[str, Tensor] = {"pixels": torch.randn(rows, 3, size, size, generator=random)}
    if getattr(image, "flat_patches", False):
        height, width = image.grid
        batch["pixels"] = torch.randn(rows, height * width, 3 * image.patch_size**2, generator=random)
        batch["grid"] = torch.tensor([[height, width]]).expand(rows, -1)
    if isinstance(network, WritesText):
        most = min(config.image_id, config.text.vocab_size)
        pictures = torch.full((rows, config.num_image_tokens), config.image_id)
        words = torch.randint(3, most, (rows, PROMPT + ANSWER), generator=random)
        batch["tokens"] = torch.cat([pictures, words[:, :PROMPT]], dim=1)
        batch["targets"] = words[:, PROMPT:].contiguous()
    else:
        shape = (rows, config.text.context)
        batch["tokens"] = torch.randint(1, config.text.vocab_size, shape, generator=random)
    return {name: tensor.to(device) for name, tensor in batch.items()}


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
