"""How much memory a model takes to answer, before it is loaded: its weights, and what one answer needs beside them."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode

from rebus.core.errors import UsageError
from rebus.core.system import System
from rebus.nn.embedding import TokenEmbedding
from rebus.nn.int4 import GROUP
from rebus.nn.patches import PatchProjection
from rebus.open_checkpoint import config_of
from rebus.plan.recorder import Recorder
from rebus.plan.trace import without_values
from rebus.weights.load_weights import on_meta

DTYPES = ("float32", "bfloat16", "int8", "int4")
_PROMPT, _ANSWER = 16, 32  # tokens of the example


@dataclass(frozen=True)
class InferenceMemory:
    """Bytes. `weights` by dtype; `answer`: most that one image and its text take at a time in float32, None where
    that cannot be known without values."""

    weights: dict[str, int]
    answer: int | None


def weight_memory(name: str) -> dict[str, int]:
    """Bytes of the weights of a catalogue name, directory or Hub id by dtype; nothing is loaded.

    Raises what `config_of` raises, and `UsageError` for a model that is put together only when it is loaded.
    """
    return _weights(_on_meta(*config_of(name)))


def inference_memory(name: str) -> InferenceMemory:
    """The same, and the memory of one answer, recorded on tensors without values. Raises the same."""
    system, config = config_of(name)
    network = _on_meta(system, config)
    return InferenceMemory(_weights(network), _answer(system, config, network))


def _on_meta(system: System, config: Any) -> nn.Module:
    if system.assemble and not system.layouts:
        raise UsageError(f"{system.name} is put together of installed parts when it is loaded")
    with on_meta():
        network: nn.Module = system.build(config).eval()
    return network


def _weights(network: nn.Module) -> dict[str, int]:
    """`quantize_linears` says which layers become integers: a scale a row, or a scale and a zero point for each group
    of inputs; tied embeddings and image encoders have 8 bits in either."""
    buffers = sum(b.numel() * b.element_size() for b in network.buffers())
    numbers = {id(p): p.numel() for p in network.parameters()}
    found = {"float32": 4 * sum(numbers.values()) + buffers, "bfloat16": 2 * sum(numbers.values()) + buffers}
    eight, four = 0, 0
    for path, module in network.named_modules():
        if isinstance(module, nn.Linear | PatchProjection | TokenEmbedding) and id(module.weight) in numbers:
            size = numbers.pop(id(module.weight))
            rows = module.weight.shape[0]
            in_eight = size + 4 * rows
            eight += in_eight
            half = isinstance(module, nn.Linear) and "image." not in f"{path}."
            four += size // 2 + 4 * (size // GROUP) if half else in_eight
    rest = 4 * sum(numbers.values()) + buffers
    return found | {"int8": eight + rest, "int4": four + rest}


def _answer(system: System, config: Any, network: nn.Module) -> int | None:
    if system.example is None:
        return None
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    without_values(network, fake)
    batch = system.example(config, 1, prompt=_PROMPT, answer=_ANSWER)
    recorder = Recorder(network, fake, 1)
    try:
        with torch.no_grad(), recorder.recording():
            for tensor in batch.values():
                recorder.hold(tensor)
            network(**batch)
    except (DataDependentOutputException, DynamicOutputShapeException):  # shapes that follow from values
        return None
    return max(once + each for once, each in recorder.moments)
