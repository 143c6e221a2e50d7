"""What a training step multiplies and keeps, recorded while it runs on tensors without values."""

import weakref
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import conv_flop_count, flop_registry

LOSS = "loss"  # the part of all that is in no module of the network's own
_SMALL = 1 << 18  # numbers of a tensor that is worked out in earnest where its values are known

_aten = torch.ops.aten


def _attention(q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
    """Scores and mixing. Grouped keys serve as many queries."""
    batch, heads, queries, width = q.shape
    return 2 * batch * heads * queries * k.shape[2] * (width + v.shape[3])


def _attention_backward(_grad: Any, q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
    """Twice as much, without the scores that a fused kernel works out once more."""
    return 2 * _attention(q, k, v)


def _convolution_backward(
    grad: Any,
    x: Any,
    weight: Any,
    _bias: Any,
    _stride: Any,
    _pad: Any,
    _dilation: Any,
    transposed: bool,
    *rest: Any,
) -> int:
    """For the input and for the weight as much as forward. (PyTorch's formula forgets the groups of depthwise ones.)"""
    return int(conv_flop_count(x.shape, weight.shape, grad.shape, transposed=transposed)) * sum(rest[-1][:2])


# operator → FLOPs of a call
_FORMULAS: dict[Any, Callable[..., int]] = {
    _aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    _aten.convolution_backward: _convolution_backward,
}


class Recorder(TorchDispatchMode):
    """Records a step of `network`, whose tensors have shapes and no values (`fake`), on so many examples.

    What is a multiple of `examples` belongs to them; all else is paid once. Small tensors whose values are known, such
    as tokens, are computed, so that a network may read them.
    """

    def __init__(self, network: nn.Module, fake: FakeTensorMode, examples: int):
        super().__init__()
        self.network, self.fake, self.examples = network, fake, examples
        self.forward: Counter[str] = Counter()  # FLOPs of an example, by part
        self.backward: Counter[str] = Counter()
        self.again: Counter[str] = Counter()
        self.kept: Counter[str] = Counter()  # bytes of an example that autograd keeps, by part
        self.kept_once = 0  # and those of no example
        self.moments: set[tuple[int, int]] = set()  # bytes in memory after an operator: of no example, of each
        self._once = self._each = 0  # what is in memory now, without the network and its gradients
        self._stack: list[str] = []
        self._nodes: list[int] = [0]  # autograd's numbers at which the part changes, and the parts from there on
        self._parts: list[str] = [LOSS]
        self._own = {_storage(t) for t in (*network.parameters(), *network.buffers())}
        self._weights = {_storage(p): n.partition(".")[0] for n, p in network.named_parameters()}
        self._sizes: dict[int, tuple[int, int]] = {}  # of what is in memory, by storage
        self._saved: set[int] = set()

    @contextmanager
    def recording(self) -> Iterator["Recorder"]:
        """Everything inside is recorded."""
        with ExitStack() as stack:
            for name, module in self.network.named_modules():
                if name:
                    part = name.partition(".")[0]
                    stack.callback(module.register_forward_pre_hook(self._entering(part)).remove)
                    stack.callback(module.register_forward_hook(self._leaving).remove)
            for parameter in self.network.parameters():
                if parameter.requires_grad:
                    stack.callback(parameter.register_post_accumulate_grad_hook(self._accumulated).remove)
            stack.enter_context(torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor))
            stack.enter_context(self.fake)
            stack.enter_context(self)
            yield self

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Of PyTorch's, which would wrap each of some ten thousand calls. Nothing is compiled here."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.namespace == "prim":  # asks for a device, as half of all calls do
            return args[0].fake_device if isinstance(args[0], FakeTensor) else func(*args, **kwargs)
        packet = func._overloadpacket
        if packet not in _FORMULAS and packet not in flop_registry and _is_composite(func):
            with self:
                return func.decompose(*args, **kwargs)
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        out = func(*args, **kwargs)
        if tensors and not any(isinstance(t, FakeTensor) for t in tensors) and _is_small(out):
            with unset_fake_temporarily():
                out = func(*args, **kwargs)
        if packet in _FORMULAS:
            self._count(_FORMULAS[packet](*args, **kwargs), tensors)
        elif packet in flop_registry:
            self._count(flop_registry[packet](*args, **kwargs, out_val=out), tensors)
        elif packet is _aten._to_copy and _storage(tensors[0]) in self._weights:  # autocast's
            self._weights[_storage(out)] = self._weights[_storage(tensors[0])]
        for leaf in out if isinstance(out, tuple | list) else (out,):
            if isinstance(leaf, Tensor):
                self.hold(leaf)
        self.moments.add((self._once, self._each))
        return out

    def hold(self, tensor: Tensor) -> None:
        """Count a tensor's storage, until it is freed."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._sizes and key not in self._own:
            self._sizes[key] = once, each = self._shared(storage.nbytes())
            self._once, self._each = self._once + once, self._each + each
            weakref.finalize(storage, self._free, key)

    def _shared(self, size: int) -> tuple[int, int]:
        each, rest = divmod(size, self.examples)
        return (size, 0) if rest else (0, each)

    def _free(self, key: int) -> None:
        once, each = self._sizes.pop(key)
        self._once, self._each = self._once - once, self._each - each
        self._saved.discard(key)
        self._weights.pop(key, None)

    def _accumulated(self, parameter: Tensor) -> None:
        """Gradients are counted elsewhere."""
        assert parameter.grad is not None
        key = _storage(parameter.grad)
        if key in self._sizes:
            once, each = self._sizes[key]
            self._once, self._each = self._once - once, self._each - each
            self._sizes[key] = (0, 0)

    def _pack(self, tensor: Tensor) -> Tensor:
        """Autograd keeps a tensor; what a block computes again is not kept."""
        key = _storage(tensor)
        if key not in self._saved and key not in self._own and torch._C._current_autograd_node() is None:
            self.hold(tensor)
            self._saved.add(key)
            once, each = self._shared(tensor.untyped_storage().nbytes())
            self.kept[self._stack[-1] if self._stack else LOSS] += each
            self.kept_once += once
        return tensor

    def _count(self, flops: int, tensors: list[Tensor]) -> None:
        flops = self._shared(flops)[1]
        node = torch._C._current_autograd_node()
        if node is not None:
            part = self._parts[bisect_right(self._nodes, node._sequence_nr()) - 1]
            (self.again if torch.is_grad_enabled() else self.backward)[part] += flops
        elif self._stack:
            self.forward[self._stack[-1]] += flops
        else:  # outside of all modules a product belongs to the part whose weights it reads
            part = next((self._weights[k] for k in map(_storage, tensors) if k in self._weights), LOSS)
            self.forward[part] += flops
            number = torch._C._autograd._get_sequence_nr()
            self._turn(number - 1, part)
            self._turn(number, LOSS)

    def _entering(self, part: str) -> Callable[..., None]:
        def enter(*_: Any) -> None:
            self._stack.append(part)
            self._turn(torch._C._autograd._get_sequence_nr(), part)

        return enter

    def _leaving(self, *_: Any) -> None:
        self._stack.pop()
        self._turn(torch._C._autograd._get_sequence_nr(), self._stack[-1] if self._stack else LOSS)

    def _turn(self, number: int, part: str) -> None:
        """From this number on, autograd's nodes are of another part."""
        if torch._C._current_autograd_node() is None and part != self._parts[-1]:
            self._nodes.append(number)
            self._parts.append(part)


def _is_small(out: Any) -> bool:
    return all(leaf.numel() <= _SMALL for leaf in tree_leaves(out) if isinstance(leaf, Tensor))


@cache
def _is_composite(func: Any) -> bool:
    return func.namespace == "aten" and func._can_decompose()


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
