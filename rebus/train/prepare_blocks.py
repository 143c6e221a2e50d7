"""Recomputation and compilation of a network's repeated blocks, one by one."""

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn

from rebus.nn.batch_norm import batch_norms, statistics_held
from rebus.nn.blocks import blocks_of
from rebus.nn.recompute import recomputed
from rebus.train.config import Devices

Contexts = tuple[AbstractContextManager[Any], AbstractContextManager[Any]]


def prepare_blocks(network: nn.Module, devices: Devices) -> None:
    """Wrap the blocks in place, as the run's settings ask. A block at a time, what is compiled stays small, and is
    compiled once."""
    for block in blocks_of(network):
        has_norms = bool(batch_norms(block))
        if devices.recompute and has_norms:
            if devices.compile:  # inside, since the second time it runs differs from the first
                block.forward = torch.compile(block.forward)
            block.forward = recomputed(block.forward, context_fn=partial(_seen_once, block))
            continue
        if devices.recompute:
            block.forward = recomputed(block.forward)
        if devices.compile:
            block.compile()


def _seen_once(block: nn.Module) -> Contexts:
    """BatchNorm takes a batch into its running statistics the first time alone."""
    return nullcontext(), statistics_held(block)
