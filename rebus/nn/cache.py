"""A static key-value cache: what a decoder has seen, in tensors whose size never changes.

Rows may be padded on either side: `real` says which slots hold something, `positions` where in the sentence each
slot stands. The cache is passed in and returned, never kept by a module, so one network serves many sentences.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Cache:
    """`keys[i]`, `values[i]`: layer i, (B, kv heads, slots, K). `slot` (1,): where the next token of each row goes;
    `claimed`: where those being read go."""

    keys: tuple[Float[Tensor, "B H N K"], ...]
    values: tuple[Float[Tensor, "B H N K"], ...]
    real: Bool[Tensor, "B N"]
    positions: Int[Tensor, "B N"]
    slot: Int[Tensor, "1"]
    claimed: Int[Tensor, "S"]
    next_position: Int[Tensor, "B"]

    @classmethod
    def empty(
        cls, num_layers: int, shape: tuple[int, int, int, int], device: torch.device, dtype: torch.dtype
    ) -> "Cache":
        """Zeros of (rows, kv heads, slots, head width) for each layer."""
        rows, _, slots, _ = shape
        return cls(
            keys=tuple(torch.zeros(shape, device=device, dtype=dtype) for _ in range(num_layers)),
            values=tuple(torch.zeros(shape, device=device, dtype=dtype) for _ in range(num_layers)),
            real=torch.zeros(rows, slots, dtype=torch.bool, device=device),
            positions=torch.zeros(rows, slots, dtype=torch.int64, device=device),
            slot=torch.zeros(1, dtype=torch.int64, device=device),
            claimed=torch.zeros(0, dtype=torch.int64, device=device),
            next_position=torch.zeros(rows, dtype=torch.int64, device=device),
        )

    def longer(self, slots: int) -> "Cache":
        """A copy with space for `slots` tokens more, at the end."""

        def more(tensor: Tensor, dim: int) -> Tensor:
            shape = [*tensor.shape]
            shape[dim] = slots
            return torch.cat([tensor, tensor.new_zeros(shape)], dim=dim)

        return replace(
            self,
            keys=tuple(more(k, 2) for k in self.keys),
            values=tuple(more(v, 2) for v in self.values),
            real=more(self.real, 1),
            positions=more(self.positions, 1),
        )

    def open(self, real: Bool[Tensor, "B S"]) -> tuple["Cache", Int[Tensor, "B S"]]:
        """Claim slots for S tokens, padding included; gives the cache that knows them and their positions."""
        length = real.shape[1]
        slots = self.slot + torch.arange(length, device=real.device)
        positions = self.next_position[:, None] + real.long().cumsum(1) - 1
        positions = positions.clamp(min=0)
        claimed = replace(
            self,
            real=self.real.index_copy(1, slots, real),
            positions=self.positions.index_copy(1, slots, positions),
            slot=self.slot + length,
            claimed=slots,
            next_position=self.next_position + real.long().sum(1),
        )
        return claimed, positions

    def causal(self) -> Bool[Tensor, "B 1 S N"]:
        """Who the tokens just claimed may look at: every real slot up to their own, and their own."""
        slots = torch.arange(self.real.shape[1], device=self.real.device)
        own = slots == self.claimed[:, None]
        return ((self.real[:, None] & (slots < self.claimed[:, None])) | own)[:, None]

    def write(
        self, layer: int, keys: Float[Tensor, "B H S K"], values: Float[Tensor, "B H S K"]
    ) -> tuple[Float[Tensor, "B H N K"], Float[Tensor, "B H N K"]]:
        """Put a layer's new keys and values into the slots just claimed (in place); gives all of that layer's."""
        self.keys[layer].index_copy_(2, self.claimed, keys.to(self.keys[layer].dtype))
        self.values[layer].index_copy_(2, self.claimed, values.to(self.values[layer].dtype))
        return self.keys[layer], self.values[layer]

    @property
    def slots(self) -> int:
        """How many there are, used or not."""
        return self.real.shape[1]

    def select(self, rows: Int[Tensor, "R"], slots: int | None = None) -> "Cache":
        """A copy with the given rows, repeats allowed: what beam and contrastive search need. `slots`: another number
        of them, of which the used ones are some."""
        slots = self.slots if slots is None else slots
        return Cache(
            keys=tuple(_copied(k, rows, slots, 2) for k in self.keys),
            values=tuple(_copied(v, rows, slots, 2) for v in self.values),
            real=_copied(self.real, rows, slots, 1),
            positions=_copied(self.positions, rows, slots, 1),
            slot=self.slot.clone(),
            claimed=self.claimed,
            next_position=self.next_position[rows],
        )

    def free(self, rows: Int[Tensor, "R"]) -> "Cache":
        """The same, in which the given rows hold nothing and are at position 0."""
        return replace(
            self, real=self.real.index_fill(0, rows, False), next_position=self.next_position.index_fill(0, rows, 0)
        )

    def put(self, rows: Int[Tensor, "J"], other: "Cache", room: int) -> "Cache":
        """The J rows of another cache in the places of the given ones; every row has space for `room` tokens more. Keys
        and values are changed in place, where there is space.

        What a row holds ends where all rows go on. Where it does not fit, what all rows hold is moved, and the cache
        grows if it must, with some slots to spare so that this is seldom.
        """
        length, slot = int(other.slot), int(self.slot)
        kept = self.real.index_fill(0, rows, False)
        cache = self
        if length > slot or slot + room > self.slots:
            used = kept[:, :slot].any(dim=0)
            first = int(used.int().argmax()) if bool(used.any()) else slot
            cache = self._moved(max(length, slot - first), room)
            slot = int(cache.slot)
        here = slice(slot - length, slot)
        for mine, theirs in zip((*cache.keys, *cache.values), (*other.keys, *other.values), strict=True):
            mine.index_fill_(0, rows, 0)  # a hidden NaN would still spoil what is summed with weight 0
            mine[rows, :, here] = theirs[:, :, :length].to(mine.dtype)
        real, positions = cache.real.index_fill(0, rows, False), cache.positions.clone()
        real[rows, here], positions[rows, here] = other.real[:, :length], other.positions[:, :length]
        next_position = cache.next_position.index_copy(0, rows, other.next_position)
        return replace(cache, real=real, positions=positions, next_position=next_position)

    def _moved(self, slot: int, room: int) -> "Cache":
        """A copy whose rows go on at `slot`, before which lies what they hold."""
        slots = self.slots if slot + room + _SPARE <= self.slots else slot + room + 2 * _SPARE
        shift = slot - int(self.slot)
        source, target = max(0, -shift), max(0, shift)
        length = min(self.slots - source, slots - target)

        def moved(x: Tensor, dim: int) -> Tensor:
            shape = list(x.shape)
            shape[dim] = slots
            out = x.new_zeros(shape)
            out.narrow(dim, target, length).copy_(x.narrow(dim, source, length))
            return out

        return replace(
            self,
            keys=tuple(moved(k, 2) for k in self.keys),
            values=tuple(moved(v, 2) for v in self.values),
            real=moved(self.real, 1),
            positions=moved(self.positions, 1),
            slot=self.slot + shift,
        )


_SPARE = 32  # slots


def _copied(x: Tensor, rows: Int[Tensor, "R"], slots: int, dim: int) -> Tensor:
    """The rows of x, cut or filled with zeros to `slots` along `dim`."""
    have = x.shape[dim]
    kept = x.narrow(dim, 0, min(have, slots)).index_select(0, rows)
    return kept if slots <= have else F.pad(kept, (0, 0) * (x.ndim - 1 - dim) + (0, slots - have))


@dataclass(frozen=True)
class ContextCache:
    """What a decoder has written, `own`, beside the keys and values that each layer reads of a context, such as an
    encoded image. `mask` (B, 1, 1, N) is False where the context is padding; None: it has none.

    Rows that write about the same context, such as the beams of a prompt, may share it: `own` then has as many rows
    for each row of the context, one after another (`Attention.look_up`). `room`: the slots of `own` as it began.
    """

    own: Cache
    context: tuple[tuple[Tensor, Tensor], ...]
    mask: Bool[Tensor, "B 1 1 N"] | None = None
    room: int | None = None

    def select(self, rows: Int[Tensor, "R"]) -> "ContextCache":
        """A copy with the given rows, repeats allowed."""
        return replace(self._with_context(rows // self._sharing), own=self.own.select(rows))

    def select_beams(self, rows: Int[Tensor, "R W"], unused: int = 0) -> "ContextCache":
        """A copy with W rows for each of R contexts, which keep their order and of which some may be gone. `unused`: so
        many slots of those that there were at first are not needed yet, and not copied."""
        room = self.own.slots if self.room is None else self.room
        own = self.own.select(rows.flatten(), room - unused)
        kept = self if len(rows) == self._contexts else self._with_context(rows[:, 0] // self._sharing)
        return replace(kept, own=own, room=room)

    def free(self, rows: Int[Tensor, "R"]) -> "ContextCache":
        """The same, in which the given rows have written nothing."""
        return replace(self, own=self.own.free(rows))

    def put(self, rows: Int[Tensor, "J"], other: "ContextCache", room: int) -> "ContextCache":
        """The J rows of another cache in place of the given ones (`Cache.put`), each with its own context."""
        have, given = self.context[0][0].shape[2], other.context[0][0].shape[2]
        most, mask = max(have, given), self.mask
        if mask is None and (other.mask is not None or have != given):
            mask = self.own.real.new_ones(self._contexts, 1, 1, have)
        if mask is not None:
            theirs = mask.new_ones(len(rows), 1, 1, given) if other.mask is None else other.mask
            mask = F.pad(mask, (0, most - have)).index_copy(0, rows, F.pad(theirs, (0, most - given)))

        def together(mine: Tensor, theirs: Tensor) -> Tensor:
            mine = mine if have == most else F.pad(mine, (0, 0, 0, most - have))
            return mine.index_copy_(0, rows, F.pad(theirs, (0, 0, 0, most - given)).to(mine.dtype))

        both = zip(self.context, other.context, strict=True)
        context = tuple((together(k, a), together(v, b)) for (k, v), (a, b) in both)
        return ContextCache(self.own.put(rows, other.own, room), context, mask)

    @property
    def _contexts(self) -> int:
        return len(self.context[0][0])

    @property
    def _sharing(self) -> int:
        """Rows of `own` for each row of the context."""
        return len(self.own.real) // self._contexts

    def _with_context(self, rows: Int[Tensor, "R"]) -> "ContextCache":
        context = tuple((k.index_select(0, rows), v.index_select(0, rows)) for k, v in self.context)
        return replace(self, context=context, mask=None if self.mask is None else self.mask[rows])
