"""Continue a text after any prefix of it (PrefixLM).

Wang et al., "SimVLM", 2021, eq. 3: a prefix length is drawn for each text; what is before it is read both ways, what is
after it is written. The image is always read.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from rebus.core.labels import IGNORED
from rebus.nn.only_shapes import only_shapes
from rebus.objectives.both_ways import token_mean
from rebus.objectives.losses import Losses
from rebus.objectives.next_token import hits

_INPUTS = ("pixels", "image_mask", "owners")


def move_prefix(
    tokens: Int[Tensor, "T L"],
    mask: Bool[Tensor, "T L"],
    targets: Int[Tensor, "T S"],
    lengths: Int[Tensor, "T"],
) -> tuple[Int[Tensor, "T P"], Bool[Tensor, "T P"], Int[Tensor, "T S"]]:
    """The first `lengths` targets of each row go to the end of its prompt: prompts, where they are real, and targets.

    Prompts are padded on the left or on the right; what comes back is padded on the right.
    """
    whole = torch.cat([tokens, targets.clamp(min=0)], dim=1)
    at = torch.arange(targets.shape[1], device=targets.device)
    prefix = torch.cat([mask, at < lengths[:, None]], dim=1)
    order = (~prefix).int().argsort(dim=1, stable=True)
    width = int(prefix.sum(dim=1).max()) if len(prefix) else 0
    rest = (at + lengths[:, None]).clamp(max=targets.shape[1] - 1)
    kept = targets.gather(1, rest).masked_fill(at + lengths[:, None] >= targets.shape[1], IGNORED)
    return whole.gather(1, order)[:, :width], prefix.gather(1, order)[:, :width], kept


@dataclass(frozen=True)
class PrefixLMLoss:
    """Cross entropy of what follows a prefix, the mean over all such tokens of the batch.

    `at_random`: how often the prefix is drawn, evenly from nothing to all but the last token; else it is the prompt
    alone. 0 fine-tunes on prompts and answers. The lengths are drawn by the tokens of the batch: the same batch has the
    same loss on every rank.
    """

    kind: Literal["prefix lm"] = "prefix lm"
    at_random: float = 1.0

    def examples(self, batch: Mapping[str, Tensor]) -> int:
        """Tokens that the loss is the mean of."""
        targets = batch["targets"]
        real = (targets != IGNORED).sum()
        return int(real - self._draw(targets).sum() if self._draws() else real)

    def __call__(self, network: Callable[..., Any], batch: Mapping[str, Tensor]) -> Losses:
        tokens, targets = batch["tokens"], batch["targets"]
        mask = batch.get("mask")
        mask = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        if self._draws():
            tokens, mask, targets = move_prefix(tokens, mask, targets, self._draw(targets))
        inputs = {name: batch[name] for name in _INPUTS if name in batch}
        logits = network(**inputs, tokens=tokens, mask=mask, targets=targets).logits
        return Losses(token_mean(logits, targets), hits(logits, targets))

    def _draws(self) -> bool:
        """A plan writes the whole text, which costs a little less than the same text in two parts."""
        return self.at_random > 0 and not only_shapes(torch.empty(0))

    def _draw(self, targets: Int[Tensor, "T S"]) -> Int[Tensor, "T"]:
        number = (targets != IGNORED).sum(dim=1)
        random = torch.Generator().manual_seed(int(targets.sum()) % 2**31)
        share, drawn = torch.rand(2, len(targets), generator=random).to(targets.device)
        return torch.where(drawn < self.at_random, (share * number).long().clamp(max=number - 1), 0).clamp(min=0)
