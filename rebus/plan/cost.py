"""What training costs of it: which layers learn, the FLOPs of an example, and the bytes kept for the way back."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

from rebus.core.errors import UsageError, unknown
from rebus.plan.anatomy import Anatomy, Part
from rebus.plan.layers import Layer

Role = Literal["trained", "beside", "passing", "idle"]  # beside: frozen, with LoRA's thin matrices at its side


@dataclass(frozen=True, kw_only=True)
class Learning:
    """Which modules learn: all but the `frozen`; with a `rank`, only thin matrices beside those of `lora`."""

    frozen: tuple[str, ...] = ()
    rank: int = 0
    lora: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PartCost:
    """Of one part: counts of numbers, and FLOPs and bytes of an example."""

    title: str
    params: int
    trained: int
    copied: int  # weights whose bfloat16 copies wait for the way back under autocast
    forward: int
    backward: int
    again: int  # FLOPs of what checkpointing computes a second time
    kept: int  # bytes for the way back
    kept_once: int  # bytes of the one layer that is computed again, with checkpointing
    largest: int  # numbers in its largest layer that is repeated
    single: int  # numbers in the layers that are not
    split: int  # numbers, FLOPs and bytes of all these that tensor parallelism deals out
    split_flops: int
    split_kept: int


def check_names(names: Collection[str], known: Collection[str]) -> None:
    """Raise `UnknownName` for a part that the model does not have."""
    for name in names:
        if name not in known:
            raise unknown("part of the model", name, known, see=f"Parts: {', '.join(known)}.")


def costs(body: Anatomy, learning: Learning, *, checkpointing: bool) -> list[PartCost]:
    """The cost of each part. Raises `UsageError` where nothing is left to train."""
    check_names([*learning.frozen, *learning.lora], body.names())
    found, passes = [], False
    for part in body.parts:
        passes = passes and part.joins
        cost, passes = _part(part, learning, passes, checkpointing)
        found.append(cost)
    if not any(cost.trained for cost in found):
        raise UsageError("nothing is left to train: freeze less, or name what to train")
    return found


def _part(part: Part, learning: Learning, passes: bool, checkpointing: bool) -> tuple[PartCost, bool]:
    """`passes`: whether the gradient goes on to what came before, since something there learns."""
    forward = backward = again = kept = once = trained = copied = 0
    split = split_flops = split_kept = 0
    for layer, role, goes_on in _roles(part, learning, passes):
        thin = learning.rank * layer.thin
        extra = 2 * layer.tokens * thin if role == "beside" else 0
        products = layer.linear + layer.attention
        forward += layer.count * (products + extra)
        back = _backward(layer, role, goes_on, extra)
        backward += layer.count * back
        copied += layer.count * layer.weights * _needs_weights(layer, role, goes_on)
        bytes_kept = {"trained": layer.kept, "beside": layer.kept - layer.gains, "passing": layer.passing, "idle": 0}[
            role
        ]
        if checkpointing and layer.entry and bytes_kept:
            kept += layer.count * layer.entry
            once = max(once, bytes_kept)
            again += layer.count * (products + extra)
        else:
            kept += layer.count * bytes_kept
            split_kept += layer.count * min(layer.split_kept, bytes_kept)
        if layer.split:
            split += layer.count * layer.split
            twice = products + extra if checkpointing and layer.entry and bytes_kept else 0
            split_flops += layer.count * (products + extra + back + twice)
        trained += layer.count * {"trained": layer.params, "beside": thin}.get(role, 0)
        passes = passes or role in ("trained", "beside")
    repeated = [layer for layer in part.layers if layer.count > 1]
    cost = PartCost(
        title=part.title,
        params=sum(layer.count * layer.params for layer in part.layers),
        trained=trained,
        copied=copied,
        forward=forward,
        backward=backward,
        again=again,
        kept=kept,
        kept_once=once,
        largest=max((layer.params for layer in repeated), default=0),
        single=sum(layer.params for layer in part.layers if layer.count == 1),
        split=split,
        split_flops=split_flops,
        split_kept=split_kept,
    )
    return cost, passes


def _roles(part: Part, learning: Learning, passes: bool) -> Iterator[tuple[Layer, Role, bool]]:
    """Each layer, what it does in training, and whether gradients go on to the layer before it."""
    for layer in part.layers:
        role: Role = "passing" if passes else "idle"
        if learning.rank:
            if layer.thin and _within(layer.name, learning.lora):
                role = "beside"
        elif not _within(layer.name, learning.frozen):
            role = "trained"
        yield layer, role, passes
        passes = passes or role in ("trained", "beside")


def _backward(layer: Layer, role: Role, goes_on: bool, extra: int) -> int:
    """A product is worth one more for the gradient of its weight and one for that of its input."""
    if role == "idle":
        return 0
    inputs = _needs_weights(layer, role, goes_on)
    return (role == "trained") * layer.linear + inputs * layer.linear + 2 * layer.attention + 2 * extra


def _needs_weights(layer: Layer, role: Role, goes_on: bool) -> bool:
    """Whether the gradient of its input is wanted; within a block there always is such an input."""
    return role != "idle" and (goes_on or layer.count > 1 or layer.attention > 0)


def _within(name: str, names: Collection[str]) -> bool:
    return any(name == one or name.startswith(one + ".") for one in names)
