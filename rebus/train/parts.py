"""What a run starts from and what it leaves: a network, and a directory in Hub layout."""

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rebus import catalog
from rebus.backbones.vision.mask_vqvae import MaskVQVAE, MaskVQVAEConfig, save_npz
from rebus.core.errors import BadCheckpoint, UsageError, unknown
from rebus.data.bundled import directory_of
from rebus.data.scene_batches import PIXEL_MEAN, PIXEL_STD, scenes_tokenizer
from rebus.data.scene_masks import CODEBOOK_FILE
from rebus.nn.lora import add_lora, merge_lora
from rebus.objectives.patch_names import HEAD, SeeAndSpeakLoss
from rebus.train.config import TrainConfig
from rebus.weights.files import open_weights, read_config, save_directory


def build(config: TrainConfig) -> nn.Module:
    """A fresh network, or that of `start_from`: all of it from the same system, the image tower from another.

    Raises `BadCheckpoint` where something does not fit, `UnknownName` for a frozen part that does not exist,
    `UsageError` where nothing is left to train.
    """
    if isinstance(config.model, MaskVQVAEConfig):
        return MaskVQVAE(config.model)
    network: nn.Module = catalog.system(config.system).network(config.model)
    if config.start_from is not None:
        copy_parts(network, config.system, directory_of(config.start_from))
    freeze(network, config.freeze)
    if config.lora is not None:
        add_lora(network, config.lora.parts, config.lora.rank, config.lora.alpha)
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
    return config.start_from is not None and _system_of(directory_of(config.start_from)) == config.system


def _system_of(source: Path) -> str:
    return catalog.system_of_type(str(read_config(source).get("model_type")))


def grid_waves(rows: int, columns: int, width: int) -> Tensor:
    """(rows · columns, width): sines and cosines of the column, then of the row, a quarter to four waves over the
    picture; unit length."""

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


def freeze(network: nn.Module, parts: tuple[str, ...]) -> None:
    """No gradients for the modules and parameters of these names, and all below them."""
    names = [name for name, _ in network.named_modules() if name] + [name for name, _ in network.named_parameters()]
    for part in parts:
        if part not in names:
            raise unknown("part of the network", part, names)
        for name, parameter in network.named_parameters():
            if name == part or name.startswith(part + "."):
                parameter.requires_grad_(False)


def save_final(config: TrainConfig, network: nn.Module, directory: Path) -> Path:
    """The finished model in Hub layout, float16, with its tokenizer and preprocessor; a mask VQ-VAE as the
    release's single file of arrays."""
    if isinstance(network, MaskVQVAE):
        directory.mkdir(parents=True, exist_ok=True)
        save_npz(network, directory / CODEBOOK_FILE)
        return directory
    merge_lora(network)
    layout = catalog.system(config.system).layouts["transformers"]
    assert layout.write_config is not None
    kept = {k: v.detach().half() for k, v in network.state_dict().items() if not k.startswith(HEAD)}
    tensors = layout.keys(config.model).to_theirs(kept)
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
    files = {
        **scenes_tokenizer(locations=config.system == "paligemma").files,
        "preprocessor_config.json": json.dumps(preprocessor, indent=2).encode(),
    }
    data = {**layout.write_config(config.model), "dtype": "float16"}
    save_directory(directory, data, tensors, files)
    return directory
