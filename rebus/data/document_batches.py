"""Documents of text and images in turn as training batches: web pages, and pairs of image and caption as short ones.

Each image begins a chunk: `image text end image text end`. What is learned is the text of chunks and their end, given
the image before it: neither padding and image tokens, nor what stands before the first image or between an end and the
next image (OpenFlamingo's labels; Awadalla et al., 2023, Sec. 3).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rebus.codec.processor import Processor, rows_first
from rebus.core.errors import MissingFile, UsageError
from rebus.core.labels import IGNORED
from rebus.data.record_batches import RecordBatches, Row, Source


class Unlearned(str):
    """A part of a document that is read and not learned: a prompt."""


MOST_TOKENS = 256  # of a document; what comes after is not read


class DocumentBatches(RecordBatches):
    """Batches of `pixels`, `image_mask`, `tokens`, `mask` and `labels` (B, L): the token after each of `tokens`, −100
    where it is not learned. Raises `UsageError` for a model whose texts have no place for images."""

    def __init__(self, source: Source, processor: Processor, **options: Any):
        super().__init__(source, processor, **options)
        spec = self.text.spec
        if spec.image_token_id is None or not spec.generates:
            raise UsageError("data.form=documents needs a generative model with images inside its texts")
        if processor.image is None:
            raise MissingFile(
                f"the checkpoint has no {processor.image_missing}, without which it cannot process images"
            )
        around = () if spec.image_around_id is None else (spec.image_around_id,)
        self.image = [*around, *[spec.image_token_id] * spec.num_image_tokens, *around]
        own = spec.eos_id is not None and (self.text.tokenizer.piece_of(spec.eos_id) or "") in spec.added_tokens
        self.between = [spec.eos_id] if own else []  # a language model's own end token ends the document alone
        self.most_tokens = min(MOST_TOKENS, spec.context)

    def _tensors(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        found = [self._tokens(row.example.document or ()) for row in rows]
        longest = max(len(tokens) for tokens, _, _ in found)
        tokens = torch.full((len(rows), longest), self.text.spec.pad_id)
        labels = torch.full_like(tokens, IGNORED)
        for i, (row, given, _) in enumerate(found):
            tokens[i, : len(row)] = torch.tensor(row)
            after = torch.tensor(learned(row, self.image, self.between))
            after[given] = IGNORED
            labels[i, : len(row) - 1] = after[1:]
        mask = torch.arange(longest) < torch.tensor([len(row) for row, _, _ in found])[:, None]
        counts = [count for _, _, count in found]
        batch = {"tokens": tokens, "mask": mask, "labels": labels}
        if any(counts):
            seen = [row.images["pixels"][:count] for row, count in zip(rows, counts, strict=True) if count]
            batch |= rows_first({"pixels": torch.cat(seen)}, counts)
        return batch

    def _tokens(self, document: Sequence[str | None]) -> tuple[list[int], list[int], int]:
        """The ids of a document, whose images are None, the places of `Unlearned` ones, and how many images are
        among them."""
        spec, encode = self.text.spec, self.text.tokenizer.encode
        ids, given, count = ([] if spec.bos_id is None else [spec.bos_id]), list[int](), 0
        end = [] if spec.eos_id is None else [spec.eos_id]
        for part in document:
            if part is not None:
                new = encode(self.text.prepare(part))
                given += range(len(ids), len(ids) + len(new)) if isinstance(part, Unlearned) else ()
                ids += new
                continue
            mark = [*(self.between if count else []), *self.image]
            if len(ids) + len(mark) > self.most_tokens:
                break
            ids, count = ids + mark, count + 1
        return (ids + end)[: self.most_tokens], [at for at in given if at < self.most_tokens], count


def learned(tokens: Sequence[int], image: Sequence[int], ends: Sequence[int]) -> list[int]:
    """The tokens of a document that are learned, −100 in place of the others. `image`: those that stand for an image;
    `ends`: those that end a chunk."""
    found, learns = [], False
    for token in tokens:
        if token in image:
            learns = True
            found.append(IGNORED)
            continue
        found.append(token if learns else IGNORED)
        learns = learns and token not in ends
    return found
