"""CHAIR: things that a caption names and the image does not show.

Rohrbach et al., "Object Hallucination in Image Captioning", 2018. `chair_i`: of all mentions of COCO's things those of
none in the image; `chair_s`: captions with such a mention. What is in an image: its marked things, and what people's
captions name. `recall`: of the things there, those that the caption names.
"""

from collections import Counter
from typing import Any

from rebus.core.errors import UsageError
from rebus.evaluate.benchmarks.captions import Options, write
from rebus.evaluate.benchmarks.coco_words import THINGS, things_in
from rebus.evaluate.benchmarks.located import was_marked
from rebus.evaluate.benchmarks.walk import Source
from rebus.evaluate.outcome import Mistake, Outcome, Worst, bars

READS = "COCO with instances_*.json, best with captions_*.json beside it (coco, or folder with boxes)"
TASKS = ("caption",)

__all__ = ["READS", "TASKS", "Options", "run"]


def run(model: Any, source: Source, options: Options) -> Outcome:
    records, worst = source.records(), Worst()
    if not set(records.reader.labels) & set(THINGS):
        raise UsageError(f"the data set has no annotated objects of COCO; this benchmark reads {READS}")
    images = mentions = wrong = bad_captions = named = there = unmarked = 0
    invented: Counter[str] = Counter()
    for batch in records.batches():
        marked = [example for example in batch if was_marked(example)]
        unmarked += len(batch) - len(marked)
        if not marked:
            continue
        for example, said in zip(marked, write(model, marked, options), strict=True):
            record = example.record
            true = {thing.label for thing in record.things} & set(THINGS)
            true |= {name for text in record.captions for name in things_in(text)}
            found = things_in(said)
            strange = [name for name in found if name not in true]
            images, mentions, wrong = images + 1, mentions + len(found), wrong + len(strange)
            bad_captions += bool(strange)
            named, there = named + len(true & set(found)), there + len(true)
            invented.update(strange)
            if strange:
                worst.add(
                    Mistake(
                        key=record.key,
                        badness=len(strange),
                        said=f"{said} (not there: {', '.join(dict.fromkeys(strange))})",
                        truth=", ".join(sorted(true)) or "none of the 80 objects",
                        image=example.again,
                    )
                )
    if not images:
        raise UsageError("none of the images has annotated objects: there is nothing to evaluate")
    scores = {
        "chair_i": wrong / mentions if mentions else 0.0,
        "chair_s": bad_captions / images,
        "recall": named / there if there else 0.0,
        "mentions_per_caption": mentions / images,
    }
    notes = [
        f"{images:,} captions, {mentions:,} mentions; lower CHAIR is better, higher recall is",
        "synonyms are rebus's own list; published numbers use the paper's, so compare within rebus only",
    ]
    if unmarked:
        notes.append(f"{unmarked:,} images without annotated objects were skipped")
    common = {name: float(count) for name, count in invented.most_common(30)}
    charts = [bars("invented", "objects mentioned that are not there", common, y="mentions")] if common else []
    return Outcome(scores=scores, worst=[*worst], plots=charts, notes=notes)
