"""Put weights into a network, strictly: every name fits, every value is finite, nothing is left at random."""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from rebus.core.errors import BadCheckpoint
from rebus.weights.lazy_tensor import LazyTensor, Tensors

_PIECE = 8 * 2**20  # bytes that are converted at a time, so that the source is never whole in memory beside the result
_FUNCTIONS = {  # of one tensor, number by number
    *("cos", "sin", "exp", "log", "sqrt", "rsqrt", "reciprocal"),
    *("empty_like", "zeros_like", "ones_like", "full_like", "rand_like", "randn_like"),
}
_SERIES = {"arange", "linspace", "logspace", "eye"}
_LISTED = 20  # names of one kind in an error


@dataclass
class _Slot:
    """One tensor of the network under all its names; tied weights have several."""

    names: list[str]
    value: Tensor


class _Unfilled(TorchFunctionMode):
    """Values are not computed for tensors that have none: on the meta device that is only work.

    (It is seconds of it: PyTorch spells random numbers and functions there in Python, and imports its compiler for
    that.)
    """

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name, options = getattr(function, "__name__", ""), dict(kwargs or {})
        if name.endswith("_") and not name.endswith("__") and name != "requires_grad_":
            tensor = args[0] if args else options.get("tensor")
            if isinstance(tensor, Tensor) and tensor.is_meta:
                return tensor
        if options.get("device") is not None:
            return function(*args, **options)
        if name in _FUNCTIONS and args and isinstance(args[0], Tensor) and args[0].is_meta:
            like = args[0]
            return torch.empty_strided(like.size(), like.stride(), dtype=options.get("dtype") or like.dtype)
        if name in _SERIES and "out" in options:
            return options["out"]
        if name in _SERIES:
            return function(*args, **(options | {"device": "cpu"}))  # tables are small: what follows is quicker so
        if name == "randn":
            return torch.empty(*args, **{key: value for key, value in options.items() if key != "generator"})
        return function(*args, **options)


@contextmanager
def on_meta() -> Iterator[None]:
    """Networks built inside have shapes and types but no values, for `load_into` to fill; nothing is initialised.
    Tables that are computed may have theirs, on the CPU."""
    with torch.device("meta"), _Unfilled():
        yield


