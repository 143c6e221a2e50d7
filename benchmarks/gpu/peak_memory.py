"""Peak memory of a training step, as the allocator tells it, against what `rebus plan` says of the same step.

Weights and moments in float32 under bfloat16 autocast, nothing compiled, as the plan assumes.
"""

import json
import subprocess
import sys
from typing import Any

import torch

from benchmarks.gpu.gpu_tests import ROOT
from benchmarks.gpu.setting import Figures, Setting, free
from rebus import catalog
from rebus.nn.lora import add_lora
from rebus.objectives import OBJECTIVES, Learner, backward
from rebus.train import Optim
from rebus.train.distributed import clip_gradients
from rebus.train.optim import make_optimisers

_PROMPT, _ANSWER = 16, 32
# name, batch, rank of LoRA in the decoder (0: everything learns)
CASES = (("clip/b16", 256, 0), ("siglip/so400m14-224", 64, 0), ("paligemma/3b-pt-224", 16, 8))
TINY = (("clip/b32", 2, 0),)


def run(setting: Setting, figures: Figures) -> None:
    for name, batch, rank in TINY if setting.tiny else CASES:
        title = f"{name}, batch {batch}" + (f", LoRA {rank}" if rank else "")

        def compare(name: str = name, batch: int = batch, rank: int = rank) -> dict[str, Any]:
            planned = _planned(name, batch, rank)
            measured = _measured(name, batch, rank, setting)
            total = planned["total"]
            return {
                "planned_bytes": total,
                "measured_bytes": measured,
                "planned_over_measured": total / measured if measured else None,
                "planned": planned,
            }

        figures.attempt(title, compare)
        free()


def _planned(name: str, batch: int, rank: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "rebus.cli", "plan", name, "--data", "1M", "--gpus", "h200", "--json"]
    command += ["--batch", str(batch), "--precision", "bf16", "--sharding", "ddp"]
    if catalog.system(catalog.info(name).system).objective == "next token":
        command += ["--prompt-tokens", str(_PROMPT), "--answer-tokens", str(_ANSWER)]
    if rank:
        command += ["--lora", str(rank)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[1:])}: {done.stderr[-600:]}")
    found: dict[str, Any] = json.loads(done.stdout)["memory"]
    return found


def _measured(name: str, batch: int, rank: int, setting: Setting) -> int | None:
    """Bytes at the peak of a step after the first, which makes the moments; None on a processor."""
    torch.manual_seed(0)
    card = catalog.info(name)
    system = catalog.system(card.system)
    config = system.presets["tiny" if setting.tiny else card.preset]
    with torch.device(setting.device):
        network = system.build(config)
    if rank:
        add_lora(network, ("text",), rank, 2.0 * rank)
    learner = Learner(OBJECTIVES[system.objective](), network).train()
    optimisers = make_optimisers(network, Optim(lr=1e-6))
    generative = system.objective == "next token"
    lengths = {"prompt": _PROMPT, "answer": _ANSWER} if generative else {}
    rows = {n: t.to(setting.device) for n, t in system.example(config, batch, **lengths).items()}
    for _ in range(1 if setting.tiny else 3):
        if setting.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(setting.device)
        learner.zero_grad(set_to_none=True)
        backward(learner, [rows], lambda: torch.autocast(setting.device.type, torch.bfloat16))
        clip_gradients(learner, 1.0)
        for optimiser in optimisers:
            optimiser.step()
    return torch.cuda.max_memory_allocated(setting.device) if setting.device.type == "cuda" else None
