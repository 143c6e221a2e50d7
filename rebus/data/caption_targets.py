"""What an image encoder learns from in place of whole captions: their masked words, or the set of their words.

Desai & Johnson, "VirTex: Learning Visual Representations from Textual Annotations", 2021, Sec. 4.2 and table 2.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rebus.codec.processor import Processor
from rebus.core.errors import UsageError
from rebus.core.labels import IGNORED
from rebus.data.forms import TextRow
from rebus.data.record_batches import RecordBatches, Source

MASK = "[MASK]"
SHARE = 0.15  # of the words between the first token and the last are chosen, and one at least
_MASKED, _OTHER = 0.85, 0.95  # up to here [MASK] stands in place of a chosen word, up to here any token; the rest stay


class MaskedCaptionBatches(RecordBatches):
    """Batches of captions (the form "masked caption"): `tokens` from the start token to the end token with words
    masked, `mask`, and `targets`, what stood at each [MASK], −100 elsewhere. Chosen words that another token replaces,
    or that stay, are not asked for, as in the released code.

    Raises `UsageError` for a tokenizer without [MASK].
    """

    def __init__(self, source: Source, processor: Processor, **options: Any):
        super().__init__(source, processor, **options)
        mask_id = self.text.tokenizer.id_of(MASK)
        if mask_id is None:
            raise UsageError(f"the tokenizer has no {MASK}: no words can be masked in its texts")
        self.mask_id = mask_id

    def batch(
        self, seed: int, index: int, batch_size: int, split: str = "train", share: tuple[int, int] = (0, 1)
    ) -> dict[str, Any]:
        """As of `RecordBatches`; which words are masked depends on the row's place in the whole batch alone."""
        batch = super().batch(seed, index, batch_size, split, share)
        first = share[0] * len(batch["tokens"])
        for i, (row, targets) in enumerate(zip(batch["tokens"], batch["targets"], strict=True)):
            rng = np.random.Generator(np.random.PCG64([seed, index, first + i, split == "train"]))
            self._blank(row, targets, int(batch["mask"][i].sum()), rng)
        return batch

    def _blank(self, row: Tensor, targets: Tensor, length: int, rng: np.random.Generator) -> None:
        words = length - 2
        if words < 1:
            return
        chosen = 1 + rng.permutation(words)[: max(1, int(np.ceil(SHARE * words)))]
        for at in chosen.tolist():
            how = 0.0 if len(chosen) == 1 else rng.random()
            if how < _MASKED:
                targets[at], row[at] = row[at].item(), self.mask_id
            elif how < _OTHER:
                row[at] = int(rng.integers(self.text.tokenizer.vocab_size))

    def _texts(self, texts: Sequence[TextRow], images: Sequence[int]) -> dict[str, Tensor]:
        prompts, real = self.text([""] * len(texts))
        answers = self.text.targets([text.text for text in texts])
        tokens = torch.cat([prompts, answers.clamp(min=0)], dim=1)
        mask = torch.cat([real, answers != IGNORED], dim=1)
        tokens = tokens.masked_fill(~mask, self.text.spec.pad_id)
        return {"tokens": tokens, "mask": mask, "targets": torch.full_like(tokens, IGNORED)}


class WordSetBatches(RecordBatches):
    """Batches of images with the tokens of a caption in any order (the form "word set"): `targets`, −100 at padding and
    for control tokens."""

    def _texts(self, texts: Sequence[TextRow], images: Sequence[int]) -> dict[str, Tensor]:
        targets = self.text.targets([text.text for text in texts])
        special = torch.tensor(sorted({*self.text.tokenizer.special_ids, self.text.spec.pad_id, self.text.spec.eos_id}))
        return {"targets": targets.masked_fill(torch.isin(targets, special), IGNORED)}
