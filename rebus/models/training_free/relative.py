"""Relative representations: a vector of similarities to the rows of a table, and how two of them are compared.

Norelli et al., "ASIF", 2023, Sec. 3: keep the k largest similarities, raise them to the power p, make the result a unit
vector. Both descriptions count along the same rows, so their product is a score.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rebus.models.training_free.anchors import Nearest

_GATHERED = 2_000_000  # numbers at a time


class Relative(NamedTuple):
    """Unit vectors over the pairs, without their zeros: `value` (B, K) float64 at the places `at` (B, K) of
    `num_places`; `kept` is False at places whose pair was removed, None where none was."""

    value: Float[Tensor, "B K"]
    at: Int[Tensor, "B K"]
    num_places: int
    kept: Bool[Tensor, "P"] | None = None

    def dense(self) -> Float[Tensor, "B N"]:
        """With the zeros, float32, one place for each pair that counts."""
        rows = torch.zeros(len(self.value), self.num_places, dtype=torch.float64, device=self.value.device)
        rows = rows.scatter_add_(1, self.at, self.value).float()
        return rows if self.kept is None else rows[:, self.kept.to(rows.device)]


def relative(
    nearest: Nearest,
    p: float | int,
    num_places: int,
    weights: Float[Tensor, "P"] | None = None,
    kept: Bool[Tensor, "P"] | None = None,
) -> Relative:
    """The paper's formula on the k nearest similarities, which are not below 0. All zeros stay zeros.

    `weights`: a pair of weight w counts as w copies of it would, which is √w on either side.
    """
    value = nearest.similarity**p
    if weights is not None:
        value = value * weights.to(value.device).double().sqrt()[nearest.at]
    norm = (value * value).sum(1, keepdim=True).sqrt()
    return Relative(torch.where(norm > 0, value / norm.clamp(min=1e-300), 0.0), nearest.at, num_places, kept)


def score(image: Relative, text: Relative) -> Float[Tensor, "B T"]:
    """⟨image, text⟩ of all combinations, in [0, 1]. Each is summed separately, so that others change none of its
    bits.
    """
    if len(image.value) > len(text.value):
        return score(text, image).T
    out = torch.zeros(len(image.value), len(text.value), dtype=torch.float64, device=image.value.device)
    wide = out.new_zeros(max(image.num_places, 1))  # one description with its zeros at a time
    met = torch.zeros(len(wide), dtype=torch.bool, device=wide.device)  # few meet: a mask finds them in the cache
    rows = max(1, _GATHERED // max(text.at.shape[1], 1))
    for number, (value, at) in enumerate(zip(image.value, image.at, strict=True)):
        wide.index_add_(0, at, value)
        met[at] = True
        for first in range(0, len(text.value), rows):
            places, values = text.at[first : first + rows].flatten(), text.value[first : first + rows].flatten()
            hits = met.index_select(0, places).nonzero()[:, 0]
            of = hits.div(text.at.shape[1], rounding_mode="floor") + first
            out[number].index_add_(0, of, wide.index_select(0, places[hits]) * values[hits])
        wide[at], met[at] = 0.0, False
    return out.float()
