"""Held-out scores in the task's own terms, beside the loss: of generated texts, of images that find their text."""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from rebus.codec.caption_words import words
from rebus.codec.processor import Processor
from rebus.core.box_overlap import same_boxes
from rebus.core.capabilities import WritesText
from rebus.core.places import LocationNotation
from rebus.objectives import Learner
from rebus.objectives.cider import cider_d_scores
from rebus.train.audit import read
from rebus.train.gallery import can_say, said

MEANINGS = {
    "exact match": "share of the texts, generated greedily, that equal the ground truth but for case and spaces",
    "F1 of boxes": "of boxes in generated texts, right where a true box has the label and an IoU of at least 0.5",
    "CIDEr-D": "how alike generated and true captions are, 0 to 10, by n-grams that are rare in these (cider_d_scores)",
    "recall@1": "share of the images that are closest to their own text among those of the batch",
}
_ROWS = 64  # texts at most: generating takes longer than a loss
_LONG = 4  # words of the ground truth, from which a text is a caption rather than an answer


def task_scores(
    learner: Learner,
    batches: Iterable[Mapping[str, Tensor]],
    processor: Processor | None,
    locations: LocationNotation | None = None,
) -> dict[str, float]:
    """The scores of `MEANINGS` that the task has; none where its batches hold no texts. `locations`: how they state
    boxes."""
    learner.eval()
    found, pairs = list[float](), list[tuple[str, str]]()
    for batch in batches:
        if processor is None or len(pairs) >= _ROWS or len(found) >= _ROWS:
            break
        if not can_say(learner.network, batch, processor):
            continue
        if isinstance(learner.network, WritesText):
            told = learner.inside(partial(said, batch=batch, processor=processor))
            pairs += zip((read(row, processor) for row in batch["targets"]), (read(row, processor) for row in told))
        else:
            found += _recall(learner, batch)
    if found:
        return {"recall@1": sum(found) / len(found)}
    return _of_texts(pairs[:_ROWS]) | _of_boxes(pairs[:_ROWS], locations)


def _of_boxes(pairs: list[tuple[str, str]], locations: LocationNotation | None) -> dict[str, float]:
    """Of all texts together; nothing where no ground truth has a box."""
    if locations is None:
        return {}
    right = found = wanted = 0
    for texts in pairs:
        true, told = ([(one.label, one.xyxy) for one in locations.parse(text)[0]] for text in texts)
        right, found, wanted = right + same_boxes(told, true), found + len(told), wanted + len(true)
    return {"F1 of boxes": 2 * right / (found + wanted)} if wanted else {}


def _of_texts(pairs: list[tuple[str, str]]) -> dict[str, float]:
    if not pairs:
        return {}
    same = [" ".join(truth.casefold().split()) == " ".join(told.casefold().split()) for truth, told in pairs]
    scores = {"exact match": sum(same) / len(same)}
    truths, told = [words(truth) for truth, _ in pairs], [words(answer) for _, answer in pairs]
    if len(pairs) > 1 and all(len(truth.split()) >= _LONG for truth in truths):
        scores["CIDEr-D"] = float(cider_d_scores(told, [[truth] for truth in truths]).mean())
    return scores


@torch.no_grad()
def _recall(learner: Learner, batch: Mapping[str, Tensor]) -> list[float]:
    """1 for each image whose nearest text is one of its own."""
    inputs = {name: batch[name] for name in ("pixels", "image_mask", "tokens", "mask") if name in batch}
    embeddings: Any = learner.inside(lambda network: network(**inputs))
    best = (embeddings.image @ embeddings.text.T).argmax(dim=1)
    owners = batch["owners"] if "owners" in batch else torch.arange(len(best), device=best.device)
    return (owners[best] == torch.arange(len(best), device=best.device)).float().tolist()
