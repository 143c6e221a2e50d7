"""What lies beside a network in a checkpoint directory: mask decoders, answer lists, image decoders."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rebus.core.errors import BadCheckpoint
from rebus.core.system import Companion


def open_companions(companions: Mapping[str, Companion], folder: Path | None, device: torch.device) -> dict[str, Any]:
    """Those whose file is there, by name; modules on `device`, ready for inference. Raises what their loaders raise.

    `folder` None: a model put together from parts, which lies in no directory.
    """
    found: dict[str, Any] = {}
    for name, path in _paths(companions, folder).items():
        part = companions[name].load(path)
        found[name] = part.to(device).eval() if isinstance(part, nn.Module) else part
    return found


def companion_files(companions: Mapping[str, Companion], folder: Path | None) -> dict[str, bytes]:
    """Their files, by file name, to be saved again with the network."""
    return {path.name: path.read_bytes() for path in _paths(companions, folder).values()}


def _paths(companions: Mapping[str, Companion], folder: Path | None) -> dict[str, Path]:
    paths = {} if folder is None else {name: folder / companion.file for name, companion in companions.items()}
    return {name: path for name, path in paths.items() if path.is_file()}


def read_answers(path: Path) -> list[str]:
    """The answers of a list, one a line, `<unk>` first. Raises `BadCheckpoint` for anything else."""
    try:
        answers = path.read_text("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BadCheckpoint(f"{path}: not a readable list of answers ({error})") from None
    answers = answers[:-1] if answers[-1] == "" else answers
    if len(answers) < 2 or answers[0] != "<unk>" or len(set(answers)) < len(answers):
        raise BadCheckpoint(f"{path}: expected one answer a line, each once, and <unk> in the first")
    return answers
