"""One side of a table of pairs: vectors by the thousand or the million, and an exact search for the nearest.

The search runs twice. A quick pass over all rows gives each similarity with a bound on its error, and keeps the rows
that could still be among the k nearest; those few are computed again in float64, one by one. So the answer is the
same to the last bit whether rows come in one block or in many, from memory or from a mapped file, whether the quick
pass reads the rows or their 8-bit copy, and whether a removed row is masked or was never there.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

BLOCK_BYTES = 256 * 2**20  # of working memory, where nothing else is asked for
_RESCORED = 256  # rows computed again at a time: what is between them and their cosines stays in the cache
_ALIGNED = 16  # bytes
_STRETCH = 32  # quick cosines that are passed over together when none of them is high enough


class Nearest(NamedTuple):
    """The k nearest rows of each query, best first; similarities below 0 count as 0, and empty places hold 0 at 0."""

    similarity: Float[Tensor, "Q K"]  # float64
    at: Int[Tensor, "Q K"]


@dataclass(frozen=True)
class Screen:
    """An 8-bit copy of some rows: unit row ≈ codes · scale, wrong by a vector no longer than `slack`."""

    codes: Int[Tensor, "N D"]
    scale: Float[Tensor, "N"]
    slack: float

    @classmethod
    def of(cls, rows: Float[Tensor, "N D"], block: int = 16_384) -> "Screen":
        """Rounds each unit row to 127 steps on either side of zero."""
        codes, scales, slack = torch.empty(rows.shape, dtype=torch.int8), torch.empty(len(rows)), 0.0
        for first in range(0, len(rows), block):
            at = slice(first, first + block)
            unit = torch.nn.functional.normalize(rows[at].float(), dim=1)
            scale = unit.abs().amax(1).clamp(min=1e-30) / 127
            code = (unit / scale[:, None]).round_()
            slack = max(slack, float((unit - code * scale[:, None]).norm(dim=1).max()))
            codes[at], scales[at] = code.to(torch.int8), scale
        return cls(codes, scales, slack + 1e-6)


class Anchors:
    """Vectors (n, D) in one or more shards, of any length; what counts is their direction.

    `screens`: the 8-bit copies of the shards, which halve what a query reads. `kept` is False at removed rows.
    `release` gives back, after each search, the memory of mapped rows that it touched.
    """

    def __init__(
        self,
        shards: Sequence[Float[Tensor, "_ D"]],
        screens: Sequence[Screen | None] | None = None,
        kept: Bool[Tensor, "N"] | None = None,
        release: Callable[[], None] | None = None,
    ):
        self.shards = tuple(shards)
        self.screens = tuple(screens) if screens is not None else (None,) * len(self.shards)
        self.kept = kept
        self.release = release
        starts = [0]
        for shard in self.shards:
            starts.append(starts[-1] + len(shard))
        self.starts = torch.tensor(starts)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def nearest(self, queries: Float[Tensor, "Q D"], k: int, block_bytes: int = BLOCK_BYTES) -> Nearest:
        """The min(k, n) rows of highest cosine. Equal ones go by their place in the table; no gradient passes."""
        k = min(k, len(self))
        unit = _unit(queries)
        similarity = torch.zeros(len(unit), k, dtype=torch.float64, device=unit.device)
        index = torch.zeros(len(unit), k, dtype=torch.int64, device=unit.device)
        if k:
            together = max(1, min(64, block_bytes // (4 * len(self))))
            for first in range(0, len(unit), together):
                part = unit[first : first + together]
                for row, candidates in enumerate(self._screened(part, k, block_bytes)):
                    exact = self._exact(part[row], candidates)
                    best, order = exact.clamp(min=0).sort(descending=True, stable=True)
                    found = min(k, len(order))
                    similarity[first + row, :found] = best[:found]
                    index[first + row, :found] = candidates[order[:found]]
        if self.release is not None:
            self.release()
        return Nearest(similarity, index)

    def _screened(self, unit: Tensor, k: int, block_bytes: int) -> list[Tensor]:
        """Rows of each query that may be among its k nearest, in ascending order."""
        slack, rounding = self._slack(unit)
        looks = torch.empty(len(unit), len(self), device=unit.device)
        for first, quick in self._quick(unit, block_bytes):
            looks[:, first : first + quick.shape[1]] = quick
        looks.nan_to_num_(nan=-2.0)  # such rows are near to nothing
        if self.kept is not None:
            looks.masked_fill_(~self.kept.to(looks.device), -2)

        def least(surely: float) -> float:
            """What a row looks like at least if it is as near as k rows surely are."""
            return (surely - slack) / (1 + rounding)

        found = []
        for query, values in zip(unit, looks):
            # What is surely negative counts as 0 anyway; a query of zeros has no neighbours.
            reach = -slack * (1 + rounding) if bool(query.any()) else 2.0
            peaks = _peaks(values)
            if len(peaks) > k:
                reach = max(reach, least(float(torch.topk(peaks, k).values[-1]) * (1 - rounding) - slack))
            places = _reaching(values, peaks, reach)
            if len(places) > k:  # the true k-th of those that look best is a tighter bound than their looks
                best = places[torch.topk(values[places], k).indices.sort().values]
                places = places[values[places] >= least(float(self._exact(query, best).min()))]
            found.append(places)
        return found

    def _quick(self, unit: Tensor, block_bytes: int) -> Iterator[tuple[int, Tensor]]:
        """Blocks of cosines that are wrong by at most `_slack`: number of the first row, (Q, rows)."""
        q, short = unit.float(), unit.bfloat16()
        for number, shard in enumerate(self.shards):
            screen = self.screens[number] if self._reads_screens(unit) else None
            width = shard.shape[1] * (1 if screen is not None else 4) + 16 * len(unit)
            block = max(1, block_bytes // width)
            ones = torch.ones(min(block, len(shard)), dtype=torch.bfloat16)
            lead = block if screen is None else min(_lead(screen.codes) or block, block)
            for first, last in pairwise([0, *range(lead, len(shard), block), len(shard)] if len(shard) else []):
                at = slice(first, last)
                if screen is not None:
                    codes = screen.codes[at]
                    if codes.data_ptr() % _ALIGNED:  # the product loads as much at once, and ends the process else
                        codes = codes.clone()
                    quick = torch._weight_int8pack_mm(short, codes, ones[: len(codes)]).float()
                    quick.mul_(screen.scale[at])
                else:
                    rows = shard[at].to(q.device, torch.float32)
                    quick = (rows @ q.T).div_(rows.norm(dim=1, keepdim=True).clamp(min=1e-30)).T.contiguous()
                yield int(self.starts[number]) + first, quick

    @staticmethod
    def _reads_screens(unit: Tensor) -> bool:
        """PyTorch's product of bfloat16 and 8-bit rows reads beyond them at other widths, and differs on a GPU."""
        return not unit.is_cuda and unit.shape[1] % 32 == 0

    def _slack(self, unit: Tensor) -> tuple[float, float]:
        """The error of the quick pass, absolute and relative: by Cauchy and Schwarz for rounded numbers, by their
        count for float32 sums, by the last bit for sums given as bfloat16.

        One bound for all shards, since candidates of different shards are compared with each other.
        """
        sums = 2e-3 if unit.is_cuda else 2e-7 * unit.shape[1] + 1e-6  # a GPU may multiply in TF32
        slacks = [screen.slack for screen in self.screens if screen is not None]
        if not slacks or not self._reads_screens(unit):
            return sums, 0.0
        lost = float((unit - unit.bfloat16().double()).norm(dim=1).max())
        return max(slacks) + (1 + max(slacks)) * lost + sums, 2.0**-8

    def _exact(self, query: Tensor, index: Tensor) -> Tensor:
        """float64 cosines of some rows, each by itself, so that no other row has a say in its bits."""
        parts = []
        for first in range(0, len(index), _RESCORED):
            rows = self.rows(index[first : first + _RESCORED]).to(query.device, torch.float64)
            norms = (rows * rows).sum(1).sqrt().clamp(min=1e-300)
            parts.append((rows * query).sum(1) / norms)
        return torch.cat(parts) if parts else query.new_empty(0)

    def rows(self, index: Int[Tensor, "I"]) -> Float[Tensor, "I D"]:
        """Some rows by number, in ascending order, as they are stored."""
        index = index.to(self.shards[0].device)
        bounds = torch.searchsorted(index, self.starts.to(index.device)).tolist()
        parts = [
            shard.index_select(0, index[first:last] - start)
            for shard, start, (first, last) in zip(self.shards, self.starts.tolist(), pairwise(bounds))
            if last > first
        ]
        return torch.cat(parts) if parts else self.shards[0][:0]


