"""The interface that a task needs of a model."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor

from rebus.codec.processor import Processor
from rebus.core.errors import MissingFile, UnsupportedTask, UsageError
from rebus.core.places import LocationNotation
from rebus.core.specs import ImageSpec
from rebus.core.system import System
from rebus.generation import options_of
from rebus.generation.familiar import in_our_names

# What holds where neither the user nor the system says otherwise.
DECODING: Mapping[str, Mapping[str, Any]] = {
    "caption": {"max_new_tokens": 64},
    "ask": {"max_new_tokens": 32},
    "detect": {"max_new_tokens": 256},
    "segment": {"max_new_tokens": 128},
    "read": {"max_new_tokens": 256},
    "perform": {"max_new_tokens": 256},
    "complete": {"max_new_tokens": 64},
    "imagine": {"strategy": "sample"},
}


class TaskModel(Protocol):
    """`rebus.api.Model` is one. `endings()`: `eos_id`, `pad_id` and `decode`, as `rebus.generation` takes them."""

    network: Any
    processor: Processor
    system: System
    config: Any
    companions: Mapping[str, Any]  # by the names of `system.companions`; those whose file is missing are absent

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype: ...

    def generate(self, **options: Any) -> Tensor: ...

    def endings(self) -> dict[str, Any]: ...


class Placed(Protocol):
    """An object with a device and a dtype."""

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype: ...


def on_device(model: Placed, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The batch on the network's device; images in its dtype."""
    return {
        name: tensor.to(model.device, model.dtype if tensor.is_floating_point() else None)
        for name, tensor in batch.items()
    }


def one_report(model: TaskModel, around: str = "") -> AbstractContextManager[None]:
    """Treat all texts encoded inside as one call: the number of truncated ones is logged once, and no loss of words of
    `around`, which are not the caller's."""
    text = model.processor.text
    return nullcontext() if text is None else text.one_report(around)


def batch_size(model: TaskModel, cpu: int, accelerator: int) -> int:
    """The batch size to try first. Running out of memory halves it, see `in_batches`."""
    return cpu if model.device.type == "cpu" else accelerator


def prompt_for(model: TaskModel, task: str) -> str:
    """The system's prompt for a task. Raises `UnsupportedTask` where it has none."""
    prompt: str | None = getattr(model.system.prompts, task)
    if prompt is None:
        raise UnsupportedTask(f"{model.system.name} has no prompt for {task}: it cannot be asked to")
    return prompt


def decoding_for(model: TaskModel, task: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The decoding options of a call: the user's, over the system's for this task, over those of every system.

    Of the defaults only what the chosen strategy takes: who asks for "sample" is not refused for a `num_beams` that
    the system prefers.
    """
    given = in_our_names(given)
    defaults = {**DECODING[task], **model.system.decoding.get(task, {})}
    strategy = given.get("strategy", defaults.get("strategy", "greedy"))
    taken = options_of(strategy)
    return {**{name: value for name, value in defaults.items() if name in taken}, "strategy": strategy, **given}


def no_decoding(model: TaskModel, decoding: Mapping[str, Any]) -> None:
    """Raises `UsageError` for decoding options where the network generates no text for this task."""
    if decoding:
        raise UsageError(
            f"{model.system.name} generates no text here, so that the decoding option {next(iter(decoding))} has no "
            "meaning for it"
        )


def no_places(model: TaskModel) -> UnsupportedTask:
    """The error for a system without location tokens of the kind that is needed."""
    return UnsupportedTask(f"{model.system.name} neither finds regions nor states places in its text")


def locations_of(model: TaskModel) -> LocationNotation:
    """The location notation of the system. Raises `UnsupportedTask` if it has none."""
    if model.system.locations is None:
        raise no_places(model)
    return model.system.locations


def companion(model: TaskModel, name: str) -> Any:
    """A companion of the network. Raises `MissingFile` naming its file where the checkpoint lacks it."""
    if name not in model.companions:
        wanted = model.system.companions[name]
        raise MissingFile(f"this checkpoint has no {wanted.file}, without which {wanted.purpose}")
    return model.companions[name]


def image_spec(model: TaskModel) -> ImageSpec:
    """The image preprocessor. Raises `MissingFile` if the checkpoint has none."""
    if model.processor.image is None:
        raise MissingFile(
            f"this checkpoint has no {model.processor.image_missing}, without which it cannot process images"
        )
    return model.processor.image.spec
