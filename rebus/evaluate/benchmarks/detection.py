"""Detection and instance segmentation by COCO's average precision, all twelve numbers.

Lin et al., "Microsoft COCO: Common Objects in Context", 2014; see `rebus.evaluate.detection`.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rebus.core.errors import UsageError
from rebus.data.annotated_size import PixelsOfImages
from rebus.evaluate.benchmarks.located import (
    check_can,
    detections,
    find,
    in_pixels_of_image,
    mistake,
    truth_of,
    was_marked,
)
from rebus.evaluate.benchmarks.walk import Example, Records, Source
from rebus.evaluate.detection import By, Detections, Truth, coco_scores
from rebus.evaluate.outcome import Mistake, Outcome, Plot, Worst, bars

READS = "images with boxes, for masks also outlines (coco, or folder with a column of boxes)"
TASKS = ("detect", "segment")


@dataclass(frozen=True, kw_only=True)
class Options:
    """`by`: "boxes" or "masks". `together`: how many labels one call asks for; by default all."""

    by: By = "boxes"
    together: int | None = None


@dataclass
class Seen:
    """What was met on the way."""

    worst: Worst
    images: int = 0
    unmarked: int = 0
    strange: int = 0

    def notes(self, by: By) -> list[str]:
        found = [f"{self.images:,} images, by {by}"]
        if self.unmarked:
            found.append(f"{self.unmarked:,} images without annotated objects were skipped")
        if self.strange:
            found.append(f"{self.strange:,} answers had labels that were not asked for, and do not count")
        return found


def run(model: Any, source: Source, options: Options) -> Outcome:
    check_can(model, options.by)
    records = source.records()
    labels = list(records.reader.labels)
    if not labels:
        raise UsageError(f"the data set has no labelled objects; this benchmark reads {READS}")
    seen = Seen(Worst())
    found = coco_scores(images(model, records, labels, options, seen), labels, by=options.by)
    if not seen.images:
        raise UsageError("none of the images has annotated objects: there is nothing to evaluate")
    scores = asdict(found)
    by_class = {name: scores.pop(f"class_{name}") for name in ("ap", "ap50")}
    return Outcome(
        scores={**scores, "class_ap": by_class["ap"], "class_ap50": by_class["ap50"]},
        worst=[*seen.worst],
        plots=plots(by_class["ap"], found),
        notes=seen.notes(options.by),
    )


def images(
    model: Any, records: Records, labels: Sequence[str], options: Options, seen: Seen
) -> Iterator[tuple[Truth, Detections]]:
    """Truth and answers of each image, one batch at a time."""
    known = set(labels)
    truths: deque[Truth] = deque()  # of the examples that passed, in their order

    in_pixels = PixelsOfImages(records.name)

    def check(example: Example) -> Example:
        example = in_pixels_of_image(example, in_pixels)
        truths.append(truth_of(example, options.by))
        return example

    for batch in records.batches(check):
        pairs = [(example, truths.popleft()) for example in batch]
        marked = [(example, truth) for example, truth in pairs if was_marked(example)]
        seen.unmarked += len(pairs) - len(marked)
        if not marked:
            continue
        answers = find(model, [example for example, _ in marked], labels, options.by, options.together or len(labels))
        for (example, truth), own in zip(marked, answers, strict=True):
            kept = [answer for answer in own if answer.label in known]
            seen.images += 1
            seen.strange += len(own) - len(kept)
            wrong: Mistake | None = mistake(example, truth, kept)
            if wrong is not None:
                seen.worst.add(wrong)
            yield truth, detections(kept, options.by)


def plots(class_ap: dict[str, float], found: Any) -> list[Plot]:
    """AP by class, and by size."""
    known = {name: value for name, value in class_ap.items() if value == value}
    sizes = {name: getattr(found, f"ap_{name}") for name in ("small", "medium", "large")}
    sizes = {name: value for name, value in sizes.items() if value == value}
    return [
        bars("classes", "AP by class", known, y="AP"),
        *([bars("sizes", "AP by object size", sizes, y="AP")] if sizes else []),
    ]