def _peaks(values: Float[Tensor, "N"]) -> Float[Tensor, "P"]:
    """The highest of each stretch; what is left at the end is in none."""
    return values[: len(values) // _STRETCH * _STRETCH].view(-1, _STRETCH).amax(1)


def _reaching(values: Float[Tensor, "N"], peaks: Float[Tensor, "P"], least: float) -> Int[Tensor, "R"]:
    """Where values reach `least`, in ascending order: `nonzero`, but for the stretches where none does."""
    near = (peaks >= least).nonzero() * _STRETCH + torch.arange(_STRETCH, device=values.device)
    rest = torch.arange(len(peaks) * _STRETCH, len(values), device=values.device)
    near = torch.cat([near.flatten(), rest])
    return near[values[near] >= least]


def _lead(codes: Int[Tensor, "N D"]) -> int:
    """Rows to multiply by themselves, so that the fours of the others, in which PyTorch takes them, keep to a page."""
    return -(codes.data_ptr() // codes.shape[1]) % 4


def _unit(vectors: Float[Tensor, "Q D"]) -> Float[Tensor, "Q D"]:
    """float64 rows of unit length; zero rows stay zero."""
    vectors = vectors.detach().double()
    return vectors / (vectors * vectors).sum(1, keepdim=True).sqrt().clamp(min=1e-300)
