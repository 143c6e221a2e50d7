"""What a run leaves: a directory in a released layout, which `rebus.load` opens."""

from pathlib import Path

import torch
from torch import nn

from rebus import catalog
from rebus.codec.processor import Processor
from rebus.core.card import PHOTOS, SHAPES, domain_files
from rebus.core.system import Layout
from rebus.data.file_records import Files, Mixture
from rebus.nn.lora import merge_lora
from rebus.objectives.patch_names import HEAD
from rebus.save_checkpoint import save_checkpoint
from rebus.train.config import TrainConfig
from rebus.train.warm_start import domain_of, opened_once, starts_of, starts_whole
from rebus.weights.companions import companion_files


def final_layout(config: TrainConfig) -> Layout:
    """The layout of the finished model: that of what it started from, where it can be written so.

    Raises `UsageError` where no layout of the system can represent the model, which is checked before the first step.
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
    files |= domain_files(_domain(config))
    return save_checkpoint(directory, layout, config.model, kept, processor=processor, files=files)


def _domain(config: TrainConfig) -> str:
    """What the finished model counts as: that of what it started from, however little it learned since, or else that of
    its data."""
    starts = [domain_of(str(config.system), start.source) for start in starts_of(config)]
    drawn = PHOTOS not in starts if starts else not isinstance(config.data, Files | Mixture)
    return SHAPES if drawn else PHOTOS


def _final_dtype(config: TrainConfig) -> torch.dtype:
    """That of the recipe, or of what the run started from."""
    if config.final_dtype is not None:
        found: torch.dtype = getattr(torch, config.final_dtype)
        return found
    return torch.float32 if config.start_from is None else opened_once(config.start_from).dtype
