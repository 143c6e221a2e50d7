"""A trace: the real network and objective take one step on tensors that have shapes and no values.

The number of examples is a prime that divides no dimension of the network, so that sizes show what scales with the
examples.
"""

import gc
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from rebus.core.errors import UsageError
from rebus.core.system import System
from rebus.nn.blocks import blocks_of, keep_heads, split_of
from rebus.nn.frozen import round_frozen, set_trained
from rebus.nn.lora import add_lora
from rebus.nn.recompute import recomputed
from rebus.objectives import Learner, backward, objective_of
from rebus.plan.recorder import LOSS, Recorder
from rebus.plan.step import Contrast, Learning, Memory, Part, Step, Trace
from rebus.weights.load_weights import on_meta

_PROMPT = 16  # tokens
_PRIMES = (13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97)


def trace(system: System, config: Any, step: Step) -> Trace:
    """Raises `UsageError` for a system that is not trained, for heads that do not divide among the ranks, and where
    nothing is left to train; `UnknownName` for parts that the network does not have."""
    objective = objective_of(system, config)
    if system.example is None:
        raise UsageError(f"{system.name} has no example batch to plan")
    spec = system.image_spec(config) if system.image_spec is not None else None
    size = None if spec is None else spec.size
    prompt, answer = _lengths(system, config, step, size)
    with _garbage_kept():
        run = _Run(system, config, objective, step, prompt, answer)
    grid = getattr(config.image, "grid", None)
    generates = "targets" in run.batch
    return Trace(
        parts=tuple(_parts(run)),
        held=_bytes(run.network.parameters()) + _bytes(run.network.buffers()),
        copies=run.recorder.kept_once,
        moments=tuple(_highest(run.recorder.moments)),
        outside=_bytes(run.network.parameters()) - sum(_bytes(b.parameters()) for b in run.blocks),
        block=max((_bytes(block.parameters()) for block in run.blocks), default=0),
        image_size=size,
        patches=math.prod(grid) if grid is not None else None,
        prompt=prompt if generates else None,
        answer=answer if generates else None,
        text=prompt + answer if generates else run.batch["tokens"].shape[1] if "tokens" in run.batch else 0,
        contrast=run.contrast,
    )


@contextmanager
def _garbage_kept() -> Iterator[None]:
    """A trace makes objects by the hundred thousand, none of them in cycles: looking for those takes a tenth of it."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _lengths(system: System, config: Any, step: Step, size: tuple[int, int] | None) -> tuple[int, int]:
    """Tokens of the prompt, which of a model that nobody asks anything is its start token, and of the answer. Raises
    `UsageError` for more than the model can read."""
    together = 128 if size is None or max(size) <= 224 else 512
    spec = system.text_spec(config) if system.text_spec is not None else None
    longest = spec.context if spec is not None and spec.generates else None
    asked = system.prompts.caption != "" or system.prompts.ask is not None
    prompt = (_PROMPT if asked else 1) if step.prompt is None else step.prompt
    answer = max(1, min(together, longest or together) - prompt) if step.answer is None else step.answer
    if longest is not None and prompt + answer > longest:
        raise UsageError(
            f"{prompt:,} tokens of prompt and {answer:,} of answer: {system.name} reads {longest:,} together"
        )
    return prompt, answer


class _Run:
    """A step under record."""

    def __init__(self, system: System, config: Any, objective: Any, step: Step, prompt: int, answer: int):
        assert system.example is not None
        with on_meta():
            self.network: nn.Module = system.build(config).train()
            self.params = _numbers(self.network)
            _choose(self.network, step.learning)
            _split(self.network, step.ranks)
        if step.bf16:
            round_frozen(self.network)
        fake = FakeTensorMode(allow_non_fake_inputs=True)
        without_values(self.network, fake)
        self.blocks = blocks_of(self.network)
        if step.checkpointing:
            for block in self.blocks:
                block.forward = recomputed(block.forward)
        examples = _examples(self.network, system.example(config, 1, prompt=prompt, answer=answer))
        self.batch: Mapping[str, Tensor] = system.example(config, examples, prompt=prompt, answer=answer)
        self.recorder = Recorder(self.network, fake, examples)
        self.contrast: Contrast | None = None
        with self.recorder.recording():
            for tensor in self.batch.values():
                self.recorder.hold(tensor)
            self._step(objective, torch.autocast("cpu", torch.bfloat16, enabled=step.bf16))

    def _step(self, objective: Any, autocast: torch.autocast) -> None:
        if not hasattr(objective, "compare"):
            backward(Learner(objective, self.network), [self.batch], lambda: autocast)
            return
        with autocast:  # what compares the whole batch is left out
            found = objective.embed(self.network, self.batch)
        self.contrast = Contrast(kind=objective.kind, width=found.image.shape[1], chunk=getattr(objective, "chunk", 0))
        learned = [value for value in found if value is not None and value.requires_grad]
        torch.autograd.backward(learned, [torch.empty_like(value) for value in learned])


def _examples(network: nn.Module, batch: Mapping[str, Tensor]) -> int:
    """A small prime that divides no other dimension."""
    taken = {size for tensor in (*network.parameters(), *network.buffers()) for size in tensor.shape}
    taken |= {size for tensor in batch.values() for size in tensor.shape[1:]}
    return next(prime for prime in _PRIMES if not any(size % prime == 0 for size in taken))


def _choose(network: nn.Module, learning: Learning) -> None:
    """Freeze what does not learn, as `rebus train` does."""
    if learning.only:
        network.requires_grad_(False)
        set_trained(network, learning.only, True)
    set_trained(network, learning.frozen, False)
    if learning.rank:
        add_lora(network, learning.lora, learning.rank, float(learning.rank))
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise UsageError("nothing is left to train: freeze less, or name what to train")


def _split(network: nn.Module, ranks: int) -> None:
    """Leave one rank's share of the matrices that `ranks` split."""
    if ranks == 1:
        return
    splits = [(block, split_of(block)) for block in blocks_of(network)]
    if not any(split.columns for _, split in splits):
        raise UsageError("--tensor-parallel splits blocks of attention; this network has none: leave it at 1")
    for block, split in splits:
        if split.columns:
            keep_heads(block, ranks)
        for names, dimension in ((split.columns, 0), (split.rows, 1)):
            for name in names:
                for kind, parameter in list(block.get_submodule(name).named_parameters()):
                    if parameter.ndim > dimension:
                        share = parameter.detach().chunk(ranks, dimension)[0].clone()
                        _put(block, f"{name}.{kind}", nn.Parameter(share, parameter.requires_grad))


