"""A trace: the real network and objective take one step on tensors that have shapes and no values.

Twice, with two examples and with three: what grows is an example's, and what does not is paid once.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
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
from rebus.objectives import OBJECTIVES, Learner, backward
from rebus.plan.recorder import LOSS, Recorder
from rebus.plan.step import Contrast, Learning, Memory, Part, Step, Trace
from rebus.weights.load_weights import on_meta

_PROMPT = 16  # tokens


def trace(system: System, config: Any, step: Step) -> Trace:
    """Raises `UsageError` for a system that is not trained, for heads that do not divide among the ranks, and where
    nothing is left to train; `UnknownName` for parts that the network does not have."""
    if system.objective is None or system.example is None:
        raise UsageError(f"{system.name} is put together from trained parts: there is nothing to train")
    size = system.image_spec(config).size if system.image_spec is not None else None
    prompt, answer = _lengths(step, size)
    few, more = (_Run(system, config, step, rows, prompt, answer) for rows in (2, 3))
    grid = getattr(config.image, "grid", None)
    generates = "targets" in few.batch
    return Trace(
        parts=tuple(_parts(few, more)),
        held=_bytes(few.network.parameters()) + _bytes(few.network.buffers()),
        copies=3 * few.recorder.kept.total() - 2 * more.recorder.kept.total(),
        moments=tuple(_moments(few.recorder.moments, more.recorder.moments)),
        outside=_bytes(few.network.parameters()) - sum(_bytes(b.parameters()) for b in few.blocks),
        block=max((_bytes(block.parameters()) for block in few.blocks), default=0),
        image_size=size,
        patches=math.prod(grid) if grid is not None else None,
        prompt=prompt if generates else None,
        answer=answer if generates else None,
        text=prompt + answer if generates else few.batch["tokens"].shape[1],
        contrast=few.contrast,
    )


def _lengths(step: Step, size: tuple[int, int] | None) -> tuple[int, int]:
    together = 128 if size is None or max(size) <= 224 else 512
    prompt = _PROMPT if step.prompt is None else step.prompt
    return prompt, max(1, together - prompt) if step.answer is None else step.answer


class _Run:
    """One step with so many examples."""

    def __init__(self, system: System, config: Any, step: Step, rows: int, prompt: int, answer: int):
        assert system.objective is not None and system.example is not None
        objective = OBJECTIVES[system.objective]()
        with on_meta():
            self.network: nn.Module = system.network(config).train()
            self.params = _numbers(self.network)
            _choose(self.network, step.learning)
            _split(self.network, step.ranks)
        if step.bf16:
            round_frozen(self.network)
        fake = FakeTensorMode(allow_non_fake_inputs=True)
        _without_values(self.network, fake)
        self.blocks = blocks_of(self.network)
        if step.checkpointing:
            for block in self.blocks:
                block.forward = recomputed(block.forward)
        self.batch: Mapping[str, Tensor] = system.example(config, rows, prompt=prompt, answer=answer)
        self.recorder = Recorder(self.network, fake)
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
        self.contrast = Contrast(
            kind=objective.kind, width=found.image.shape[1], chunk=getattr(objective, "chunk", 0)
        )
        learned = [value for value in found if value is not None and value.requires_grad]
        torch.autograd.backward(learned, [torch.empty_like(value) for value in learned])


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
        raise UsageError("--tensor-parallel splits decoders; this network has none: leave it at 1")
    for block, split in splits:
        if split.columns:
            keep_heads(block, ranks)
        for names, dimension in ((split.columns, 0), (split.rows, 1)):
            for name in names:
                for kind, parameter in list(block.get_submodule(name).named_parameters()):
                    if parameter.ndim > dimension:
                        share = parameter.detach().chunk(ranks, dimension)[0].clone()
                        _put(block, f"{name}.{kind}", nn.Parameter(share, parameter.requires_grad))


def _without_values(network: nn.Module, fake: FakeTensorMode) -> None:
    """Move a network from the meta device to where a step can run."""
    made: dict[int, Tensor] = {}
    with fake:
        for name, tensor in [*network.named_parameters(remove_duplicate=False), *network.named_buffers(remove_duplicate=False)]:
            if id(tensor) not in made:
                empty = torch.empty_like(tensor, device="cpu")
                trained = isinstance(tensor, nn.Parameter)
                made[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if trained else empty
            _put(network, name, made[id(tensor)])
        for module in [network] if hasattr(network, "init_buffers") else list(network.modules()):
            if hasattr(module, "init_buffers"):
                module.init_buffers()


def _put(network: nn.Module, name: str, tensor: Tensor) -> None:
    path, _, leaf = name.rpartition(".")
    module = network.get_submodule(path)
    (module._parameters if isinstance(tensor, nn.Parameter) else module._buffers)[leaf] = tensor


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


def _parts(few: _Run, more: _Run) -> Iterator[Part]:
    """Parts in the order of the network, and the loss, each with what one example more takes."""
    trained: Counter[str] = Counter()
    for name, parameter in few.network.named_parameters():
        trained[_part_of(name)] += parameter.numel() * parameter.requires_grad
    a, b = few.recorder, more.recorder
    for title in (*dict(few.network.named_children()), LOSS):
        part = Part(
            title=title,
            params=few.params[title],
            trained=trained[title],
            forward=b.forward[title] - a.forward[title],
            backward=b.backward[title] - a.backward[title],
            again=b.again[title] - a.again[title],
            kept=b.kept[title] - a.kept[title],
        )
        if part.params or part.forward or part.kept:
            yield part


def _moments(few: list[tuple[bool, int]], more: list[tuple[bool, int]]) -> list[Memory]:
    """The moments of two and of three examples side by side, those that are highest for some number of examples."""
    if len(few) != len(more):  # a loop over examples: the highest moments of both ways
        few, more = ([(way, max(n for w, n in found if w == way)) for way in (False, True)] for found in (few, more))
    lines = {(3 * a - 2 * b, b - a) for (_, a), (_, b) in zip(few, more, strict=True)}
    highest: list[Memory] = []
    for fixed, each in sorted(lines, key=lambda line: (line[1], line[0])):
        line = Memory(fixed=fixed, each=each)
        while highest and (highest[-1].fixed <= fixed or len(highest) > 1 and _hides(highest[-2], highest[-1], line)):
            highest.pop()
        highest.append(line)
    return [line for line in highest if line.each >= 0]


def _hides(low: Memory, middle: Memory, high: Memory) -> bool:
    """Of three ever steeper lines, whether the middle one is nowhere the highest."""
    return (high.fixed - low.fixed) * (middle.each - low.each) >= (middle.fixed - low.fixed) * (high.each - low.each)
