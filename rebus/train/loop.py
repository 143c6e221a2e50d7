"""The training loop: one, for every system."""

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from rebus.core.config import from_dict, to_dict
from rebus.core.errors import BadConfig, RebusError, UsageError
from rebus.data.scene_batches import normalise
from rebus.objectives import backward, split
from rebus.train import checkpoint
from rebus.train.average import Average, averaged
from rebus.train.config import AdamW, TrainConfig
from rebus.train.muon import Muon
from rebus.train.parts import build, save_final, starts_whole

MOST_SKIPPED = 20  # steps in a row without a finite loss and gradient before a run is given up
Report = Callable[[Mapping[str, Any]], None]


class Batches(Protocol):
    """What a run learns from. `batch` must depend on its arguments alone."""

    def batch(self, seed: int, index: int, batch_size: int, split: str = "train") -> dict[str, Tensor]: ...


class _Numbered(Dataset[dict[str, Tensor]]):
    def __init__(self, data: Batches, seed: int, batch_size: int, split: str):
        self.data, self.seed, self.batch_size, self.split = data, seed, batch_size, split

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self.data.batch(self.seed, index, self.batch_size, self.split)


def train(config: TrainConfig, out: str | Path, report: Report | None = None) -> Path:
    """Run, or go on with, a training; returns the finished checkpoint's directory, `out/final`.

    `out` holds `config.json`, `metrics.jsonl`, `checkpoints/` and, at the end, `final/`. Called again with the same
    settings it resumes from the newest checkpoint, and the losses are those of a run that was never interrupted.
    `report` gets each line of the metrics. Raises `UsageError` when `out` belongs to other settings, `RebusError`
    when the loss stays infinite.
    """
    out = Path(out)
    if config.accumulate < 1 or config.batch_size % config.accumulate:
        raise UsageError(
            f"a batch_size of {config.batch_size} does not divide into {config.accumulate} equal parts (accumulate)"
        )
    _claim(config, out)
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    network = build(config)
    optimisers = make_optimisers(network, config.optim)
    average = Average(network, config.ema) if config.ema else None
    folder = out / "checkpoints"
    done = checkpoint.steps(folder)
    start = done[-1] if done else 0
    begin = getattr(config.objective, "begin", None)
    if start:
        checkpoint.load(folder, start, network, optimisers, average)
    elif begin is not None and not starts_whole(config):
        begin(network, config.data.batch(config.seed, 0, config.batch_size))
    metrics = out / "metrics.jsonl"
    _cut(metrics, start)
    with metrics.open("a") as lines:
        for line in _steps(config, network, optimisers, average, start):
            lines.write(json.dumps(line) + "\n")
            lines.flush()
            if report is not None:
                report(line)
            if line["step"] % config.save_every == 0 or line["step"] == config.steps:
                checkpoint.save(folder, line["step"], network, optimisers, config.keep, average)
    with averaged(average):
        return save_final(config, network, out / "final")


def _steps(
    config: TrainConfig,
    network: nn.Module,
    optimisers: list[torch.optim.Optimizer],
    average: Average | None,
    start: int,
) -> Iterator[dict[str, Any]]:
    network.train()
    skipped, began = 0, time.monotonic()
    batches = _loader(config, "train", config.seed, range(start, config.steps), config.workers)
    for step, batch in enumerate(batches, start=start + 1):
        torch.manual_seed(config.seed + step)  # dropout and the like depend on the step alone
        rate = rate_at(config.optim, step, config.steps)
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate
        network.zero_grad(set_to_none=True)
        parts = split(_normalised(batch), config.accumulate)
        losses = backward(config.objective, network, parts, lambda: _autocast(config))
        norm = float(nn.utils.clip_grad_norm_(network.parameters(), config.optim.clip_norm))
        loss = float(losses.total)
        line: dict[str, Any] = {"step": step, "loss": loss}
        if math.isfinite(loss) and math.isfinite(norm):
            for optimiser in optimisers:
                optimiser.step()
            if average is not None:
                average.update()
            skipped = 0
        else:
            skipped += 1
            line["skipped"] = skipped
            if skipped >= MOST_SKIPPED:
                raise RebusError(
                    f"no finite loss in steps {step - skipped + 1} to {step} (batches {step - skipped} to {step - 1} "
                    f"of seed {config.seed}); try a lower optim.lr than {config.optim.lr:g}"
                )
        line |= {k: float(v) for k, v in losses.parts.items()}
        line |= {"lr": rate, "norm": norm}
        if config.eval_every and (step % config.eval_every == 0 or step == config.steps):
            with averaged(average):
                line |= _held_out(config, network)
        line["seconds"] = round(time.monotonic() - began, 3)
        yield line


