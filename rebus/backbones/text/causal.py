"""What plain language models have in common: each token sees those before it, whichever way it is asked for.

A prompt and an answer go through at once (`forward`, for training), or the prompt once and the answer token by token
(`start`, `step`: `rebus.core.capabilities.WritesText`). The network is open: it embeds, lays out its blocks, and reads
scores; a model that puts images into the sequence, or between the blocks, writes its own forward over these.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rebus.core.errors import BadText
from rebus.core.outputs import Predictions, Step
from rebus.nn.attention import Remember
from rebus.nn.cache import Cache
from rebus.nn.masks import attention_mask


class Layers(NamedTuple):
    """A sequence on its way in: `x` (B, S, D) what the first block reads, `blocks` as functions of the states alone,
    and the cache that knows the new tokens (None where a whole sequence goes through at once)."""

    x: Tensor
    blocks: Sequence[Callable[[Tensor], Tensor]]
    cache: Cache | None


class Places(NamedTuple):
    """Where S new tokens stand: `positions` (B, S) in their text, `mask` (B, 1, S, N) of what each may look at,
    `keys` (B, N) the positions of those that are looked at, and the cache as in `Layers`."""

    positions: Tensor
    mask: Tensor
    keys: Tensor
    cache: Cache | None

    @classmethod
    def of(cls, real: Bool[Tensor, "B S"], cache: Cache | None) -> "Places":
        """Tokens after those of a cache, or a whole sequence; `real` is False at padding, on either side."""
        if cache is None:
            positions = (real.long().cumsum(1) - 1).clamp(min=0)
            return cls(
                positions, attention_mask(torch.arange(real.shape[1], device=real.device), real), positions, None
            )
        cache, positions = cache.open(real)
        return cls(positions, cache.causal(), cache.positions, cache)

    def remember(self, layer: int) -> Remember | None:
        """What swaps a layer's new keys and values for all of them."""
        return None if self.cache is None else partial(self.cache.write, layer)


class Decoder(nn.Module):
    """A stack of causal blocks over token embeddings. A network brings `embed`, `lay_out` and `logits`, its last
    `norm` and `cfg.context`; `empty_cache` where keys have fewer heads than queries."""

    cfg: Any
    norm: Any

    def embed(self, tokens: Int[Tensor, "B S"]) -> Float[Tensor, "B S D"]:
        """The tokens' vectors; where they stand is added by `lay_out`."""
        raise NotImplementedError

    def lay_out(self, x: Float[Tensor, "B S D"], real: Bool[Tensor, "B S"], cache: Cache | None = None) -> Layers:
        """Positions put in, masks and cache tied to the blocks, which then read states alone."""
        raise NotImplementedError

    def decode(self, x: Float[Tensor, "B S D"], real: Bool[Tensor, "B S"]) -> Float[Tensor, "B S D"]:
        """A whole sequence at once; `real` is False at padding, on either side."""
        x, blocks, _ = self.lay_out(x, real)
        for block in blocks:
            x = block(x)
        return self.norm(x)

    def decode_cached(
        self, x: Float[Tensor, "B S D"], real: Bool[Tensor, "B S"], cache: Cache
    ) -> tuple[Float[Tensor, "B S D"], Cache]:
        """The next S tokens after those that the cache holds."""
        x, blocks, known = self.lay_out(x, real, cache)
        assert known is not None
        for block in blocks:
            x = block(x)
        return self.norm(x), known

    def logits(self, hidden: Float[Tensor, "*B D"]) -> Float[Tensor, "*B V"]:
        """Scores over the vocabulary."""
        raise NotImplementedError

    def empty_cache(self, rows: int, slots: int) -> Cache:
        """Room for `slots` tokens, on the device and in the dtype of the weights."""
        shape = (rows, self.cfg.num_heads, slots, self.cfg.width // self.cfg.num_heads)
        return Cache.empty(self.cfg.num_layers, shape, self.norm.weight.device, self.norm.weight.dtype)

    def forward(
        self,
        tokens: Int[Tensor, "B L"],
        mask: Bool[Tensor, "B L"] | None = None,
        targets: Int[Tensor, "B S"] | None = None,
    ) -> Predictions:
        """Scores of `targets` (−100 at padding), each given the prompt and the targets before it.

        Without targets: of the token after each of `tokens`, (B, L, V); at padding they mean nothing. Raises `BadText`
        for more tokens than the context.
        """
        real = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        length = tokens.shape[1]
        if targets is None:
            self.check_length(length, 0)
            states = self.decode(self.embed(tokens), real)
            return Predictions(self.logits(states), states)
        given = targets[:, :-1]
        self.check_length(length, given.shape[1])
        whole = torch.cat([tokens, given.clamp(min=0)], dim=1)
        hidden = self.decode(self.embed(whole), torch.cat([real, given >= 0], dim=1))
        last = last_real(hidden[:, :length], real)[:, None]
        states = torch.cat([last, hidden[:, length:]], dim=1)
        return Predictions(self.logits(states), states)

    def start(self, *, room: int, tokens: Int[Tensor, "B L"], mask: Bool[Tensor, "B L"] | None = None) -> Step:
        """Read prompts, with space for `room` new tokens; `hidden` (B, L, D) are the states of all of the prompt.

        Raises `BadText` where they pass the context.
        """
        real = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        self.check_length(tokens.shape[1], room)
        cache = self.empty_cache(len(tokens), tokens.shape[1] + room)
        hidden, cache = self.decode_cached(self.embed(tokens), real, cache)
        return Step(self.logits(last_real(hidden, real)), hidden, cache)

    def step(self, token: Int[Tensor, "B"], cache: Cache) -> Step:
        """One more token."""
        x = self.embed(token[:, None])
        hidden, cache = self.decode_cached(x, torch.ones_like(token[:, None], dtype=torch.bool), cache)
        return Step(self.logits(hidden[:, 0]), hidden[:, 0], cache)

    def check_length(self, prompt: int, more: int) -> None:
        """Raise `BadText` for an empty prompt, or one that does not fit the context with `more` tokens after it."""
        context: int = self.cfg.context
        if prompt == 0:
            raise BadText("an empty prompt: a language model continues what it is given, a start token at least")
        if prompt + more > context:
            after = f" and {more:,} after it" if more else ""
            raise BadText(
                f"{prompt:,} tokens of prompt{after} make {prompt + more:,}; the context holds {context:,}. "
                "Shorten the prompt or ask for fewer new tokens"
            )


def last_real(hidden: Float[Tensor, "B L D"], real: Bool[Tensor, "B L"]) -> Float[Tensor, "B D"]:
    """The state at each row's last real token, whichever side is padded."""
    at = (real * torch.arange(1, real.shape[1] + 1, device=real.device)).argmax(1)
    return hidden[torch.arange(len(hidden), device=hidden.device), at]
