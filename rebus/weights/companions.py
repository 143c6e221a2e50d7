"""What lies beside a network in a checkpoint directory: mask decoders, answer lists, image decoders."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rebus.core.system import Companion


def open_companions(companions: Mapping[str, Companion], folder: Path, device: torch.device) -> dict[str, Any]:
    """Those whose file is there, by name; modules on `device`, ready for inference. Raises what their loaders raise."""
    found: dict[str, Any] = {}
    for name, companion in companions.items():
        if (folder / companion.file).is_file():
            part = companion.load(folder / companion.file)
            found[name] = part.to(device).eval() if isinstance(part, nn.Module) else part
    return found


def companion_files(companions: Mapping[str, Companion], folder: Path) -> dict[str, bytes]:
    """Their files, by file name, to be saved again with the network."""
    paths = [folder / companion.file for companion in companions.values()]
    return {path.name: path.read_bytes() for path in paths if path.is_file()}
