"""What a run starts from and what it leaves: a network, its data, and a directory in Hub layout."""

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rebus import catalog
from rebus.codec.processor import Processor
from rebus.core.config import from_dict
from rebus.core.errors import BadCheckpoint, UsageError, unknown
from rebus.core.system import Layout
from rebus.data.file_records import Files, Mixture, file_batches, mixed_batches
from rebus.data.record_batches import Batches, RecordBatches
from rebus.data.scene_captions import SceneCaptions
from rebus.data.scene_tasks import SceneTasks
from rebus.nn.frozen import set_trained
from rebus.nn.lora import add_lora, merge_lora
from rebus.objectives import objective_of
from rebus.objectives.patch_names import HEAD, SeeAndSpeakLoss
from rebus.open_checkpoint import Opened, open_checkpoint, processor_in, save_checkpoint
from rebus.train.config import Start, TrainConfig
from rebus.train.sharded_tensors import share_of
from rebus.weights.companions import companion_files


def config_from_dict(data: Mapping[str, Any], where: str = "config") -> TrainConfig:
    """The settings of a run out of its `config.json`. Raises `BadConfig` naming every field that does not fit."""
    config = from_dict(TrainConfig, data, where)
    if isinstance(config.model, Mapping):
        model: Any = from_dict(catalog.system(str(config.system)).config, config.model, f"{where}.model")
        config = replace(config, model=model)
    return config


def resolved(config: TrainConfig) -> TrainConfig:
    """The recipe with `system` and `model` filled in from `start_from` where it leaves them open.

    Raises `UsageError` where there is nothing to take them from, or the model is not one of the system.
    """
    if config.system is None or config.model is None:
        if config.start_from is None:
            raise UsageError("start_from says which model is to be trained: --set start_from=DIR, or a catalogue name")
        opened = opened_once(config.start_from)
        config = replace(config, system=config.system or opened.system.name, model=config.model or opened.config)
    system = catalog.system(str(config.system))
    objective_of(system)
    if not 0 <= config.wise_ft <= 1 or (config.wise_ft < 1 and not starts_of(config)):
        raise UsageError(f"wise_ft={config.wise_ft:g}: a share between 0 and 1, of a run that has a start_from")
    wanted = system.config
    if not isinstance(config.model, wanted):
        raise UsageError(
            f"system={config.system} wants a {wanted.__name__} as its model; got a {type(config.model).__name__}"
        )
    return config


@lru_cache(maxsize=8)
def opened_once(name: str) -> Opened:
    """A checkpoint that a run asks for more than once."""
    return open_checkpoint(name)


def starts_of(config: TrainConfig) -> tuple[Start, ...]:
    """Where weights come from before the first step, `start_from` first: all of it for a checkpoint of the run's own
    system, its image tower for one of another."""
    if config.start_from is None:
        return config.starts
    tower = "" if starts_whole(config) else "image"
    return (Start(source=config.start_from, take=tower, into=tower), *config.starts)


def open_data(config: TrainConfig, data: Any = None) -> Batches:
    """What gives the batches of `data`, by default the recipe's own. Raises what the data set raises."""
    measured = data is not None or config.eval_every > 0
    data, system = config.data if data is None else data, catalog.system(str(config.system))
    if isinstance(data, Files):
        return file_batches(data, processor_of(config), system.prompts, system.locations, measured)
    if isinstance(data, Mixture):
        return mixed_batches(data, processor_of(config), system.prompts, system.locations, measured)
    if isinstance(data, SceneCaptions):
        return _of_scenes(config, data.open())
    if isinstance(data, SceneTasks):
        if system.text_spec is None:
            raise UsageError(f"{config.system} reads no text, which data.kind={data.kind!r} is made of")
        return _of_scenes(config, data.open(system.text_spec(config.model), system.prompts, system.locations))
    batches: Batches = data
    return batches


def _of_scenes(config: TrainConfig, batches: RecordBatches) -> RecordBatches:
    """The batches, of which a model with another vocabulary or image size would learn nonsense."""
    model: Any = config.model
    assert batches.images is not None
    tokens, size = batches.text.tokenizer.vocab_size, batches.images.spec.size[0]
    if model.text.vocab_size != tokens:
        raise UsageError(
            f"scenes are told in the {tokens:,} tokens of their own world; the model has {model.text.vocab_size:,}. "
            "Write them to a folder and learn from that (`rebus data`), or train a model of the scenes world"
        )
    if getattr(model.image, "image_size", size) != size:
        raise UsageError(f"the scenes have {size} pixels a side, the model's images {model.image.image_size}")
    return batches


def processor_of(config: TrainConfig) -> Processor:
    """The tokenizer and preprocessor that the recipe names, or those of the checkpoint that it starts from."""
    name = config.processor or config.start_from
    if name is None:
        raise UsageError("processor says whose tokenizer and preprocessor are used: --set processor=DIR")
    opened = opened_once(name)
    if opened.folder is None or (opened.system.name, opened.config) == (config.system, config.model):
        return opened.processor()
    return processor_in(opened.folder, catalog.system(str(config.system)), config.model)


