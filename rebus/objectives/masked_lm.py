"""Fill in the blank, and say whether image and text belong together.

Devlin et al., "BERT", 2018, Sec. 3.1; with images: Li et al., "VisualBERT", 2019, Sec. 3.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from rebus.core.labels import IGNORED, OF_READERS
from rebus.objectives.losses import Losses


class Blanks(NamedTuple):
    """`tokens` with blanks, and `targets`: what stood there, -100 where nothing was asked."""

    tokens: Tensor
    targets: Tensor


def make_blanks(
    tokens: Int[Tensor, "B L"],
    allowed: Bool[Tensor, "B L"],
    *,
    mask_id: int,
    vocab_size: int,
    generator: torch.Generator,
    share: float = 0.15,
) -> Blanks:
    """Ask for `share` of the allowed tokens: four fifths become `mask_id`, a tenth any word, a tenth stays.

    `allowed` leaves out padding and control tokens. The draw depends on the generator alone.
    """

    def draw() -> Tensor:
        return torch.rand(tokens.shape, generator=generator).to(tokens.device)

    asked = (draw() < share) & allowed
    how = draw()
    words = torch.randint(vocab_size, tokens.shape, generator=generator).to(tokens.device)
    blank = torch.where(asked & (how < 0.8), mask_id, tokens)
    blank = torch.where(asked & (how >= 0.8) & (how < 0.9), words, blank)
    return Blanks(blank, torch.where(asked, tokens, IGNORED))


def masked_lm(logits: Float[Tensor, "B L V"], targets: Int[Tensor, "B L"]) -> Float[Tensor, ""]:
    """Mean cross entropy over all asked tokens of the batch; 0 where nothing was asked."""
    asked = (targets != IGNORED).sum().clamp(min=1)
    total = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED, reduction="sum")
    return total / asked


def matching(logits: Float[Tensor, "B 2"], fits: Bool[Tensor, "B"]) -> Float[Tensor, ""]:
    """Mean cross entropy of [does not fit, fits]."""
    return F.cross_entropy(logits.float(), fits.long())


@dataclass(frozen=True)
class MaskedLMLoss:
    """`masked_lm` of the batch's `blanks`, + `match` · `matching` of `fits` where the batch has it."""

    kind: Literal["masked lm"] = "masked lm"
    match: float = 1.0
    kinds: ClassVar[Mapping[str, str]] = {
        "masked_lm": "words", "accuracy": "words", "matching": "rows", "matched": "rows",
    }  # fmt: skip

    def examples(self, batch: Mapping[str, Tensor]) -> dict[str, int]:
        """Words that are asked for, and rows that fit or do not."""
        return {"words": int((batch["blanks"] != IGNORED).sum()), "rows": len(batch["blanks"])}

    def __call__(self, network: Callable[..., Any], batch: Mapping[str, Tensor]) -> Losses:
        reading = network(**{name: value for name, value in batch.items() if name not in OF_READERS})
        blanks = batch["blanks"]
        loss = masked_lm(reading.tokens, blanks)
        asked = blanks != IGNORED
        right = (reading.tokens.argmax(-1) == blanks) & asked
        parts = {"masked_lm": loss.detach(), "accuracy": right.sum() / asked.sum().clamp(min=1)}
        means = {"words": loss}
        if self.match and "fits" in batch:
            fits = batch["fits"]
            matched = matching(reading.fits, fits)
            parts |= {
                "matching": matched.detach(),
                "matched": (reading.fits.argmax(-1) == fits.long()).to(loss.dtype).mean(),
            }
            means["rows"] = self.match * matched
        return Losses(sum(means.values(), torch.zeros_like(loss)), parts, means)
