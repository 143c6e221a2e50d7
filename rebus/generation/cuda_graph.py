"""Decoding steps replayed as CUDA graphs: one launch a token instead of one for each of some hundred kernels.

A graph reads and writes fixed places, so that each has a static cache of its own. A cache that comes from elsewhere
(from reading the prompt, or rows picked by beam search) is copied in at its first step; from then on it lies there.
"""

import weakref
from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Int
from torch import Tensor

from rebus.core.outputs import Step
from rebus.nn.cache import Cache

SLOTS = 128  # caches are as long as the next multiple, so that prompts of nearly all lengths share a few graphs
MOST = 4  # graphs kept, and with them their caches
_WARM_UP = 3  # calls before the recording: compilation, and the workspaces of libraries

NextStep = Callable[[Tensor, Cache], Step]


class GraphedStep:
    """`network.step` (token (B,), cache) → `Step`, on a GPU as a graph for each shape of the cache.

    What it returns is the caller's: no later step changes it, except that keys and values are written in place, as
    ever. The cache that comes back may have more slots than the one that was given, none of them real. Elsewhere than
    on a GPU, with gradients, or when more than `MOST` sequences are under way at once, the step runs as it is.
    """

    def __init__(self, step: NextStep):
        self.step = step
        self._graphs: list[_Graph] = []

    def __call__(self, token: Int[Tensor, "B"], cache: Cache) -> Step:
        if not self._can_record(token, cache):
            return self.step(token, cache)
        with torch.inference_mode():
            graph = self._graph_of(token, cache)
            return self.step(token, cache) if graph is None else graph(token, cache)

    def _can_record(self, token: Tensor, cache: Cache) -> bool:
        return token.is_cuda and isinstance(cache, Cache) and not torch.is_grad_enabled()

    def _graph_of(self, token: Tensor, cache: Cache) -> "_Graph | None":
        """That in which the cache lies already, else one of its shape which no living cache needs, else a new one."""
        for graph in self._graphs:
            if graph.holds(cache):
                return graph
        free = [graph for graph in self._graphs if graph.is_free()]
        fitting = next((graph for graph in free if graph.shape == _shape(cache)), None)
        if fitting is not None:
            return fitting
        if len(self._graphs) == MOST:
            if not free:
                return None
            self._graphs.remove(free[0])
        self._graphs.append(_Graph(self.step, token, cache))
        return self._graphs[-1]


class _Graph:
    """One recorded step with the places it reads and writes."""

    def __init__(self, step: NextStep, token: Tensor, cache: Cache):
        self.shape = _shape(cache)
        slots = self.shape[4]
        self.token = token.clone()
        self.cache = replace(
            cache,
            keys=tuple(_lengthened(key, 2, slots) for key in cache.keys),
            values=tuple(_lengthened(value, 2, slots) for value in cache.values),
            real=_lengthened(cache.real, 1, slots),
            positions=_lengthened(cache.positions, 1, slots),
            slot=cache.slot.clone(),
            claimed=cache.claimed[:0].clone(),
            next_position=cache.next_position.clone(),
        )
        self._replay, self._out = _record(lambda: step(self.token, self.cache))
        self._keys: Callable[[], Tensor | None] = lambda: None  # the first layer's, as the caches lying here know it

    def holds(self, cache: Cache) -> bool:
        return bool(cache.keys) and cache.keys[0] is self._keys()

    def is_free(self) -> bool:
        return self._keys() is None

    def __call__(self, token: Tensor, cache: Cache) -> Step:
        if not self.holds(cache):
            cache = self._take_in(cache)
        own = self.cache
        self.token.copy_(token)
        for place, value in (
            (own.real, cache.real),
            (own.positions, cache.positions),
            (own.slot, cache.slot),
            (own.next_position, cache.next_position),
        ):
            place.copy_(value)
        self._replay()
        after = self._out.cache
        cache = replace(
            cache,
            real=after.real.clone(),
            positions=after.positions.clone(),
            slot=after.slot.clone(),
            next_position=after.next_position.clone(),
        )
        return Step(self._out.logits.clone(), self._out.hidden.clone(), cache)

    def _take_in(self, cache: Cache) -> Cache:
        """The same cache, with its keys and values here. Others may lie here once nobody knows these any more."""
        own, slots = self.cache, cache.real.shape[1]
        for place, given in zip((*own.keys, *own.values), (*cache.keys, *cache.values), strict=True):
            place[:, :, :slots].copy_(given)
        keys = tuple(key.view_as(key) for key in own.keys)
        self._keys = weakref.ref(keys[0])
        return Cache(
            keys=keys,
            values=own.values,
            real=_lengthened(cache.real, 1, self.shape[4]),
            positions=_lengthened(cache.positions, 1, self.shape[4]),
            slot=cache.slot,
            claimed=own.claimed,
            next_position=cache.next_position,
        )


def _shape(cache: Cache) -> tuple[torch.device, torch.dtype, int, int, int, int, int]:
    """Device, dtype, layers, rows, slots rounded up, heads and head width."""
    first = cache.keys[0]
    rows, heads, slots, width = first.shape
    return first.device, first.dtype, len(cache.keys), rows, -(-slots // SLOTS) * SLOTS, heads, width


def _lengthened(tensor: Tensor, dim: int, length: int) -> Tensor:
    """A copy, zeros at its end."""
    shape = list(tensor.shape)
    shape[dim] = length
    longer = tensor.new_zeros(shape)
    longer.narrow(dim, 0, tensor.shape[dim]).copy_(tensor)
    return longer


def _record(run: Callable[[], Step]) -> tuple[Callable[[], None], Step]:
    """A graph of `run`: what replays it, and the places where its results will be."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UP):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        out = run()
    return graph.replay, out
