"""What moves the weights: optimisers over groups of parameters, and the rate of each step."""

import math
from typing import Any

import torch
from torch import nn

from rebus.core.errors import UsageError, unknown_part
from rebus.nn.blocks import blocks_of
from rebus.train.config import Optim
from rebus.train.lamb import LAMB
from rebus.train.muon import Muon
from rebus.train.sharded_tensors import layout_of


def make_optimisers(network: nn.Module, optim: Optim) -> list[torch.optim.Optimizer]:
    """One for all parameters, or Muon for the matrices of the blocks and AdamW for the rest; only matrices and
    convolutions decay, and frozen parameters have no optimiser. Each group has, as `times`, its factor of the rate.

    Raises `UnknownName` for rates of a part that does not exist, `UsageError` for settings that do not go together.
    """
    _check(optim)
    times = rates_of(network, optim.rates)
    named = {n: p for n, p in network.named_parameters() if p.requires_grad}
    in_blocks = {id(p) for block in blocks_of(network) for p in block.parameters()}
    turned: dict[float, list[nn.Parameter]] = {}  # by Muon
    groups: dict[Any, list[nn.Parameter]] = {}
    for name, parameter in named.items():
        if optim.matrices == "muon" and parameter.ndim == 2 and id(parameter) in in_blocks:
            turned.setdefault(times[name], []).append(parameter)
        else:  # scalars apart: they are on every rank, whatever is dealt out
            key = (min(parameter.ndim, 2), layout_of(parameter), times[name])
            groups.setdefault(key, []).append(parameter)
    found: list[torch.optim.Optimizer] = []
    if groups:
        decays = {key: optim.weight_decay if key[0] == 2 else 0.0 for key in groups}
        each = [{"params": p, "weight_decay": decays[key], "times": key[2]} for key, p in groups.items()]
        found.append(_optimiser(each, optim))
    if turned:
        each = [{"params": p, "times": factor} for factor, p in turned.items()]
        found.append(Muon(each, lr=optim.lr, weight_decay=optim.weight_decay))
    return found


def _optimiser(groups: list[dict[str, Any]], optim: Optim) -> torch.optim.Optimizer:
    if optim.kind == "sgd":
        return torch.optim.SGD(groups, lr=optim.lr, momentum=optim.momentum, nesterov=optim.nesterov)
    if optim.kind == "lamb":
        return LAMB(groups, lr=optim.lr, betas=optim.betas, eps=optim.eps)
    return torch.optim.AdamW(groups, lr=optim.lr, betas=optim.betas, eps=optim.eps, fused=True)


def _check(optim: Optim) -> None:
    if optim.kind != "sgd" and (optim.nesterov or optim.momentum != Optim().momentum):
        raise UsageError(f"optim.momentum and optim.nesterov are for optim.kind=sgd; this is {optim.kind}")
    if optim.kind != "adamw" and optim.matrices != "adam":
        raise UsageError(f"optim.matrices={optim.matrices} goes with optim.kind=adamw; this is {optim.kind}")
    if optim.nesterov and not optim.momentum:
        raise UsageError("optim.nesterov needs optim.momentum above 0")


def rates_of(network: nn.Module, rates: tuple[tuple[str, float], ...]) -> dict[str, float]:
    """By what each parameter's learning rate is multiplied, by its name: the factor of the smallest part that holds it.

    Raises `UnknownName` for a part that does not exist, `UsageError` for a factor that is not above 0.
    """
    parameters = [name for name, _ in network.named_parameters()]
    parts = [name for name, _ in network.named_modules() if name] + parameters
    for part, factor in rates:
        if part not in parts:
            raise unknown_part(part, parts)
        if factor <= 0:
            raise UsageError(f"optim.rates: {part} at {factor:g} times the rate; to freeze a part use freeze")
    found = dict.fromkeys(parameters, 1.0)
    for part, factor in sorted(rates, key=lambda rate: len(rate[0])):
        found |= {name: factor for name in parameters if name == part or name.startswith(part + ".")}
    return found


def set_rate(optimisers: list[torch.optim.Optimizer], rate: float) -> None:
    """The learning rate of the next step, times each group's own factor."""
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = rate * group["times"]


def rate_at(optim: Optim, step: int, steps: int) -> float:
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
