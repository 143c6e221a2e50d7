"""Captions against those people wrote: CIDEr-D, BLEU-1 to BLEU-4, ROUGE-L, counted as the COCO evaluation counts them.

Chen et al., "Microsoft COCO Captions: Data Collection and Evaluation Server", 2015.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from rebus.core.errors import UsageError
from rebus.evaluate.benchmarks.walk import Example, Source
from rebus.evaluate.caption_metrics import bleu, cider_d_scores, rouge_l, words
from rebus.evaluate.outcome import Mistake, Outcome, Worst, bars

READS = "images with one caption or more each (coco, karpathy, folder, webdataset)"
TASKS = ("caption",)


@dataclass(frozen=True, kw_only=True)
class Options:
    """`prompt` in place of the system's own; `num_beams`: beam search; `max_new_tokens` of a caption."""

    prompt: str | None = None
    num_beams: int | None = None
    max_new_tokens: int | None = None


def run(model: Any, source: Source, options: Options) -> Outcome:
    said, people, examples = [], [], []
    for batch in source.records().batches(_has_captions):
        said += write(model, batch, options)
        people += [list(example.record.captions) for example in batch]
        examples += [(example.record.key, example.again) for example in batch]
    if len(said) < 2:
        raise UsageError("CIDEr-D uses word frequencies over the images; a single image has no score")
    ours, theirs = [words(text) for text in said], [[words(text) for text in texts] for texts in people]
    each = cider_d_scores(ours, theirs)
    counted = bleu(ours, theirs)
    worst = Worst()
    for (key, again), text, texts, score in zip(examples, said, people, each, strict=True):
        if words(text) not in map(words, texts):
            worst.add(Mistake(key=key, badness=-float(score), said=text, truth=texts[0], image=again))
    heights, _ = np.histogram(each, np.arange(11))
    names = [f"{low} to {low + 1}" for low in range(10)]
    spread = bars("cider", "how many images have which CIDEr-D", dict(zip(names, map(float, heights))), y="images")
    return Outcome(
        scores={
            "cider_d": float(each.mean()),
            **{f"bleu{n}": value for n, value in enumerate(counted, 1)},
            "rouge_l": rouge_l(ours, theirs),
        },
        worst=[*worst],
        plots=[spread],
        notes=["papers print 100 times as much; words are split by rebus, nearly as the official tokenizer does"],
    )


def write(model: Any, batch: list[Example], options: Options) -> list[str]:
    """A caption for each image."""
    decoding: dict[str, Any] = {"strategy": "beam", "num_beams": options.num_beams} if options.num_beams else {}
    if options.max_new_tokens:
        decoding["max_new_tokens"] = options.max_new_tokens
    if options.prompt is not None:
        decoding["prompt"] = options.prompt
    written: list[str] = model.caption([example.image for example in batch], **decoding)
    return written


def _has_captions(example: Example) -> None:
    if not any(text.strip() for text in example.record.captions):
        raise example.bad("has no caption")
