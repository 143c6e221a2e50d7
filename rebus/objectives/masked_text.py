"""Fill in the blanks of text alone: how an encoder learns a language without any image.

Devlin et al., "BERT", 2018, Sec. 3.1.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from rebus.core.labels import IGNORED
from rebus.objectives.losses import Losses
from rebus.objectives.masked_lm import make_blanks, masked_lm


@dataclass(frozen=True)
class MaskedTextLoss:
    """`masked_lm` by the product with the token embeddings. Ids below `words` are control tokens and are never asked.

    What is asked depends on the tokens of the batch alone, so that a run can be repeated and resumed.
    """

    kind: Literal["masked text"] = "masked text"
    mask_id: int = 3
    words: int = 5
    share: float = 0.15

    def __call__(self, network: Any, batch: Mapping[str, Tensor]) -> Losses:
        tokens, mask = batch["tokens"], batch["mask"]
        embeddings = network.tokens.weight
        places = torch.arange(tokens.numel(), device=tokens.device).view_as(tokens)
        generator = torch.Generator().manual_seed(int((tokens * (places + 1)).sum()))
        blanks = make_blanks(
            tokens,
            mask & (tokens >= self.words),
            mask_id=self.mask_id,
            vocab_size=len(embeddings),
            generator=generator,
            share=self.share,
        )
        logits = network(blanks.tokens, mask) @ embeddings.T
        loss = masked_lm(logits, blanks.targets)
        with torch.no_grad():
            asked = blanks.targets != IGNORED
            right = (logits.argmax(-1) == blanks.targets)[asked].float().mean()
        return Losses(loss, {"right": right})
