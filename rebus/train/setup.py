"""What a run starts from and what it leaves: a network, its data, and a directory in Hub layout."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rebus import catalog
from rebus.backbones.vision.mask_vqvae import MaskVQVAE, MaskVQVAEConfig, save_npz
from rebus.codec.processor import Processor, load_processor
from rebus.core.errors import BadCheckpoint, UsageError
from rebus.core.specs import Prompts
from rebus.data.bundled_checkpoints import directory_of
from rebus.data.file_batches import FileBatches, Files, MixedBatches, Mixture
from rebus.data.scene_batches import PIXEL_MEAN, PIXEL_STD, scenes_tokenizer
from rebus.data.scene_masks import CODEBOOK_FILE
from rebus.nn.frozen import set_trained
from rebus.nn.lora import add_lora, merge_lora
from rebus.objectives.patch_names import HEAD, SeeAndSpeakLoss
from rebus.train import lit_starter as starter
from rebus.train.config import TrainConfig
from rebus.train.sharded_tensors import share_of
from rebus.weights.checkpoint_files import open_weights, read_config, save_directory
from rebus.weights.hub import find


def resolved(config: TrainConfig) -> TrainConfig:
    """The recipe with `system` and `model` filled in from `start_from` where it leaves them open.

    Raises `UsageError` where there is nothing to take them from.
    """
    if not 0 <= config.wise_ft <= 1 or (config.wise_ft < 1 and config.start_from is None):
        raise UsageError(f"wise_ft={config.wise_ft:g}: a share between 0 and 1, of a run that has a start_from")
    if config.system is not None and config.model is not None:
        return config
    if config.start_from is None:
        raise UsageError("start_from says which model is to be trained: --set start_from=DIR, or a catalogue name")
    source = source_of(config.start_from)
    system = config.system or _system_of(source)
    read = catalog.system(system).layouts["transformers"].read_config
    assert read is not None
    return replace(config, system=system, model=config.model or read(read_config(source)))


def source_of(name: str) -> Path:
    """The directory of a checkpoint: bundled, on disk, or one of the Hub that is in the cache or can be fetched.

    "lit/starter" is put together from the networks of the extra "starter".
    """
    if name == starter.NAME:
        return starter.starter_directory()
    path = directory_of(name)
    if path.is_dir():
        return path
    card = catalog.ROWS.get(name)
    if card is None and name.split("/")[0] in catalog.MODULES:
        catalog.info(name)  # a misspelt catalogue name: says which are near
    return find(card.repo if card is not None and card.repo else name)


def open_data(config: TrainConfig, data: Any = None) -> Any:
    """What gives the batches of `data`, by default the recipe's own. Raises what the data set raises."""
    data = config.data if data is None else data
    if isinstance(data, Files):
        return FileBatches(data, processor_of(config), _prompts_of(config))
    if isinstance(data, Mixture):
        processor, prompts = processor_of(config), _prompts_of(config)
        return MixedBatches(data, lambda part: FileBatches(part, processor, prompts))
    return data


def reads_files(config: TrainConfig) -> bool:
    """Whether the run learns from data on disk, through a released processor, and not from the scenes world."""
    return isinstance(config.data, Files | Mixture)


def _prompts_of(config: TrainConfig) -> Prompts:
    return catalog.system(str(config.system)).prompts


def processor_of(config: TrainConfig) -> Processor:
    """The tokenizer and preprocessor that the recipe names, or those of the checkpoint that it starts from."""
    name = config.processor or config.start_from
    if name is None:
        raise UsageError("processor says whose tokenizer and preprocessor are used: --set processor=DIR")
    system = catalog.system(str(config.system))
    image = system.image_spec(config.model) if system.image_spec else None
    text = system.text_spec(config.model) if system.text_spec else None
    rows = config.model.text.vocab_size if text is not None else None  # type: ignore[union-attr]
    return load_processor(source_of(name), image, text, num_embeddings=rows)


def build(config: TrainConfig) -> nn.Module:
    """A fresh network, or that of `start_from`: all of it from the same system, the image tower from another.

    Raises `BadCheckpoint` where something does not fit, `UnknownName` for a frozen part that does not exist,
    `UsageError` where nothing is left to train.
    """
    if isinstance(config.model, MaskVQVAEConfig):
        return MaskVQVAE(config.model)
    network: nn.Module = catalog.system(str(config.system)).network(config.model)
    if config.start_from is not None:
        copy_parts(network, str(config.system), source_of(config.start_from))
    set_trained(network, config.freeze, False)
    if config.lora is not None:
        add_lora(network, config.lora.parts, config.lora.rank, config.lora.alpha)
        set_trained(network, config.lora.whole, True)
    if config.position_waves and not starts_whole(config):
        positions = network.get_parameter("image.positions")
        rows, columns = config.model.image.grid  # type: ignore[union-attr]
        with torch.no_grad():
            positions[-rows * columns :] += config.position_waves * grid_waves(rows, columns, positions.shape[1])
    if isinstance(config.objective, SeeAndSpeakLoss):
        config.objective.extend(network)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise UsageError(f"freeze={list(config.freeze)} leaves nothing to train")
    return network


