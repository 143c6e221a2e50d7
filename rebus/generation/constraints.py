"""What may be written: allowed tokens, no n-gram twice, and what every answer begins and ends with."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rebus.core.errors import UsageError
from rebus.generation.stopping import Decode


class Forced(NamedTuple):
    """Tokens that stand at a fixed place whatever the network says: `first`, and `last` where an answer of `room`
    tokens has not ended before. They are certain, so that a score does not count them."""

    room: int
    first: int | None = None
    last: int | None = None

    def at(self, place: int) -> int | None:
        """The token at a place, or None where the network chooses."""
        return self.first if place == 0 and self.first is not None else self.last if place + 1 == self.room else None


NOTHING_FORCED = Forced(0)
Allowed = str | Iterable[int] | Callable[[int, Sequence[int]], Iterable[int]]


class Constraints:
    """Puts forbidden tokens at -inf; a forced one is all that is allowed, at 0.

    `allowed`: a set of ids, a function (row, tokens so far) → ids, or a regular expression that the text of a token
    matches from end to end (control tokens have none), which needs `decode`. The end token ends a text only where it
    is among them. `no_repeat_ngram_size`: n tokens in a row occur once; a decoder-only prompt counts as text.
    """

    def __init__(
        self,
        allowed: Allowed | None,
        no_repeat_ngram_size: int,
        context: Tensor | None,
        forced: Forced = NOTHING_FORCED,
        decode: Decode | None = None,
    ):
        if no_repeat_ngram_size < 0:
            raise UsageError(f"no_repeat_ngram_size must be 0 (off) or more; got {no_repeat_ngram_size}")
        self.function = allowed if callable(allowed) else None
        self.ids: Callable[[int], Sequence[int]] | None = None  # of a vocabulary of so many tokens
        if isinstance(allowed, str):
            if decode is None:
                raise UsageError("a pattern in allowed needs decode: the function that turns token ids into text")
            self.ids = partial(_tokens_like, allowed, decode)
        elif allowed is not None and not callable(allowed):
            named = sorted({int(i) for i in allowed})
            if not named:
                raise UsageError("allowed is empty: name at least one token")
            self.ids = lambda num_tokens: named
        self.mask: Tensor | None = None
        self.ngram = no_repeat_ngram_size
        self.context = context if no_repeat_ngram_size else None
        self.forced = forced

    def __call__(self, scores: Tensor, rows: Tensor, text: Tensor) -> Tensor:
        """scores (R, V) of rows (R,) that have written text (R, t) → the same with forbidden tokens at -inf."""
        forced = self.forced.at(text.shape[1])
        if forced is not None:
            scores = torch.full_like(scores, -torch.inf)
            scores[:, forced] = 0
            return scores
        if self.ids is not None:
            if self.mask is None:
                self.mask = _mask([self.ids(scores.shape[-1])], scores)[0]
            scores = scores.masked_fill(~self.mask, -torch.inf)
        if self.function is not None:
            written = zip(rows.tolist(), text.tolist(), strict=True)
            ids = [[int(i) for i in self.function(row, tokens)] for row, tokens in written]
            if not all(ids):
                row = rows.tolist()[ids.index([])]
                raise UsageError(f"allowed(row, tokens) gave no token for row {row}: let it give the end token")
            scores = scores.masked_fill(~_mask(ids, scores), -torch.inf)
        if self.ngram:
            if self.context is not None:
                text = torch.cat([self.context[rows], text], dim=1)
            scores = forbid_repeats(scores, text, self.ngram)
        return scores


@lru_cache(maxsize=8)
def _tokens_like(pattern: str, decode: Decode, num_tokens: int) -> Sequence[int]:
    """The tokens whose text matches a regular expression from end to end."""
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"allowed is not a valid regular expression: {error}") from None
    found = [token for token in range(num_tokens) if expression.fullmatch(decode([token]))]
    if not found:
        raise UsageError(f"no token of this model matches {pattern!r}, the pattern in allowed")
    return found


def _mask(ids: Sequence[Sequence[int]], scores: Tensor) -> Tensor:
    """(len(ids), V) bool: True where allowed."""
    num_tokens = scores.shape[-1]
    wrong = [i for row in ids for i in row if not 0 <= i < num_tokens]
    if wrong:
        raise UsageError(f"allowed names token {wrong[0]}; the model's vocabulary ends at {num_tokens - 1}")
    mask = torch.zeros(len(ids), num_tokens, dtype=torch.bool)
    for row, allowed in enumerate(ids):
        mask[row, allowed] = True
    return mask.to(scores.device)


def forbid_repeats(scores: Tensor, text: Tensor, size: int) -> Tensor:
    """Forbid each token that would complete an n-gram of `size` tokens already in text (R, t); -1 is padding."""
    length = text.shape[1]
    if length < size:
        return scores
    windows = text.unfold(1, size, 1)  # R t-size+1 size
    repeated = (windows[..., :-1] == text[:, None, length + 1 - size :]).all(dim=-1) & (windows[..., -1] >= 0)
    num_tokens = scores.shape[-1]
    forbidden = scores.new_zeros(scores.shape[0], num_tokens + 1, dtype=torch.bool)  # the last column is for no one
    forbidden.scatter_(1, torch.where(repeated, windows[..., -1], num_tokens).clamp(max=num_tokens), True)
    return scores.masked_fill(forbidden[:, :num_tokens], -torch.inf)


def prompt_text(network: Any, batch: Mapping[str, Any]) -> Tensor | None:
    """The prompt as text that the answer continues, (B, P), padding (-1) moved to the left.

    None for encoder-decoders (`network.encoder_decoder`), whose prompt is another text.
    """
    tokens, mask = batch.get("tokens"), batch.get("mask")
    if tokens is None or getattr(network, "encoder_decoder", False):
        return None
    if mask is None:
        return tokens
    order = mask.int().argsort(dim=1, stable=True)
    return tokens.masked_fill(~mask, -1).gather(1, order)
