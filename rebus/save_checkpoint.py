"""A checkpoint is written in a released layout of its system."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from rebus.codec.images import image_spec_to_json
from rebus.codec.processor import Processor
from rebus.core.system import Layout
from rebus.weights.lazy_tensor import LazyTensor, Tensors
from rebus.weights.save import save_directory


def save_checkpoint(
    directory: Path,
    layout: Layout,
    config: Any,
    tensors: Tensors,
    *,
    processor: Processor | None = None,
    files: Mapping[str, bytes] | None = None,
) -> Path:
    """Write a checkpoint in a layout of its system, atomically; returns the directory.

    `tensors` go by our names; `files`: what else lies beside the weights. Raises `CannotWrite`, and `BadConfig` where
    the layout would lose a field of the configuration.
    """
    if layout.save is not None:
        layout.save(directory, config, layout.keys(config).to_theirs(tensors))
        return directory
    data = layout.config_data(config)
    theirs = layout.keys(config).to_theirs(tensors)
    assert layout.config_file is not None
    extra = {**(files or {}), **(processor.files() if processor is not None else {})}
    if layout.config_file == "config.json":
        kinds = (LazyTensor.of(tensor).dtype for tensor in tensors.values())
        dtype = next((kind for kind in kinds if kind.is_floating_point), torch.float32)
        data |= {"dtype": str(dtype).removeprefix("torch.")}
    elif processor is not None and processor.image is not None:  # one file for the network and its preprocessing
        data["preprocess_cfg"] = image_spec_to_json(processor.image.spec, processor_class="open_clip")
        extra = {name: text for name, text in extra.items() if name not in ("preprocessor_config.json",)}
    extra.pop(layout.config_file, None)
    save_directory(directory, data, theirs, extra, config_name=layout.config_file, weights_name=layout.weights_name)
    return directory