def _normalised(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**batch, "pixels": normalise(batch["pixels"])} if "pixels" in batch else batch


def _autocast(config: TrainConfig) -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16, enabled=config.bf16)


@torch.no_grad()
def _held_out(config: TrainConfig, network: nn.Module) -> dict[str, float]:
    """Means over the same few batches of the split "val" each time."""
    network.eval()
    sums: dict[str, float] = {}
    for batch in _loader(config, "val", 0, range(config.eval_batches), 0):
        with _autocast(config):
            losses = config.objective(network, _normalised(batch))
        for key, value in {"loss": losses.total, **losses.parts}.items():
            sums[f"val_{key}"] = sums.get(f"val_{key}", 0.0) + float(value) / config.eval_batches
    network.train()
    return sums


def _loader(config: TrainConfig, split: str, seed: int, numbers: range, workers: int) -> DataLoader[dict[str, Tensor]]:
    return DataLoader(
        _Numbered(config.data, seed, config.batch_size, split),
        batch_size=None,
        sampler=numbers,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
    )


def make_optimisers(network: nn.Module, optim: AdamW) -> list[torch.optim.Optimizer]:
    """AdamW for all parameters, or Muon for the matrices of the blocks and AdamW for the rest; only matrices decay,
    and frozen parameters have no optimiser."""
    named = {n: p for n, p in network.named_parameters() if p.requires_grad}
    blocks = [p for n, p in named.items() if optim.matrices == "muon" and ".blocks." in n and p.ndim == 2]
    inside = {id(p) for p in blocks}
    others = [p for p in named.values() if id(p) not in inside]
    adam = torch.optim.AdamW(
        [
            {"params": [p for p in others if p.ndim >= 2], "weight_decay": optim.weight_decay},
            {"params": [p for p in others if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=optim.lr,
        betas=optim.betas,
        eps=optim.eps,
        fused=True,
    )
    if not blocks:
        return [adam]
    return [adam, Muon(blocks, lr=optim.lr, weight_decay=optim.weight_decay)]


def rate_at(optim: AdamW, step: int, steps: int) -> float:
    """The learning rate of a step, counted from 1."""
    since = step - optim.again if step > optim.again else step
    if since <= optim.warmup:
        return optim.lr * since / optim.warmup
    progress = (step - optim.warmup) / max(1, steps - optim.warmup)
    height = {
        "cosine": 0.5 * (1 + math.cos(math.pi * min(progress, 1.0))),
        "linear": max(0.0, 1 - progress),
        "rsqrt": (max(optim.warmup, 1) / since) ** 0.5,
        "constant": 1.0,
    }[optim.schedule]
    if optim.cooldown:
        height *= min(1.0, (steps - step + 1) / optim.cooldown)
    return optim.lr * (optim.final + (1 - optim.final) * height)


def _claim(config: TrainConfig, out: Path) -> None:
    """Write `config.json`, or check that the one there is the same."""
    file = out / "config.json"
    if file.exists():
        try:
            there = from_dict(TrainConfig, json.loads(file.read_text()), str(file))
        except (BadConfig, json.JSONDecodeError) as error:
            raise UsageError(f"{out} was begun with other settings ({error}); choose another --out") from None
        if there != config:
            changed = _differences(to_dict(there), to_dict(config))
            raise UsageError(f"{out} was begun with other settings: {changed}. Choose another --out, or the same ones")
        return
    out.mkdir(parents=True, exist_ok=True)
    draft = file.with_suffix(".tmp")
    draft.write_text(json.dumps(to_dict(config), indent=2) + "\n")
    draft.rename(file)


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], path: str = "") -> str:
    found = []
    for key in sorted({*before, *now}):
        a, b = before.get(key), now.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += [d for d in [_differences(a, b, f"{path}{key}.")] if d]
        elif a != b:
            found.append(f"{path}{key} was {a!r} and is {b!r}")
    return ", ".join(found)


def _cut(metrics: Path, step: int) -> None:
    """Forget the lines after `step`: they will be written again."""
    if not metrics.exists():
        return
    kept = []
    for text in metrics.read_text().splitlines(keepends=True):
        try:
            if text.endswith("\n") and json.loads(text)["step"] <= step:
                kept.append(text)
        except (json.JSONDecodeError, KeyError):
            continue  # the last line of a run that was killed while writing it
    draft = metrics.with_suffix(".tmp")
    draft.write_text("".join(kept))
    draft.rename(metrics)
