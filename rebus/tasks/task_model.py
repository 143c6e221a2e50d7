"""What a task needs of the model that it is given."""

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from rebus.codec.processor import Processor
from rebus.core.errors import MissingFile, UnsupportedTask
from rebus.core.specs import ImageSpec
from rebus.core.system import System


class TaskModel(Protocol):
    """`rebus.api.Model` is one. `endings()`: `eos_id`, `pad_id` and `decode`, as `rebus.generation` takes them."""

    network: Any
    processor: Processor
    system: System
    mask_decoder: Any  # `decode(codes (B, 16)) -> (B, 64, 64)`, above 0 inside; None where there is none

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype: ...

    def generate(self, **options: Any) -> Tensor: ...

    def endings(self) -> dict[str, Any]: ...


def on_device(model: TaskModel, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The batch where the network is; images in its precision."""
    return {
        name: tensor.to(model.device, model.dtype if tensor.is_floating_point() else None)
        for name, tensor in batch.items()
    }


def batch_size(model: TaskModel, cpu: int, accelerator: int) -> int:
    """How many items to try at once. Running out of memory halves it, see `in_batches`."""
    return cpu if model.device.type == "cpu" else accelerator


def prompt_for(model: TaskModel, task: str) -> str:
    """The system's prompt for a task. Raises `UnsupportedTask` where it has none."""
    words: str | None = getattr(model.system.prompts, task)
    if words is None:
        raise UnsupportedTask(f"{model.system.name} has no prompt for {task}: it cannot be asked to")
    return words


def image_spec(model: TaskModel) -> ImageSpec:
    """How the model sees images. Raises `MissingFile` where the checkpoint does not say."""
    if model.processor.image is None:
        raise MissingFile(f"this checkpoint has no {model.processor.image_missing}, without which it cannot see images")
    return model.processor.image.spec
