"""Image-text matching by a network that reads both together (`MatchesPairs`): one forward pass per pair."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor

from rebus.codec.text import Prompt, filled_prompt
from rebus.core.errors import BadText, UsageError
from rebus.core.finite import check_finite
from rebus.tasks.batching import AS_IT_SUITS, BatchOptions, in_batches
from rebus.tasks.inputs import many_images, many_texts
from rebus.tasks.task_model import TaskModel, batch_size
from rebus.tasks.text_generation import Pair, inputs


class PairMatcher:
    """The log-odds that each text belongs to each image. An item of `images` may be a list of two, for statements about
    two images."""

    def __init__(self, model: TaskModel, texts: str | Sequence[str]):
        self.model = model
        listed, _ = many_texts(texts)
        if not listed:
            raise UsageError("no texts were given: there is nothing to match")
        for i, text in enumerate(listed):
            if not isinstance(text, str) or not text.strip():
                raise BadText(f"text {i} must be a text that is not empty; got {text!r}")
        self.prompts: list[Prompt] = [filled_prompt(model.system.prompts, "match", text=str(t)) for t in listed]

    def log_odds(self, images: Any, batching: BatchOptions = AS_IT_SUITS) -> Tensor:
        """(images, texts) float32 on the CPU; NaN for pairs that are skipped."""
        sources, _ = many_images(images)
        if not sources:
            raise UsageError("no images were given: there is nothing to match")
        pairs: list[Pair] = list(product(sources, self.prompts))

        def judge(batch: Sequence[Pair]) -> list[float]:
            with torch.inference_mode():
                logits = self.model.network.match_logits(**inputs(self.model, batch))
            check_finite(logits[:, None], "images[{}]", logits.dtype)
            found: list[float] = logits.float().tolist()
            return found

        size = batch_size(self.model, cpu=8, accelerator=64)
        found = in_batches(
            pairs,
            judge,
            size=size,
            what="images",
            numbers=[i // len(self.prompts) for i in range(len(pairs))],
            options=batching,
        )
        rows = torch.tensor([torch.nan if value is None else value for value in found])
        return rows.view(len(sources), len(self.prompts))