def load_into(
    network: nn.Module,
    tensors: Tensors,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> nn.Module:
    """Fill a network, usually one on the meta device, and return it.

    `tensors` go by our names. They are read one at a time, straight to `device` (default: CPU) and `dtype` (default:
    as in the file; integers and booleans keep theirs). On the CPU and in the type of the file nothing is copied: the
    parameters are the mapped file, or the given tensors themselves. Buffers that are not saved are rebuilt by
    `init_buffers()` of the network, or else of those of its modules that have one.

    Raises `BadCheckpoint` listing all that is missing, unexpected, of a wrong shape, dtype or not finite; the
    network is then as it was.
    """
    target = torch.device(device or "cpu")
    slots = _slots(network)
    given = {name: LazyTensor.of(tensor) for name, tensor in tensors.items()}
    if faults := _misfits(slots, given):
        raise BadCheckpoint("weights do not fit the network. " + "; ".join(faults))
    filled: list[tuple[_Slot, Tensor]] = []
    problems = []
    for slot in slots:
        sources = [name for name in slot.names if name in given]
        wanted = dtype if dtype is not None and slot.value.is_floating_point() else given[sources[0]].dtype
        tensor = _read(given[sources[0]], target, wanted)
        if not _finite(tensor):
            problems.append(_not_finite(sources[0], given[sources[0]], wanted))
        for other in sources[1:]:
            same = given[other].tie is not None and given[other].tie == given[sources[0]].tie
            if not same and not _read(given[other], target, wanted).equal(tensor):
                problems.append(f"{sources[0]} and {other} are one weight here and differ there")
        filled.append((slot, tensor))
    if problems:
        raise BadCheckpoint("weights cannot be used: " + _some(problems))
    for slot, tensor in filled:
        _assign(network, slot, tensor)
    _rebuild_buffers(network, target)
    return network


def _slots(network: nn.Module) -> list[_Slot]:
    slots: dict[int, _Slot] = {}
    for name, value in network.state_dict(keep_vars=True).items():
        slots.setdefault(id(value), _Slot([], value)).names.append(name)
    return list(slots.values())


def misfits(network: nn.Module, tensors: Tensors) -> list[str]:
    """What `load_into` would say of names, shapes and kinds of numbers, one entry a kind of fault; reads nothing."""
    return _misfits(_slots(network), {name: LazyTensor.of(tensor) for name, tensor in tensors.items()})


def _misfits(slots: Iterable[_Slot], given: Mapping[str, LazyTensor]) -> list[str]:
    missing, shapes, kinds = [], [], []
    known = {name for slot in slots for name in slot.names}
    unexpected = [name for name in given if name not in known]
    for slot in slots:
        present = [name for name in slot.names if name in given]
        if not present:
            missing.append(slot.names[0])
        for name in present:
            tensor, wanted = given[name], slot.value
            if tensor.shape != tuple(wanted.shape):
                shapes.append(f"{name} expects {list(wanted.shape)}, got {list(tensor.shape)}")
            elif tensor.dtype.is_floating_point != wanted.dtype.is_floating_point:
                kinds.append(f"{name} expects {_kind(wanted.dtype)}, got {tensor.dtype}".replace("torch.", ""))
    parts = []
    if missing:
        parts.append(f"{len(missing)} missing: {_some(missing, unexpected)}")
    if unexpected:
        parts.append(f"{len(unexpected)} unexpected: {_some(unexpected, missing or known)}")
    if shapes:
        parts.append(f"{len(shapes)} of another shape: {_some(shapes)}")
    if kinds:
        parts.append(f"{len(kinds)} of another type: {_some(kinds)}")
    return parts


def _kind(dtype: torch.dtype) -> str:
    return "floating-point numbers" if dtype.is_floating_point else str(dtype)


def _some(items: Sequence[str], others: Iterable[str] = ()) -> str:
    """The first of a list, each with the nearest of the others, and how many there are beyond."""
    choices = list(others)[:1000]
    words = []
    for item in items[:_LISTED]:
        near = difflib.get_close_matches(item, choices, n=1, cutoff=0.6)
        words.append(f"{item} (nearest: {near[0]})" if near else item)
    return ", ".join(words) + (f" and {len(items) - _LISTED} more" if len(items) > _LISTED else "")


def _read(source: LazyTensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The values on the device, in the type. What had to be copied is copied in pieces, given back as it goes."""
    values = source.load()
    if values.dtype == dtype and values.device == device and values.is_contiguous():
        return values
    result = torch.empty(values.shape, dtype=dtype, device=device)
    if not values.numel() or not values.dim():
        result.copy_(values)
    else:
        rows = max(1, _PIECE * values.shape[0] // max(1, values.numel() * values.element_size()))
        for start in range(0, values.shape[0], rows):
            result[start : start + rows].copy_(values[start : start + rows])
            source.release()
    source.release()
    return result


def _finite(tensor: Tensor) -> bool:
    """No NaN and no infinity. The extremes tell, at the speed of the memory."""
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    if tensor.dtype.itemsize == 1:
        tensor = tensor.float()
    low, high = tensor.aminmax()
    return bool(low.isfinite() & high.isfinite())


def _not_finite(name: str, source: LazyTensor, dtype: torch.dtype) -> str:
    if source.dtype != dtype and _finite(source.load()):
        return f"{name} has values too large for {str(dtype).removeprefix('torch.')}"
    return f"{name} holds NaN or infinity"


def _assign(network: nn.Module, slot: _Slot, tensor: Tensor) -> None:
    """Put one tensor in all its places."""
    value = nn.Parameter(tensor, slot.value.requires_grad) if isinstance(slot.value, nn.Parameter) else tensor
    for name in slot.names:
        path, _, leaf = name.rpartition(".")
        module = network.get_submodule(path)
        if isinstance(value, nn.Parameter):
            module._parameters[leaf] = value
        else:
            module._buffers[leaf] = value


def _rebuild_buffers(network: nn.Module, device: torch.device) -> None:
    """Tables that are computed, not saved, such as rotary angles."""
    modules = [network] if hasattr(network, "init_buffers") else list(network.modules())
    with device:
        for make in [getattr(module, "init_buffers", None) for module in modules]:
            if callable(make):
                make()
    tensors = chain(network.named_parameters(), network.named_buffers())
    left = [name for name, t in tensors if t.device.type != device.type]
    if left:
        raise RuntimeError(f"not on {device}: {_some(left)}; a module lacks init_buffers()")
