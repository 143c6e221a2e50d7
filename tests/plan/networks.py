"""Published networks made small, and a real step of them, on real numbers."""

from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from rebus import catalog
from rebus.nn.blocks import blocks_of
from rebus.nn.frozen import round_frozen, set_trained
from rebus.nn.lora import add_lora
from rebus.nn.recompute import recomputed
from rebus.objectives import objective_of
from rebus.plan.step import Step

PROMPT, ANSWER = 5, 7


def narrow(system: str, preset: str) -> Any:
    """Two layers deep, with small images and thin encoders: quick on a processor, in bfloat16 too."""
    cfg = catalog.system(system).presets[preset]
    if not any(hasattr(cfg.image, depth) for depth in ("num_layers", "layers")):  # of a published depth, and small
        text = replace(cfg.text, width=64, num_layers=2, num_heads=4, mlp_width=128, vocab_size=512)
        return replace(cfg, text=text)
    text = replace(cfg.text, num_layers=2, vocab_size=512)
    if hasattr(cfg, "image_id"):
        text = replace(text, width=256, head_width=32, mlp_width=1024)
        image = replace(cfg.image, num_layers=2, width=144, num_heads=4, mlp_width=512, image_size=56)
        return replace(cfg, image=image, text=text, image_id=512)
    text = replace(text, width=128, num_heads=4, mlp_width=512)
    if cfg.image is None:  # features of regions
        return replace(cfg, text=text)
    if hasattr(cfg.image, "num_layers"):
        image = replace(cfg.image, num_layers=2, width=192, num_heads=4, mlp_width=768)
        image = replace(image, image_size=4 * image.patch_size)
        return replace(cfg, image=image, text=text, embed=192)
    image = replace(cfg.image, width=16, image_size=64, layers=(1, 2, 1, 1))
    return replace(cfg, image=image, text=text)


def network_of(system: str, cfg: Any, step: Step) -> nn.Module:
    """As `rebus train` prepares it."""
    network = catalog.system(system).network(cfg).train()
    set_trained(network, step.learning.frozen, False)
    if step.learning.rank:
        add_lora(network, step.learning.lora, step.learning.rank, 16.0)
    if step.bf16:
        round_frozen(network)
    if step.checkpointing:
        for block in blocks_of(network):
            block.forward = recomputed(block.forward)
    return network


def take_step(system: str, cfg: Any, network: nn.Module, rows: int, bf16: bool) -> Any:
    """The way forward of a step on real numbers, without what compares a whole batch; gives its way back."""
    described = catalog.system(system)
    objective = objective_of(described, cfg)
    batch = described.example(cfg, rows, prompt=PROMPT, answer=ANSWER)
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=bf16)
    if not hasattr(objective, "compare"):
        with autocast:
            total = objective(network, batch).total
        return total.backward
    with autocast:
        found = objective.embed(network, batch)
    return sum(v.sum() for v in found if v is not None and v.requires_grad).backward


def counted(system: str, cfg: Any, step: Step, rows: int = 2) -> tuple[int, int]:
    """FLOPs of an example forward and back, by PyTorch's counter; attention as plain products, which it knows."""
    network = network_of(system, cfg, step)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        back = take_step(system, cfg, network, rows, step.bf16)
        forward = counter.get_total_flops()
        back()
    return forward // rows, (counter.get_total_flops() - forward) // rows


def saved(system: str, cfg: Any, step: Step, rows: int) -> int:
    """Bytes that autograd keeps of so many examples."""
    network = network_of(system, cfg, step)
    with Saved(network) as kept:
        back = take_step(system, cfg, network, rows, step.bf16)
    assert back
    return kept.bytes


class Saved:
    """Bytes of the storages that autograd keeps inside the `with`, parameters and buffers aside."""

    def __init__(self, network: nn.Module):
        own = [*network.parameters(), *network.buffers()]
        self._known = {t.untyped_storage().data_ptr() for t in own}
        self._kept: list[torch.Tensor] = []  # or an address could be used twice
        self.bytes = 0

    def _pack(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._known:
            self._known.add(storage.data_ptr())
            self._kept.append(tensor)
            self.bytes += storage.nbytes()
        return tensor

    def __enter__(self) -> "Saved":
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor)
        self._hooks.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._hooks.__exit__(*error)
