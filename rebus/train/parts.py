"""What a run starts from and what it leaves: a network, and a directory in Hub layout."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rebus import catalog
from rebus.backbones.vision.mask_vqvae import MaskVQVAE, MaskVQVAEConfig, save_npz
from rebus.core.errors import BadCheckpoint
from rebus.data.bundled import directory_of
from rebus.data.scene_batches import PIXEL_MEAN, PIXEL_STD, scenes_tokenizer
from rebus.data.scene_masks import CODEBOOK_FILE
from rebus.train.config import TrainConfig
from rebus.weights.files import open_weights, read_config, save_directory


def build(config: TrainConfig) -> nn.Module:
    """A fresh network; parts found in `start_from` under the same name and shape are copied from there."""
    if isinstance(config.model, MaskVQVAEConfig):
        return MaskVQVAE(config.model)
    network: nn.Module = catalog.system(config.system).network(config.model)
    if config.start_from is not None:
        copy_image_tower(network, directory_of(config.start_from))
    return network


def copy_image_tower(network: nn.Module, source: Path) -> None:
    """Take over `image.*` of another system's checkpoint. Raises `BadCheckpoint` where it does not fit."""
    data = read_config(source)
    layout = catalog.system(catalog.system_of_type(str(data.get("model_type")))).layouts["transformers"]
    assert layout.read_config is not None
    theirs = layout.keys(layout.read_config(data)).to_ours(open_weights(source))
    ours = {k: v for k, v in network.state_dict().items() if k.startswith("image.")}
    wrong = [k for k, v in ours.items() if k not in theirs or theirs[k].shape != tuple(v.shape)]
    if wrong:
        raise BadCheckpoint(f"{source}: the image tower has another size: {', '.join(wrong[:3])} do not fit")
    with torch.no_grad():
        for name, tensor in ours.items():
            tensor.copy_(theirs[name].load())


def save_final(config: TrainConfig, network: nn.Module, directory: Path) -> Path:
    """The finished model in Hub layout, float16, with its tokenizer and preprocessor; a mask VQ-VAE as the release's
    single file of arrays."""
    if isinstance(network, MaskVQVAE):
        directory.mkdir(parents=True, exist_ok=True)
        save_npz(network, directory / CODEBOOK_FILE)
        return directory
    layout = catalog.system(config.system).layouts["transformers"]
    assert layout.write_config is not None
    tensors = layout.keys(config.model).to_theirs({k: v.detach().half() for k, v in network.state_dict().items()})
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
