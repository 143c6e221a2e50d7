"""Published networks made shallow, batches for them, and what autograd saves of a pass."""

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from rebus import catalog

PROMPT, ANSWER = 5, 7


def shallow(system: str, preset: str, layers: int = 2) -> Any:
    """A published configuration with fewer layers and fewer words: the same layers, fewer times."""
    cfg = catalog.system(system).presets[preset]
    if hasattr(cfg.image, "num_layers"):
        cfg = replace(cfg, image=replace(cfg.image, num_layers=layers))
    if hasattr(cfg, "image_id"):
        cfg = replace(cfg, image_id=4096)
    words = 4096 if hasattr(cfg, "image_id") else 1000
    return replace(cfg, text=replace(cfg.text, num_layers=layers, vocab_size=words))


def narrow(system: str, preset: str) -> Any:
    """One layer deep, with small images and a thin decoder: quick on a processor, in bfloat16 too."""
    cfg = shallow(system, preset, layers=1)
    if hasattr(cfg, "image_id"):
        text = replace(cfg.text, width=256, head_width=32, mlp_width=1024, vocab_size=512)
        image = replace(cfg.image, width=144, num_heads=4, mlp_width=512, image_size=56)
        return replace(cfg, image=image, text=text, image_id=512)
    if hasattr(cfg.image, "num_layers"):
        text = replace(cfg.text, width=128, num_heads=4, mlp_width=512)
        image = replace(cfg.image, width=192, num_heads=4, mlp_width=768)
        return replace(cfg, image=image, text=text, embed=192)
    image = replace(cfg.image, width=32, image_size=96, layers=(1, 2, 2, 2))
    return replace(cfg, image=image, text=replace(cfg.text, width=128, num_heads=4, mlp_width=512))


def batch(cfg: Any, rows: int) -> dict[str, torch.Tensor]:
    """Zeros and ones in the shapes of training, on the default device."""
    size = cfg.image.image_size
    if hasattr(cfg, "image_id"):
        pictures = torch.full((rows, cfg.num_image_tokens), cfg.image_id)
        tokens = torch.cat([pictures, torch.ones(rows, PROMPT, dtype=torch.long)], dim=1)
        targets = torch.ones(rows, ANSWER, dtype=torch.long)
        return {"pixels": torch.ones(rows, 3, size, size), "tokens": tokens, "targets": targets}
    tokens = torch.ones(rows, cfg.text.context, dtype=torch.long)
    if getattr(cfg.image, "flat_patches", False):
        height, width = cfg.image.grid
        patches = torch.ones(rows, height * width, 3 * cfg.image.patch_size**2)
        return {"pixels": patches, "grid": torch.tensor([[height, width]] * rows), "tokens": tokens}
    return {"pixels": torch.ones(rows, 3, size, size), "tokens": tokens}


def freeze(network: nn.Module, names: tuple[str, ...]) -> None:
    for name, parameter in network.named_parameters():
        if any(name == one or name.startswith(one + ".") for one in names):
            parameter.requires_grad_(False)


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
