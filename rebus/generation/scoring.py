"""How likely is a given text: the sum of the log-probabilities of its tokens, each after the ones before it.

Texts with a common beginning share its computation: at each length every different beginning is stepped once.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rebus.core.capabilities import WritesText
from rebus.core.errors import UsageError
from rebus.core.finite import refuse
from rebus.core.labels import IGNORED
from rebus.core.outputs import Step
from rebus.generation.decoding_state import has_fixed_rows


class Likelihood(NamedTuple):
    """`total` float32: sums of log-probabilities. `length` int64: how many tokens each sums."""

    total: Tensor
    length: Tensor


def score(network: WritesText, batch: Mapping[str, Any], targets: Tensor, *, rows_at_once: int = 64) -> Likelihood:
    """The likelihood of each row's own text: targets (B, S) int64, right-padded with -100 → (B,)."""
    each = score_tokens(network, batch, targets, rows_at_once=rows_at_once)
    return Likelihood(each.sum(dim=1), _lengths(targets))


@torch.no_grad()
def score_tokens(network: WritesText, batch: Mapping[str, Any], targets: Tensor, *, rows_at_once: int = 64) -> Tensor:
    """(B, S) log-probabilities of each row's own tokens (B, S), 0 at their padding (-100)."""
    lengths = _lengths(targets)
    step = network.start(room=targets.shape[1], **batch)
    if step.logits.shape[0] != targets.shape[0]:
        raise UsageError(f"targets expects {step.logits.shape[0]} rows, one per prompt; got {targets.shape[0]}")
    rows = torch.arange(targets.shape[0], device=targets.device)
    return _follow(network, step, rows, targets, lengths, rows_at_once)


@torch.no_grad()
def score_choices(
    network: WritesText, batch: Mapping[str, Any], choices: Tensor, *, rows_at_once: int = 64
) -> Likelihood:
    """The likelihood of every choice (C, S), right-padded with -100, after every prompt: total (B, C), length (C,).

    Each prompt is read once. `rows_at_once` bounds the rows of the repeated cache, and so the memory.
    """
    lengths = _lengths(choices)
    step = network.start(room=choices.shape[1], **batch)
    num_rows, num_choices = step.logits.shape[0], choices.shape[0]
    # Sorted, so that texts with a common beginning meet in one chunk.
    order = torch.tensor(sorted(range(num_choices), key=choices.tolist().__getitem__), device=choices.device)
    rows = torch.arange(num_rows, device=choices.device).repeat_interleave(num_choices)
    each = _follow(
        network, step, rows, choices[order].repeat(num_rows, 1), lengths[order].repeat(num_rows), rows_at_once
    )
    result = torch.empty(num_rows, num_choices, device=each.device)
    result[:, order] = each.sum(dim=1).view(num_rows, num_choices)
    return Likelihood(result, lengths)


def _lengths(targets: Tensor) -> Tensor:
    """(N,) number of tokens before the padding. Raises `UsageError` for a gap: what was in it is unknown."""
    real = targets != IGNORED
    lengths = real.sum(dim=1)
    if bool((real != (torch.arange(targets.shape[1], device=targets.device) < lengths[:, None])).any()):
        raise UsageError(f"targets to be scored must be padded with {IGNORED} on the right only")
    return lengths


def _follow(
    network: WritesText, start: Step, rows: Tensor, targets: Tensor, lengths: Tensor, rows_at_once: int
) -> Tensor:
    """(N, S) log-probabilities of targets (N, S), the n-th after prompt rows[n]."""
    if rows_at_once < 1:
        raise UsageError(f"rows_at_once must be at least 1; got {rows_at_once}")
    device = start.logits.device
    rows, targets, lengths = rows.to(device), targets.to(device), lengths.to(device)
    width = rows_at_once if has_fixed_rows(network) else 0
    chunks = [
        _follow_chunk(network, start, *part, width=width)
        for part in zip(rows.split(rows_at_once), targets.split(rows_at_once), lengths.split(rows_at_once), strict=True)
    ]
    return torch.cat(chunks)


def _follow_chunk(
    network: WritesText, start: Step, rows: Tensor, targets: Tensor, lengths: Tensor, width: int
) -> Tensor:
    vocabulary = start.logits.shape[-1]
    longest = int(lengths.max())
    found = torch.zeros(targets.shape, device=rows.device)
    active = (lengths > 0).nonzero().squeeze(-1)  # texts that have a token here
    step, node = start, rows[active]  # node: the row of the step that holds a text's beginning
    for at in range(longest):
        token, logits = targets[active, at], step.logits.float()
        normaliser = logits.logsumexp(dim=-1)
        if not bool(normaliser.isfinite().all()):
            refuse("the likelihood of a text", step.hidden.dtype)
        found[active, at] = logits[node, token] - normaliser[node]
        if at + 1 < longest:
            on = lengths[active] > at + 1
            active, node, token = active[on], node[on], token[on]
            beginning, node = torch.unique(node * vocabulary + token, return_inverse=True)
            beginning = torch.cat([beginning, beginning[:1].expand(max(0, width - len(beginning)))])
            step = network.step(beginning % vocabulary, step.cache.select(beginning // vocabulary))
    return found
