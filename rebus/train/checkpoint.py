"""The state of a run on disk: weights and optimiser as safetensors, the rest as JSON, whole or not at all."""

import json
import os
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rebus.core.errors import BadCheckpoint
from rebus.train.average import Average

_PREFIX = "step_"
_AVERAGE = "average.safetensors"


def save(
    folder: Path,
    step: int,
    network: nn.Module,
    optimisers: list[torch.optim.Optimizer],
    keep: int,
    average: Average | None = None,
) -> Path:
    """Write `folder/step_<step>`, then forget all but the newest `keep`. Killed in the middle, nothing has changed."""
    folder.mkdir(parents=True, exist_ok=True)
    target, draft = folder / f"{_PREFIX}{step:08d}", folder / f".draft_{step:08d}_{os.getpid()}"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    save_file({k: v.detach().contiguous() for k, v in network.state_dict().items()}, draft / "weights.safetensors")
    save_file(_moments(network, optimisers), draft / "optimiser.safetensors")
    if average is not None:
        save_file(average.values, draft / _AVERAGE)
    (draft / "state.json").write_text(json.dumps({"step": step, "averaged": average.steps if average else 0}))
    for file in draft.iterdir():
        _sync(file)
    if target.exists():
        shutil.rmtree(target)
    draft.rename(target)
    _sync(folder)
    for old in steps(folder)[:-keep] if keep else []:
        shutil.rmtree(folder / f"{_PREFIX}{old:08d}")
    return target


def steps(folder: Path) -> list[int]:
    """The steps of the whole checkpoints in a folder, oldest first."""
    return sorted(int(p.name.removeprefix(_PREFIX)) for p in folder.glob(_PREFIX + "*") if (p / "state.json").is_file())


def load(
    folder: Path,
    step: int,
    network: nn.Module,
    optimisers: list[torch.optim.Optimizer],
    average: Average | None = None,
) -> None:
    """Put a checkpoint back. Raises `BadCheckpoint` where it belongs to another configuration."""
    source = folder / f"{_PREFIX}{step:08d}"
    try:
        network.load_state_dict(load_file(source / "weights.safetensors"))
    except RuntimeError as error:
        raise BadCheckpoint(f"{source}: not of this configuration ({str(error).splitlines()[-1].strip()})") from None
    saved = load_file(source / "optimiser.safetensors")
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    for optimiser in optimisers:
        for parameter in (p for group in optimiser.param_groups for p in group["params"]):
            ending = "." + names[id(parameter)]
            state = {k.removesuffix(ending): v for k, v in saved.items() if k.partition(".")[2] == ending[1:]}
            if state:
                optimiser.state[parameter] = state
    if average is not None:
        average.values = load_file(source / _AVERAGE)
        average.steps = int(json.loads((source / "state.json").read_text())["averaged"])


def _moments(network: nn.Module, optimisers: list[torch.optim.Optimizer]) -> dict[str, Tensor]:
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    return {
        f"{key}.{names[id(parameter)]}": torch.as_tensor(value).contiguous()
        for optimiser in optimisers
        for parameter, state in optimiser.state.items()
        for key, value in state.items()
    }


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
