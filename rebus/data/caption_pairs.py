"""Two captions beside an image, words of them blanked: what masked language models with images learn from.

Li et al., "VisualBERT", 2019, Sec. 3.3: the first caption always describes the image; the second is another of the same
image, or one of another image, and the network is to say which.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rebus.codec.processor import Processor
from rebus.codec.text import Control, Pieces
from rebus.core.errors import UsageError
from rebus.core.labels import IGNORED
from rebus.data.forms import OWN, TextRow
from rebus.data.record_batches import RecordBatches, Row, Source

MASK = "[MASK]"
SHARE = 0.15  # of the words are asked for (BERT, Sec. 3.1)


class BlankedBatches(RecordBatches):
    """Batches of texts of one part or two: `tokens` with blanks, `types` (0 in the first part, 1 in the second), and
    `blanks` (what stood there, −100 where nothing is asked). Raises `UsageError` for a tokenizer without [MASK].
    """

    def __init__(self, source: Source, processor: Processor, **options: Any):
        super().__init__(source, processor, **options)
        tokenizer, end = self.text.tokenizer, self.text.spec.eos_id
        mask_id, separator = tokenizer.id_of(MASK), None if end is None else tokenizer.piece_of(end)
        if mask_id is None or end is None or separator is None:
            raise UsageError(f"the tokenizer has no {MASK} or no end token: it is not that of a masked language model")
        self.mask_id, self.end, self.separator = mask_id, end, separator

    def batch(
        self, seed: int, index: int, batch_size: int, split: str = "train", share: tuple[int, int] = (0, 1)
    ) -> dict[str, Any]:
        """As of `RecordBatches`; which words are blanked depends on the row's place in the whole batch alone."""
        batch = super().batch(seed, index, batch_size, split, share)
        first = share[0] * len(batch["tokens"])
        blanks = torch.full_like(batch["tokens"], IGNORED)
        for i, row in enumerate(batch["tokens"]):
            rng = np.random.Generator(np.random.PCG64([seed, index, first + i, split == "train"]))
            self._blank(row, blanks[i], rng)
        return {**batch, "blanks": blanks}

    def _blank(self, row: Tensor, asked: Tensor, rng: np.random.Generator) -> None:
        """Of the asked words four fifths become [MASK], a tenth any token, a tenth stays (BERT, Sec. 3.1)."""
        special = self.text.tokenizer.special_ids
        for at, token in enumerate(row.tolist()):
            if token in special or rng.random() >= SHARE:
                continue
            asked[at] = token
            how = rng.random()
            if how < 0.9:
                row[at] = self.mask_id if how < 0.8 else int(rng.integers(self.text.tokenizer.vocab_size))

    def _texts(self, texts: Sequence[TextRow], images: Sequence[int]) -> dict[str, Tensor]:
        pairs = [
            Pieces(text.words) if text.prompt is None else Pieces(text.asked, Control(self.separator), text.words)
            for text in texts
        ]
        tokens, mask = self.text(pairs)
        ends = tokens.eq(self.end).long()
        return {"tokens": tokens, "mask": mask, "types": ((ends.cumsum(1) - ends > 0) & mask).long()}


class CaptionPairBatches(BlankedBatches):
    """The same of examples with two captions (the form "caption pairs"), and `fits`: whether the second caption is of
    this image. One of another image is that of the neighbouring row, so that a batch is the same on any number of
    ranks."""

    def _tensors(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        if len(rows) % 2:
            raise UsageError("rows swap captions with their neighbours: a batch (on each rank) expects an even number")
        given = list(rows)
        for i, row in enumerate(rows):
            if not row.example.arrays[OWN]:
                own, other = row.example.texts[0], rows[i ^ 1].example.texts[0]
                stays = np.array(own.text == other.text)
                text = TextRow(own.prompt, other.text)
                given[i] = row._replace(example=replace(row.example, texts=(text,), arrays={OWN: stays}))
        batch = super()._tensors(given)
        batch["fits"] = batch.pop(OWN)
        return batch
