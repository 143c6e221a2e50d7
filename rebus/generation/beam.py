"""Beam search: the sentence of the best score, looked for among the few best beginnings of each length.

The score is the sum of the log-probabilities divided by length ** length_penalty (Wu et al., "Google's Neural Machine
Translation System", 2016, sec. 7, in the simpler form that became the custom).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from rebus.core.capabilities import ReadsBackward, WritesText
from rebus.core.errors import UsageError
from rebus.core.finite import refuse
from rebus.core.labels import IGNORED
from rebus.generation.constraints import Constraints
from rebus.generation.decoding_state import has_fixed_rows
from rebus.generation.stopping import Stops

_SLOTS = 32  # by so many a cache grows
NEVER = -1.0e9  # worse than any sentence, and finite: a score to add to


@dataclass(frozen=True, kw_only=True)
class Beam:
    """`num_beams` beginnings are kept a prompt. `length_penalty` above 0 favours long sentences.

    `early_stopping`: False ends a row when its best beginning is behind its worst finished sentence; True as soon as
    `num_beams` sentences are finished; "never" only when no beginning, however long, could still win.

    `both_ways`, of networks that also read from right to left (`ReadsBackward`): that many times the log-probability of
    this reading is added to the scores of the finished sentences, `num_beams` a prompt, before the best is taken.
    """

    num_beams: int = 4
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False
    both_ways: float = 0.0

    def __post_init__(self) -> None:
        if self.num_beams < 1:
            raise UsageError(f"num_beams must be at least 1; got {self.num_beams}")
        if self.early_stopping not in (True, False, "never"):
            raise UsageError(f'early_stopping expects True, False or "never"; got {self.early_stopping!r}')
        if self.both_ways < 0:
            raise UsageError(f"both_ways must be 0 (off) or more; got {self.both_ways}")

    @torch.inference_mode()
    def search(
        self,
        network: WritesText,
        batch: Mapping[str, Any],
        room: int,
        *,
        stops: Stops,
        constraints: Constraints,
        pad_id: int,
    ) -> Tensor:
        """The best sentence of each prompt, (B, ≤ room) int64; as `candidates` raises."""
        answers, lengths = self.candidates(network, batch, room, stops=stops, constraints=constraints, pad_id=pad_id)
        return answers[:, 0, : int(lengths[:, 0].max())]

    @torch.inference_mode()
    def candidates(
        self,
        network: WritesText,
        batch: Mapping[str, Any],
        room: int,
        *,
        stops: Stops,
        constraints: Constraints,
        pad_id: int,
    ) -> tuple[Tensor, Tensor]:
        """The sentences found for each prompt, best first: (B, num_beams, room) int64, and their lengths in tokens,
        (B, num_beams), 0 where there were fewer. Raises `UsageError` for `both_ways` of a network that reads one way.
        """
        W = self.num_beams
        if self.both_ways and not (isinstance(network, ReadsBackward) and network.reads_backward):
            raise UsageError("both_ways is for models that also read captions from right to left; this one does not")
        step = network.start(room=room, **batch)
        B, V = step.logits.shape
        device = step.logits.device
        # Of twice as many continuations as beams, at least one a beam does not end here (one end token assumed).
        num_kept = min(max(2, 1 + len(stops.eos)) * W, W * V)
        eos = torch.tensor(stops.eos, dtype=torch.int64, device=device)
        answers = torch.full((B, W, room), pad_id, dtype=torch.int64, device=device)
        lengths = torch.zeros(B, W, dtype=torch.int64, device=device)
        totals = torch.full((B, W), NEVER, device=device)

        fixed = has_fixed_rows(network)
        rows = torch.arange(B, device=device)  # prompts still searched: R of them, W beams each
        open_rows = torch.ones(B, dtype=torch.bool, device=device)
        text = torch.full((B, W, room), pad_id, dtype=torch.int64, device=device)
        total = torch.full((B, W), NEVER, device=device)
        total[:, 0] = 0  # all beams begin alike: count one
        done_text, done_score = text.clone(), torch.full_like(total, NEVER)
        done_length = torch.zeros(B, W, dtype=torch.int64, device=device)  # 0: not finished
        source = rows[:, None].expand(B, W)  # the row of the cache that each beam continues
        logits = step.logits.repeat_interleave(W, dim=0)
        cache = step.cache

        for at in range(room):
            R = rows.shape[0]
            sound = logits.view(R, W, V).amax(dim=(1, 2)).isfinite()  # the largest score is NaN where any is
            if not bool(sound.all()):
                refuse(f"prompt {int(rows[~sound][0])}", step.hidden.dtype)
            scores = constraints(
                logits.float().log_softmax(dim=-1), rows.repeat_interleave(W), text[:, :, :at].flatten(0, 1)
            )
            kept, index = (scores.view(R, W, V) + total[:, :, None]).flatten(1).topk(num_kept, dim=-1)
            parent, token = index // V, index % V
            grown = _take(text, parent)
            grown[:, :, at] = token
            ended = torch.isin(token, eos) | _stopped(stops, grown[:, :, : at + 1])
            last = at + 1 == room
            if last:
                ended = torch.ones_like(ended)

            # Only sentences among the best num_beams may finish; the others are there to go on.
            finished = ended.clone()
            finished[:, W:] = False
            score = (kept / (at + 1) ** self.length_penalty).masked_fill(~finished, NEVER)
            done_score, best = torch.cat([done_score, score], dim=1).topk(W, dim=-1)
            done_text = _take(torch.cat([done_text, grown], dim=1), best)
            done_length = _take(torch.cat([done_length, finished * (at + 1)], dim=1), best)
            if last:
                for found, value in ((answers, done_text), (lengths, done_length), (totals, done_score)):
                    found[rows[open_rows]] = value[open_rows]
                break

            total, best = (kept + ended * NEVER).topk(W, dim=-1)
            text, token = _take(grown, best), _take(token, best)
            source = source.gather(1, _take(parent, best))

            hopeful = self._hopeful(total, done_score, done_length > 0, at + 1, room)
            decided = open_rows & ~hopeful
            open_rows = open_rows & hopeful
            still = open_rows.tolist()
            if not all(still):
                for found, value in ((answers, done_text), (lengths, done_length), (totals, done_score)):
                    found[rows[decided]] = value[decided]
                if not any(still):
                    break
                if not fixed:  # rows that are decided leave the batch
                    rows, text, token, total, source = (x[open_rows] for x in (rows, text, token, total, source))
                    done_text, done_score, done_length = (x[open_rows] for x in (done_text, done_score, done_length))
                    open_rows = open_rows[open_rows]
            unused = 0 if fixed else max(room - (at + 2 + _SLOTS) // _SLOTS * _SLOTS, 0)
            step = network.step(token.flatten(), _select(cache, source, unused))
            logits, cache = step.logits, step.cache
            source = torch.arange(token.numel(), device=device).view_as(token)
        if self.both_ways and isinstance(network, ReadsBackward):
            real = torch.arange(room, device=device) < lengths[..., None]
            back = network.backward_likelihood(answers.masked_fill(~real, IGNORED), **batch)
            totals = totals + self.both_ways * back / lengths.clamp(min=1) ** self.length_penalty
            best = totals.argsort(dim=1, descending=True, stable=True)
            answers, lengths = _take(answers, best), _take(lengths, best)
        return answers, lengths

    def _hopeful(self, total: Tensor, done_score: Tensor, done: Tensor, written: int, room: int) -> Tensor:
        """(R,) whether a beginning may still beat the worst finished sentence."""
        longest = room if self.early_stopping == "never" and self.length_penalty > 0 else written
        best = total[:, :1] / longest**self.length_penalty
        worst = torch.where(done, done_score.amin(dim=1, keepdim=True), NEVER)
        hopeful = (best > worst).any(dim=1)
        return hopeful & ~done.all(dim=1) if self.early_stopping is True else hopeful


def _select(cache: Any, rows: Tensor, unused: int) -> Any:
    """The cache of the beams' rows (R, W). One that can lets the beams of a prompt share what they read alike, and
    copies no slots that are not needed yet."""
    if hasattr(cache, "select_beams"):
        return cache.select_beams(rows, unused)
    return cache.select(rows.flatten())


def _take(values: Tensor, index: Tensor) -> Tensor:
    """values (R, W, ...) at index (R, N) → (R, N, ...)."""
    return values[torch.arange(values.shape[0], device=values.device)[:, None], index]


def _stopped(stops: Stops, text: Tensor) -> Tensor:
    """(R, N) whether a stop string was written in text (R, N, t)."""
    if not stops.strings:
        return torch.zeros(text.shape[:2], dtype=torch.bool, device=text.device)
    ended = [[stops.ends(tokens) for tokens in row] for row in text.tolist()]
    return torch.tensor(ended, device=text.device)
