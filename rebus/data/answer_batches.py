"""Questions beside an image, with a score for each answer of a fixed list."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rebus.codec.processor import Processor
from rebus.codec.text import filled_prompt
from rebus.core.errors import UsageError
from rebus.core.specs import Prompts
from rebus.data.forms import TextRow
from rebus.data.record_batches import RecordBatches, Source

PER_PERSON = 0.3  # what an answer gains with each person who gave it, up to 1


class AnswerBatches(RecordBatches):
    """Batches of questions and their answers, one a line: `tokens` of the question in the system's prompt, and
    `scores` (T, A): min(0.3 · people, 1) for each listed answer, 1 for the only one there is.

    Answers that are not listed have no score: `answers[0]`, `<unk>`, stands for them and is not learned. Raises
    `UsageError` where none of the first batch is listed.
    """

    def __init__(self, source: Source, processor: Processor, prompts: Prompts, answers: Sequence[str], **options: Any):
        super().__init__(source, processor, **options)
        self.prompts, self.place = prompts, {answer: i for i, answer in enumerate(answers)}

    def _texts(self, texts: Sequence[TextRow], images: Sequence[int]) -> dict[str, Tensor]:
        tokens, mask = self.text([filled_prompt(self.prompts, "ask", question=text.asked) for text in texts])
        scores = np.zeros((len(texts), len(self.place)), np.float32)
        for row, text in zip(scores, texts, strict=True):
            given = Counter(answer.strip().lower() for answer in text.words.split("\n"))
            each = max(PER_PERSON, 1 / given.total())
            for answer, people in given.items():
                if answer in self.place:
                    row[self.place[answer]] = min(each * people, 1)
        if not scores.any():
            raise UsageError(
                f"not one answer of the batch is among the {len(self.place):,} listed, such as {texts[0].words[:60]!r}"
            )
        return {"tokens": tokens, "mask": mask, "scores": torch.from_numpy(scores)}
