"""What plain language models have in common: each token sees those before it, whichever way it is asked for.

A prompt and an answer go through at once (`predict`, for training), or the prompt once and the answer token by token
(`start`, `step`: `rebus.core.capabilities.WritesText`). The network is opened from outside: it embeds, decodes, and
reads scores; a model that puts images into the sequence writes its own forward over the same three.
"""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rebus.core.errors import BadText
from rebus.core.outputs import Predictions, Step
from rebus.nn.cache import Cache


@runtime_checkable
class Decoder(Protocol):
    """A stack of causal blocks over token embeddings."""

    def embed(self, tokens: Int[Tensor, "B S"]) -> Float[Tensor, "B S D"]: ...

    def decode(self, x: Float[Tensor, "B S D"], real: Bool[Tensor, "B S"]) -> Float[Tensor, "B S D"]:
        """A whole sequence at once; `real` is False at padding, on either side."""
        ...

    def decode_cached(
        self, x: Float[Tensor, "B S D"], real: Bool[Tensor, "B S"], cache: Cache
    ) -> tuple[Float[Tensor, "B S D"], Cache]:
        """The next S tokens after those that the cache holds."""
        ...

    def logits(self, hidden: Float[Tensor, "*B D"]) -> Float[Tensor, "*B V"]: ...

    def empty_cache(self, rows: int, slots: int) -> Cache: ...


def predict(
    network: Decoder,
    tokens: Int[Tensor, "B L"],
    mask: Bool[Tensor, "B L"] | None,
    targets: Int[Tensor, "B S"] | None,
    context: int,
) -> Predictions:
    """Scores of `targets` (−100 at padding), each given the prompt and the targets before it.

    Without targets: of the token after each of `tokens`, (B, L, V); at padding they mean nothing. Raises `BadText` for
    more tokens than `context`.
    """
    real = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
    length = tokens.shape[1]
    if targets is None:
        _check_length(length, 0, context)
        states = network.decode(network.embed(tokens), real)
        return Predictions(network.logits(states), states)
    given = targets[:, :-1]
    _check_length(length, given.shape[1], context)
    whole = torch.cat([tokens, given.clamp(min=0)], dim=1)
    hidden = network.decode(network.embed(whole), torch.cat([real, given >= 0], dim=1))
    last = last_real(hidden[:, :length], real)[:, None]
    states = torch.cat([last, hidden[:, length:]], dim=1)
    return Predictions(network.logits(states), states)


def start(
    network: Decoder, tokens: Int[Tensor, "B L"], mask: Bool[Tensor, "B L"] | None, room: int, context: int
) -> Step:
    """Read prompts; the cache has space for `room` more tokens. Raises `BadText` where they pass `context`."""
    real = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
    _check_length(tokens.shape[1], room, context)
    cache = network.empty_cache(len(tokens), tokens.shape[1] + room)
    hidden, cache = network.decode_cached(network.embed(tokens), real, cache)
    return Step(network.logits(last_real(hidden, real)), hidden, cache)


def step(network: Decoder, token: Int[Tensor, "B"], cache: Cache) -> Step:
    """One more token."""
    x = network.embed(token[:, None])
    hidden, cache = network.decode_cached(x, torch.ones_like(token[:, None], dtype=torch.bool), cache)
    return Step(network.logits(hidden[:, 0]), hidden[:, 0], cache)


def last_real(hidden: Float[Tensor, "B L D"], real: Bool[Tensor, "B L"]) -> Float[Tensor, "B D"]:
    """The state at each row's last real token, whichever side is padded."""
    at = (real * torch.arange(1, real.shape[1] + 1, device=real.device)).argmax(1)
    return hidden[torch.arange(len(hidden), device=hidden.device), at]


def _check_length(prompt: int, more: int, context: int) -> None:
    if prompt == 0:
        raise BadText("an empty prompt: a language model continues what it is given, a start token at least")
    if prompt + more > context:
        after = f" and {more:,} after it" if more else ""
        raise BadText(
            f"{prompt:,} tokens of prompt{after} make {prompt + more:,}; the context holds {context:,}. "
            "Shorten the prompt or ask for fewer new tokens"
        )