def without_values(network: nn.Module, fake: FakeTensorMode) -> None:
    """Move a network from the meta device to where a step can run."""
    made: dict[int, Tensor] = {}
    with fake:
        for name, tensor in chain(_every(network.named_parameters), _every(network.named_buffers)):
            if id(tensor) not in made:
                empty = torch.empty_like(tensor, device="cpu")
                trained = isinstance(tensor, nn.Parameter)
                made[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if trained else empty
            _put(network, name, made[id(tensor)])
        for module in [network] if hasattr(network, "init_buffers") else list(network.modules()):
            make = getattr(module, "init_buffers", None)
            if callable(make):
                make()


def _every(named: Callable[..., Iterator[tuple[str, Tensor]]]) -> list[tuple[str, Tensor]]:
    """Under all their names."""
    return list(named(remove_duplicate=False))


def _put(network: nn.Module, name: str, tensor: Tensor) -> None:
    path, _, leaf = name.rpartition(".")
    module = network.get_submodule(path)
    if isinstance(tensor, nn.Parameter):
        module._parameters[leaf] = tensor
    else:
        module._buffers[leaf] = tensor


def _numbers(network: nn.Module) -> Counter[str]:
    """Parameters by part."""
    found: Counter[str] = Counter()
    for name, parameter in network.named_parameters():
        found[_part_of(name)] += parameter.numel()
    return found


def _part_of(name: str) -> str:
    first, dot, _ = name.partition(".")
    return first if dot else LOSS


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _parts(run: _Run) -> Iterator[Part]:
    """Parts in the order of the network, and the loss."""
    trained: Counter[str] = Counter()
    for name, parameter in run.network.named_parameters():
        trained[_part_of(name)] += parameter.numel() * parameter.requires_grad
    found = run.recorder
    for title in (*dict(run.network.named_children()), LOSS):
        part = Part(
            title=title,
            params=run.params[title],
            trained=trained[title],
            forward=found.forward[title],
            backward=found.backward[title],
            again=found.again[title],
            kept=found.kept[title],
        )
        if part.params or part.forward or part.kept:
            yield part


def _highest(moments: Iterable[tuple[int, int]]) -> list[Memory]:
    """The moments at which most is in memory, for some number of examples: the upper hull of their lines."""
    found: list[Memory] = []
    for fixed, each in sorted(moments, key=lambda moment: (moment[1], moment[0])):
        line = Memory(fixed=fixed, each=each)
        while found and (found[-1].fixed <= fixed or (len(found) > 1 and _hides(found[-2], found[-1], line))):
            found.pop()
        found.append(line)
    return found


def _hides(low: Memory, middle: Memory, high: Memory) -> bool:
    """Of three ever steeper lines, whether the middle one is nowhere the highest."""
    return (high.fixed - low.fixed) * (middle.each - low.each) >= (middle.fixed - low.fixed) * (high.each - low.each)
