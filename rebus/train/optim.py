"""What moves the weights: optimisers over groups of parameters, and the rate of each step."""

import math
from typing import Any

import torch
from torch import nn

from rebus.train.config import AdamW
from rebus.train.muon import Muon
from rebus.train.sharded_tensors import layout_of


def make_optimisers(network: nn.Module, optim: AdamW) -> list[torch.optim.Optimizer]:
    """AdamW for all parameters, or Muon for the matrices of the blocks and AdamW for the rest; only matrices decay,
    and frozen parameters have no optimiser."""
    named = {n: p for n, p in network.named_parameters() if p.requires_grad}
    blocks = [p for n, p in named.items() if optim.matrices == "muon" and ".blocks." in n and p.ndim == 2]
    inside = {id(p) for p in blocks}
    groups: dict[Any, list[nn.Parameter]] = {}
    for parameter in named.values():
        if id(parameter) not in inside:  # scalars apart: they are on every rank, whatever is dealt out
            groups.setdefault((min(parameter.ndim, 2), layout_of(parameter)), []).append(parameter)
    found: list[torch.optim.Optimizer] = []
    if groups:
        decays = {kind: optim.weight_decay if kind[0] == 2 else 0.0 for kind in groups}
        each = [{"params": p, "weight_decay": decays[kind]} for kind, p in groups.items()]
        found.append(torch.optim.AdamW(each, lr=optim.lr, betas=optim.betas, eps=optim.eps, fused=True))
    if blocks:
        found.append(Muon(blocks, lr=optim.lr, weight_decay=optim.weight_decay))
    return found


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
