"""How much an image encoder has learned: linear classifiers on its frozen features.

Images with a label each: softmax regression, as for ImageNet in Desai & Johnson, "VirTex", 2021, sec. 4.1 (there by
SGD), and top-1. Images with things in them: one SVM a label as on VOC07 there, and the mean of the average precisions.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from rebus.core.errors import RebusError, UsageError
from rebus.evaluate.benchmarks.walk import Example, Records, Source
from rebus.evaluate.linear_probe import Linear, average_precision, best_costs, softmax_regression, svms
from rebus.evaluate.outcome import Mistake, Outcome, Worst, bars
from rebus.tasks.image_features import image_features

READS = (
    "two splits, one of them for training, of images with a label each (folder: a sub-folder for each; webdataset) "
    "or with labelled objects (coco, cvat, folder with boxes)"
)
TASKS = ()  # any model with an image encoder

STRENGTHS = (0.1, 1.0, 10.0, 100.0, 1000.0, 10_000.0)  # of the data against the length of the weights


@dataclass(frozen=True, kw_only=True)
class Options:
    """`support`: the split to learn from."""

    support: str = "train"


class _Seen(NamedTuple):
    """Images of a split: `features` (N, D) of unit length; `wanted`, `unsure` (N, K): labels that they have, and
    labels of which nobody can say."""

    features: Tensor
    wanted: Tensor
    unsure: Tensor
    keys: list[str]
    again: list[Any]


def run(model: Any, source: Source, options: Options) -> Outcome:
    """Labels are single or sets by the first image to learn from: where it has a label of its own, all must have."""
    records, support = source.records(), source.others(options.support)
    labels = list(support.reader.labels)
    if not labels:
        raise UsageError(f"the data set has no labels; this benchmark reads {READS}")
    single = _is_single(support)
    train, test = (_seen(model, split, labels, single) for split in (support, records))
    learnable = train.wanted.any(dim=0) & test.wanted.any(dim=0)
    if not learnable.any():
        raise UsageError(f"no label of {support.name} has both training and test images")
    note = f"learned from {len(train.keys):,} images, {len(labels):,} labels"
    return (_one_label if single else _sets)(train, test, labels, learnable, [note])


def _one_label(train: _Seen, test: _Seen, labels: Sequence[str], learnable: Tensor, notes: list[str]) -> Outcome:
    own, right = train.wanted.long().argmax(dim=1), test.wanted.long().argmax(dim=1)
    strength = _best_strength(train.features, own, len(labels))
    scores = softmax_regression(train.features, own, len(labels), strength)(test.features)
    hit = scores.argmax(dim=1) == right
    classes = {label: float(hit[right == i].float().mean()) for i, label in enumerate(labels) if (right == i).any()}
    found: dict[str, Any] = {"top1": float(hit.float().mean())}
    if len(labels) > 5:
        found["top5"] = float((scores.topk(5).indices == right[:, None]).any(dim=1).float().mean())
    found |= {"mean_per_class": sum(classes.values()) / len(classes), "by_class": classes}
    worst, sure = Worst(), scores.softmax(dim=1)
    for row in (~hit).nonzero()[:, 0].tolist():
        best, true = int(scores[row].argmax()), int(right[row])
        worst.add(_mistake(test, row, float(sure[row, best] - sure[row, true]), labels[best], labels[true]))
    return Outcome(
        scores=found,
        worst=[*worst],
        plots=[bars("classes", "accuracy by class", classes, y="top-1")],
        notes=[*notes, f"strength {strength:g}, chosen on a fifth of the images to learn from"],
    )


def _sets(train: _Seen, test: _Seen, labels: Sequence[str], learnable: Tensor, notes: list[str]) -> Outcome:
    costs = best_costs(train.features, train.wanted)
    scores = svms(train.features, train.wanted, costs)(test.features)
    each, worst = {}, Worst()
    for i in learnable.nonzero()[:, 0].tolist():
        known = ~test.unsure[:, i]
        each[labels[i]] = average_precision(scores[known, i], test.wanted[known, i])
        wrong = (known & ((scores[:, i] > 0) != test.wanted[:, i])).nonzero()[:, 0].tolist()
        for row in wrong:
            told = labels[i], f"no {labels[i]}"
            said, true = told if scores[row, i] > 0 else told[::-1]
            worst.add(_mistake(test, row, float(scores[row, i].abs()), said, true))
    left = [label for i, label in enumerate(labels) if not learnable[i]]
    notes = [*notes, *([f"without {', '.join(left)}, of which a split has no image"] if left else [])]
    return Outcome(
        scores={"map": sum(each.values()) / len(each), "by_class": each},
        worst=[*worst],
        plots=[bars("classes", "average precision by class", each, y="AP")],
        notes=[*notes, "exact average precision; labels with only crowd or difficult objects are not tested"],
    )


def _best_strength(features: Tensor, own: Tensor, num_labels: int) -> float:
    """The one that is right most often on every fifth image, having learned from the others; of equals the smallest."""
    held = torch.arange(len(own)) % 5 == 4
    if not held.any():
        return 1.0

    def right(strength: float) -> float:
        found: Linear = softmax_regression(features[~held], own[~held], num_labels, strength)
        return float((found(features[held]).argmax(dim=1) == own[held]).float().mean())

    return max(STRENGTHS, key=right)


def _is_single(support: Records) -> bool:
    for place in support.places():
        with suppress(RebusError, OSError):  # a damaged one is counted when all are read
            return support.reader.read(*place).label is not None
    raise UsageError(f"{support.name} has no training image")


def _seen(model: Any, records: Records, labels: Sequence[str], single: bool) -> _Seen:
    place = {label: i for i, label in enumerate(labels)}

    def names(example: Example) -> Iterator[tuple[str, bool]]:
        """Each label, and whether it is sure."""
        record = example.record
        if single and record.label is None:
            raise example.bad("has no label")
        pairs = [(record.label, True)] if single else [(thing.label, not thing.crowd) for thing in record.things]
        for label, sure in pairs:
            if label not in place:
                raise example.bad(f'its label "{label}" is not among the {len(labels):,} to learn from')
            yield str(label), sure

    def check(example: Example) -> None:
        list(names(example))

    features, wanted, unsure, keys, again = [], [], [], [], []
    for batch in records.batches(check):
        features.append(image_features(model, [example.image for example in batch]))
        for example in batch:
            there, perhaps = torch.zeros(len(labels), dtype=torch.bool), torch.zeros(len(labels), dtype=torch.bool)
            for label, sure in names(example):
                (there if sure else perhaps)[place[label]] = True
            wanted.append(there)
            unsure.append(perhaps & ~there)
            keys.append(example.record.key)
            again.append(example.again)
    return _Seen(F.normalize(torch.cat(features), dim=1), torch.stack(wanted), torch.stack(unsure), keys, again)


def _mistake(test: _Seen, row: int, badness: float, said: str, true: str) -> Mistake:
    return Mistake(key=test.keys[row], badness=badness, said=said, truth=true, image=test.again[row])
