"""Labels that were read lately: a vocabulary of a thousand in many sentences takes minutes, and is asked for again."""

from collections.abc import Sequence
from itertools import chain
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from rebus.tasks.classify import label_vectors
from rebus.tasks.task_model import TaskModel

_MOST = 20_000  # labels that are kept for a network; at 512 numbers each these are 41 MB
Key = tuple[str, tuple[str, ...]]  # a label and its sentences


class _Memory:
    """The vectors of one network's labels, for as long as its weights and tokenizer are these."""

    def __init__(self) -> None:
        self.state: tuple[Any, ...] = ()
        self.vectors: dict[Key, Tensor] = {}


_MEMORIES: "WeakKeyDictionary[nn.Module, _Memory]" = WeakKeyDictionary()


def _stand(tensor: Tensor) -> tuple[Any, ...]:
    """What changes when values do: where they lie, and how often they were written to."""
    return tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version, tensor.dtype


def remembered_vectors(model: TaskModel, labels: Sequence[str], templates: Sequence[str]) -> Tensor:
    """`label_vectors`, averaged, (C, E): of those labels alone that were not read before."""
    memory = _MEMORIES.setdefault(model.network, _Memory())
    state = (model.processor.text, *map(_stand, chain(model.network.parameters(), model.network.buffers())))
    if state != memory.state:
        memory.state, memory.vectors = state, {}
    keys = [(label, tuple(templates)) for label in labels]
    new = list(dict.fromkeys(key for key in keys if key not in memory.vectors))
    if len(memory.vectors) + len(new) > _MOST:
        memory.vectors, new = {}, list(dict.fromkeys(keys))
    if new:
        read = label_vectors(model, [label for label, _ in new], templates, average=True)
        memory.vectors |= dict(zip(new, read, strict=True))
    return torch.stack([memory.vectors[key] for key in keys])