def starts_whole(config: TrainConfig) -> bool:
    """Whether a run goes on from a checkpoint of its own system, so that nothing is to be set before the first step."""
    return config.start_from is not None and _system_of(source_of(config.start_from)) == config.system


def _system_of(source: Path) -> str:
    return catalog.system_of_type(str(read_config(source).get("model_type")))


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


def copy_parts(network: nn.Module, system: str, source: Path) -> None:
    """Take over a checkpoint: everything from the same system, `image.*` from another."""
    theirs = _system_of(source)
    layout = catalog.system(theirs).layouts["transformers"]
    assert layout.read_config is not None
    found = layout.keys(layout.read_config(read_config(source))).to_ours(open_weights(source))
    wanted = {k: v for k, v in network.state_dict().items() if theirs == system or k.startswith("image.")}
    wrong = [k for k, v in wanted.items() if k not in found or found[k].shape != tuple(v.shape)]
    if wrong:
        what = "the network" if theirs == system else "the image tower"
        raise BadCheckpoint(f"{source}: {what} has another size: {', '.join(wrong[:3])} do not fit")
    with torch.no_grad():
        for name, tensor in wanted.items():
            tensor.copy_(found[name].load())


def save_final(config: TrainConfig, network: nn.Module, directory: Path) -> Path:
    """The finished model in Hub layout with its tokenizer and preprocessor, in the precision of what it started from;
    of scenes, float16; a mask VQ-VAE as the release's single file of arrays."""
    if isinstance(network, MaskVQVAE):
        directory.mkdir(parents=True, exist_ok=True)
        save_npz(network, directory / CODEBOOK_FILE)
        return directory
    merge_lora(network)
    layout = catalog.system(str(config.system)).layouts["transformers"]
    assert layout.write_config is not None
    dtype, files = _own_files(config) if reads_files(config) else _scene_files(config)
    kept = {k: v.detach() for k, v in network.state_dict().items() if not k.startswith(HEAD)}
    kept = {k: v.to(dtype) if v.is_floating_point() else v for k, v in kept.items()}
    data = {**layout.write_config(config.model), "dtype": str(dtype).removeprefix("torch.")}
    save_directory(directory, data, layout.keys(config.model).to_theirs(kept), files)
    return directory


@torch.no_grad()
def interpolate(network: nn.Module, config: TrainConfig) -> None:
    """Go back, in place, to weights between those of the start (0) and those learned (1): WiSE-FT, equation 1."""
    if config.wise_ft == 1:
        return
    before = dict(build(replace(config, lora=None)).named_parameters())
    for name, parameter in network.named_parameters():
        if name in before and parameter.requires_grad:
            parameter.lerp_(share_of(before[name].to(parameter.device), parameter), 1 - config.wise_ft)
        elif name.endswith("lora_b"):
            parameter.mul_(config.wise_ft)


def _own_files(config: TrainConfig) -> tuple[torch.dtype, dict[str, bytes]]:
    """The precision and the files of what the run started from."""
    files = processor_of(config).files()
    if config.start_from is None:
        return torch.float32, files
    source = source_of(config.start_from)
    if (source / CODEBOOK_FILE).is_file():
        files[CODEBOOK_FILE] = (source / CODEBOOK_FILE).read_bytes()
    return next(w.dtype for w in open_weights(source).values() if w.dtype.is_floating_point), files


def _scene_files(config: TrainConfig) -> tuple[torch.dtype, dict[str, bytes]]:
    size = config.model.image.image_size  # type: ignore[union-attr]
    preprocessor: dict[str, Any] = {
        "image_processor_type": "SiglipImageProcessor",
        "do_resize": True,
        "size": {"height": size, "width": size},
        "resample": 3,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(PIXEL_MEAN),
        "image_std": list(PIXEL_STD),
    }
    files = scenes_tokenizer(locations=config.system == "paligemma").files
    return torch.float16, {**files, "preprocessor_config.json": json.dumps(preprocessor, indent=2).encode()}
