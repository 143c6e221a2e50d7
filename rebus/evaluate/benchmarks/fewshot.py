"""Few-shot classification on frozen embeddings: how good a few images of each label are, beside the label's name.

A linear probe as in Radford et al., 2021, sec. 3.1.5 (CLIP's own few-shot figure), and the nearest mean of a class
(Snell et al., 2017); both on unit vectors. No images at all is zero-shot classification.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from rebus.core.errors import UsageError
from rebus.evaluate.benchmarks.walk import Place, Records, Source
from rebus.evaluate.benchmarks.zeroshot import Names, templates_for
from rebus.evaluate.linear_probe import softmax_regression
from rebus.evaluate.outcome import Mistake, Outcome, Plot, Worst
from rebus.tasks.classify import Classifier
from rebus.tasks.embed import Comparison

READS = "labelled images of two splits, one of them for training (folder: train/ and test/; webdataset)"
TASKS = ("embed_images",)

_STRENGTH = 31.6  # of the data against the penalty: CLIP's 0.316 for vectors of length 10, which are here of length 1


@dataclass(frozen=True, kw_only=True)
class Options:
    """`support`: the training split. `shots`: images per label. `draws`: number of random draws.
    `labels`, `templates`: see zeroshot."""

    support: str = "train"
    shots: Sequence[int] = (0, 1, 2, 4, 8, 16)
    draws: int = 3
    labels: Sequence[str] | Mapping[str, str] | None = None
    templates: str | Sequence[str] | None = None


def run(model: Any, source: Source, options: Options) -> Outcome:
    records, support = source.records(), source.others(options.support)
    names = Names(records.reader.labels, options.labels)
    compare = Comparison(model)
    orders, most = _drawn(support, names, source.seed, options)
    known = _embedded(compare, support, names, sorted({place for order in orders for row in order for place in row}))
    test = _tests(compare, records, names)
    vectors = F.normalize(test.vectors, dim=-1)
    right = torch.tensor([names.candidates.index(truth) for truth in test.truths])
    curves: dict[str, dict[int, list[float]]] = {"linear probe": {}, "nearest mean": {}}
    said = None
    for shots in most:
        for order in orders:
            seen, own = _chosen(known, order, shots)
            said = softmax_regression(seen, own, len(names.candidates), _STRENGTH)(vectors)
            curves["linear probe"].setdefault(shots, []).append(_share(said, right))
            means = _means(seen, own, len(names.candidates))
            curves["nearest mean"].setdefault(shots, []).append(_share(vectors @ means.T, right))
    scores: dict[str, Any] = {}
    notes = [f"{len(right):,} images, {len(names.candidates):,} labels; the mean of {options.draws} draws"]
    if 0 in options.shots and "embed_texts" in model.tasks:
        templates, note = templates_for(records.reader, options.templates)
        notes += note
        weights = Classifier(model, names.candidates, templates).weights
        logits = compare.scores(test.vectors, weights.flatten(0, -2))
        logits = logits if weights.dim() == 2 else logits.unflatten(1, weights.shape[:2]).amax(dim=2)
        scores["zero-shot"] = _share(logits, right)
        said = logits if said is None else said
    for way, curve in curves.items():
        if curve:
            scores[way] = {str(shots): float(np.mean(values)) for shots, values in curve.items()}
    if most:
        scores["deviation"] = {str(n): float(np.std(values)) for n, values in curves["linear probe"].items()}
    left_out = [n for n in options.shots if n > 0 and n not in most]
    if left_out:
        notes.append(f"too few images of some label for {', '.join(map(str, left_out))} shots")
    if not scores:
        raise UsageError("no label has a training image, and zero-shot was not requested")
    assert said is not None
    return Outcome(
        scores=scores, worst=[*_worst(test, said, right, names.candidates)], plots=[_plot(scores)], notes=notes
    )


class _Tests(NamedTuple):
    """What is to be classified."""

    vectors: Tensor
    truths: list[str]
    keys: list[str]
    again: list[Any]


def _drawn(support: Records, names: Names, seed: int, options: Options) -> tuple[list[list[list[Place]]], list[int]]:
    """For each draw and each label the places of its images in order, as many as are needed; and the shots that all
    labels have."""
    if min(options.shots, default=-1) < 0 or options.draws < 1:
        raise UsageError("shots must be 0 or more, and draws 1 or more")
    places: dict[str, list[Place]] = {name: [] for name in names.candidates}
    for place in support.places():
        record = support.record(place)
        name = None if record is None or record.label is None else names.called(record.label)
        if name in places:
            places[name].append(place)
    fewest = min(map(len, places.values()))
    most = sorted({n for n in options.shots if 0 < n <= fewest})
    draws = []
    for draw in range(options.draws if most else 0):
        rng = np.random.Generator(np.random.PCG64([seed, draw]))
        spare = most[-1] + 2  # in case one is damaged
        draws.append([[rows[i] for i in rng.permutation(len(rows))[:spare]] for rows in places.values()])
    return draws, most


def _embedded(compare: Comparison, support: Records, names: Names, places: list[Place]) -> dict[Place, Tensor]:
    found: dict[Place, Tensor] = {}
    if places:
        for batch in support.batches(names.check, places):
            vectors = F.normalize(compare.images([example.image for example in batch]), dim=-1)
            found |= {example.place: vector for example, vector in zip(batch, vectors, strict=True)}
    return found


def _tests(compare: Comparison, records: Records, names: Names) -> _Tests:
    vectors: list[Tensor] = []
    truths, keys, again = [], [], []
    for batch in records.batches(names.check):
        vectors.append(compare.images([example.image for example in batch]))
        truths += [names.of(example) for example in batch]
        keys += [example.record.key for example in batch]
        again += [example.again for example in batch]
    return _Tests(torch.cat(vectors), truths, keys, again)


def _chosen(known: Mapping[Place, Tensor], order: Sequence[Sequence[Place]], shots: int) -> tuple[Tensor, Tensor]:
    """Vectors (n, E) and labels (n,) of the first `shots` images of each label that could be opened."""
    rows = [
        (known[place], label)
        for label, places in enumerate(order)
        for place in [place for place in places if place in known][:shots]
    ]
    return torch.stack([vector for vector, _ in rows]), torch.tensor([label for _, label in rows])


def _means(seen: Tensor, own: Tensor, num_labels: int) -> Tensor:
    sums = torch.zeros(num_labels, seen.shape[1]).index_add_(0, own, seen)
    return F.normalize(sums, dim=-1)


def _share(logits: Tensor, right: Tensor) -> float:
    return float((logits.argmax(dim=1) == right).float().mean())


def _worst(test: _Tests, logits: Tensor, right: Tensor, labels: Sequence[str]) -> Worst:
    worst, sure = Worst(), logits.softmax(dim=1)
    for row, best in enumerate(logits.argmax(dim=1).tolist()):
        if best != right[row]:
            worst.add(
                Mistake(
                    key=test.keys[row],
                    badness=float(sure[row, best] - sure[row, right[row]]),
                    said=labels[best],
                    truth=test.truths[row],
                    image=test.again[row],
                )
            )
    return worst


def _plot(scores: Mapping[str, Any]) -> Plot:
    series = {
        way: ([int(n) for n in scores[way]], list(scores[way].values()))
        for way in ("linear probe", "nearest mean")
        if way in scores
    }
    if "zero-shot" in scores:
        series["zero-shot"] = ([0], [scores["zero-shot"]])
    title = "accuracy by the number of training images"
    return Plot(name="shots", title=title, x="images a label", y="top-1", kind="lines", series=series)
