"""What a run starts from: a fresh network with the weights that its recipe takes from checkpoints."""

import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rebus import catalog
from rebus.backbones.vision.vit import ViT
from rebus.core.card import PHOTOS
from rebus.core.errors import BadCheckpoint, UsageError, unknown, unknown_part
from rebus.nn.frozen import set_trained
from rebus.nn.lora import add_lora
from rebus.open_checkpoint import Opened, open_checkpoint
from rebus.train.config import Start, TrainConfig
from rebus.train.sharded_tensors import share_of
from rebus.weights.checkpoint_files import open_weights
from rebus.weights.hub import find
from rebus.weights.lazy_tensor import LazyTensor

LOG = logging.getLogger("rebus")


@lru_cache(maxsize=8)
def opened_once(name: str) -> Opened:
    """A checkpoint that a run asks for more than once."""
    return open_checkpoint(name)


@lru_cache(maxsize=8)
def _borrowed(system: str, source: str) -> Mapping[str, LazyTensor] | None:
    """What a system makes of the file of another network; None where it makes nothing of it."""
    borrow = catalog.system(system).borrow
    if borrow is None or catalog.find(source) is not None:
        return None
    try:
        return borrow(open_weights(find(source)))
    except BadCheckpoint as error:
        raise BadCheckpoint(f"{source}: {error}") from None


def domain_of(system: str, source: str) -> str:
    """What a checkpoint that a run starts from counts as; another network's file is of the world at large."""
    return PHOTOS if _borrowed(system, source) else opened_once(source).card.domain


def starts_whole(config: TrainConfig) -> bool:
    """Whether a run starts from a checkpoint of its own system, so that nothing is initialised before the first
    step.
    """
    return config.start_from is not None and opened_once(config.start_from).system.name == config.system


def starts_of(config: TrainConfig) -> tuple[Start, ...]:
    """Where weights come from before the first step, `start_from` first: all of it for a checkpoint of the run's own
    system, its image encoder for one of another."""
    if config.start_from is None:
        return config.starts
    encoder = "" if starts_whole(config) else "image"
    return (Start(source=config.start_from, take=encoder, into=encoder), *config.starts)


class Built(NamedTuple):
    """A network before its first step. `copied`: parameter → the checkpoint that it was taken from."""

    network: nn.Module
    copied: dict[str, str]


def build(config: TrainConfig) -> Built:
    """A fresh network with what its `starts` bring.

    Raises `BadCheckpoint` where something does not fit, `UnknownName` for a frozen part that does not exist,
    `UsageError` where nothing is left to train.
    """
    network: nn.Module = catalog.system(str(config.system)).build(config.model)
    copied: dict[str, str] = {}
    for start in starts_of(config):
        copied |= dict.fromkeys(copy_weights(network, start, str(config.system)), start.source)
    set_trained(network, config.freeze, False)
    if config.lora is not None:
        add_lora(network, config.lora.parts, config.lora.rank, config.lora.alpha)
        set_trained(network, config.lora.whole, True)
    if config.position_waves and not starts_whole(config):
        encoder = getattr(config.model, "image", config.model)
        positions = network.get_parameter("positions" if encoder is config.model else "image.positions")
        rows, columns = encoder.grid
        with torch.no_grad():
            positions[-rows * columns :] += config.position_waves * grid_waves(rows, columns, positions.shape[1])
    extend = getattr(config.objective, "extend", None)
    if extend is not None:
        extend(network)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise UsageError(f"freeze={list(config.freeze)} leaves nothing to train")
    return Built(network, copied)


def copy_weights(network: nn.Module, start: Start, system: str) -> list[str]:
    """Copy a part of a checkpoint into a part of the network, which is of `system`; gives the names that were filled,
    by our names.

    Every weight of the network's part must be in the checkpoint, in its shape, but for the positions of an image
    encoder for another image size, which are resized; what else is there (a classifier that nobody asked for) stays
    there. Raises `BadCheckpoint` naming what does not fit, `UnknownName` for a part that is not there.
    """
    tensors = _borrowed(system, start.source) or opened_once(start.source).tensors
    theirs = {_below(name, start.take): tensor for name, tensor in tensors.items()}
    wanted = {name: value for name, value in network.state_dict().items() if _below(name, start.into) is not None}
    if not wanted:
        raise unknown_part(start.into, [name for name, _ in network.named_modules()])
    if not any(name is not None for name in theirs):
        parts = {name.split(".")[0] for name in tensors}
        raise unknown(f"part of {start.source}", start.take, parts)
    found = {name: theirs.get(_below(name, start.into)) for name in wanted}
    wrong = [
        name
        for name, tensor in found.items()
        if tensor is None or not (tensor.shape == tuple(wanted[name].shape) or _resizable(network, name, tensor.shape))
    ]
    if wrong:
        what = {"": "the network", "image": "the image encoder"}.get(start.into, start.into)
        raise BadCheckpoint(f"{start.source}: {what} has another size: {', '.join(wrong[:3])} do not fit")
    with torch.no_grad():
        for name, tensor in found.items():
            assert tensor is not None
            values = tensor.load()
            if values.shape != wanted[name].shape:
                encoder = network.get_submodule(name.rpartition(".")[0])
                assert isinstance(encoder, ViT)
                values = encoder.resized_positions(values)
                LOG.info("%s: its image encoder's %s positions became %s", start.source, tensor.shape[0], len(values))
            wanted[name].copy_(values)
    return list(wanted)


def _resizable(network: nn.Module, name: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor of this shape is the positions of the same image encoder for square images of another size."""
    owner, _, leaf = name.rpartition(".")
    encoder = network.get_submodule(owner)
    if leaf != "positions" or not isinstance(encoder, ViT) or len(shape) != 2:
        return False
    places = shape[0] - encoder.cfg.class_token
    return shape[1] == encoder.cfg.width and places > 0 and math.isqrt(places) ** 2 == places


def _below(name: str, part: str) -> str | None:
    """A name inside a part, without the part's; None for what lies elsewhere."""
    if not part:
        return name
    if name == part:  # a single weight
        return ""
    return name.removeprefix(part + ".") if name.startswith(part + ".") else None


def grid_waves(rows: int, columns: int, width: int) -> Tensor:
    """(rows · columns, width): sines and cosines of the column, then of the row, a quarter to four waves over the
    image; unit length."""

    def waves(number: int) -> Tensor:
        at = (torch.arange(number) + 0.5)[:, None] / number
        angles = 2 * math.pi * at * 0.25 * 16 ** torch.linspace(0, 1, width // 4)
        return torch.cat([angles.sin(), angles.cos()], dim=1) * (2 / width) ** 0.5

    across = waves(columns)[None].expand(rows, -1, -1)
    down = waves(rows)[:, None].expand(-1, columns, -1)
    return torch.cat([across, down], dim=-1).flatten(0, 1)


@torch.no_grad()
def interpolate(network: nn.Module, config: TrainConfig, copied: Mapping[str, str]) -> None:
    """Go back, in place, to weights between those that were copied before the first step (0) and those learned (1):
    WiSE-FT, equation 1. What began at random stays as it was learned."""
    if config.wise_ft == 1:
        return
    before = dict(build(replace(config, lora=None)).network.named_parameters())
    for name, parameter in network.named_parameters():
        if name in copied and parameter.requires_grad:
            parameter.lerp_(share_of(before[name].to(parameter.device), parameter), 1 - config.wise_ft)
        elif name.endswith("lora_b"):
            parameter.mul_(config.wise_ft)