class Built(NamedTuple):
    """A network before its first step. `copied`: parameter → the checkpoint that it was taken from."""

    network: nn.Module
    copied: dict[str, str]


def build(config: TrainConfig) -> Built:
    """A fresh network with what its `starts` bring.

    Raises `BadCheckpoint` where something does not fit, `UnknownName` for a frozen part that does not exist,
    `UsageError` where nothing is left to train.
    """
    network: nn.Module = catalog.system(str(config.system)).network(config.model)
    copied: dict[str, str] = {}
    for start in starts_of(config):
        copied |= dict.fromkeys(copy_weights(network, start), start.source)
    set_trained(network, config.freeze, False)
    if config.lora is not None:
        add_lora(network, config.lora.parts, config.lora.rank, config.lora.alpha)
        set_trained(network, config.lora.whole, True)
    if config.position_waves and not starts_whole(config):
        positions = network.get_parameter("image.positions")
        rows, columns = config.model.image.grid
        with torch.no_grad():
            positions[-rows * columns :] += config.position_waves * grid_waves(rows, columns, positions.shape[1])
    if isinstance(config.objective, SeeAndSpeakLoss):
        config.objective.extend(network)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise UsageError(f"freeze={list(config.freeze)} leaves nothing to train")
    return Built(network, copied)


def starts_whole(config: TrainConfig) -> bool:
    """Whether a run goes on from a checkpoint of its own system, so that nothing is to be set before the first step."""
    return config.start_from is not None and opened_once(config.start_from).system.name == config.system


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


def copy_weights(network: nn.Module, start: Start) -> list[str]:
    """Copy a part of a checkpoint into a part of the network; gives the names that were filled, by our names.

    Every weight of the network's part must be in the checkpoint, in its shape; what else is there (a classifier that
    nobody asked for) stays there. Raises `BadCheckpoint` naming what does not fit, `UnknownName` for a part that is not
    there.
    """
    opened = opened_once(start.source)
    theirs = {_below(name, start.take): tensor for name, tensor in opened.tensors.items()}
    wanted = {name: value for name, value in network.state_dict().items() if _below(name, start.into) is not None}
    if not wanted:
        raise unknown("part of the network", start.into, [name for name, _ in network.named_modules() if name])
    if not any(name is not None for name in theirs):
        parts = {name.split(".")[0] for name in opened.tensors}
        raise unknown(f"part of {start.source}", start.take, parts)
    found = {name: theirs.get(_below(name, start.into)) for name in wanted}
    wrong = [name for name, tensor in found.items() if tensor is None or tensor.shape != tuple(wanted[name].shape)]
    if wrong:
        what = {"": "the network", "image": "the image tower"}.get(start.into, start.into)
        raise BadCheckpoint(f"{start.source}: {what} has another size: {', '.join(wrong[:3])} do not fit")
    with torch.no_grad():
        for name, tensor in found.items():
            assert tensor is not None
            wanted[name].copy_(tensor.load())
    return list(wanted)


def _below(name: str, part: str) -> str | None:
    """A name inside a part, without the part's; None for what lies elsewhere."""
    if not part:
        return name
    return name.removeprefix(part + ".") if name.startswith(part + ".") else None


def final_layout(config: TrainConfig) -> Layout:
    """The layout of the finished model: that of what it started from, where it can be written so.

    Raises `UsageError` where no layout of the system can hold the model, which is found out before the first step.
    """
    first = opened_once(config.start_from).layout if starts_whole(config) else None
    return catalog.system(str(config.system)).layout_for(config.model, first)


def save_final(config: TrainConfig, network: nn.Module, processor: Processor | None, directory: Path) -> Path:
    """The finished model in a released layout with its tokenizer and preprocessor, and what lay beside the weights that
    it started from."""
    merge_lora(network)
    layout = final_layout(config)
    if layout.save is not None:
        return save_checkpoint(directory, layout, config.model, network.state_dict())
    dtype, files = _final_dtype(config), {}
    if config.start_from is not None:
        opened = opened_once(config.start_from)
        files = companion_files(opened.system.companions, opened.folder)
    kept = {k: v.detach() for k, v in network.state_dict().items() if not k.startswith(HEAD)}
    kept = {k: v.to(dtype) if v.is_floating_point() else v for k, v in kept.items()}
    return save_checkpoint(directory, layout, config.model, kept, processor=processor, files=files)


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


def _final_dtype(config: TrainConfig) -> torch.dtype:
    """That of the recipe, or of what the run started from."""
    if config.final_dtype is not None:
        found: torch.dtype = getattr(torch, config.final_dtype)
        return found
    return torch.float32 if config.start_from is None else opened_once(config.start_from).dtype
