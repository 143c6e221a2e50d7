"""Zero-shot classification: which of the data set's labels is an image's own, without having learnt any.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021, sec. 3.1.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rebus.core.answers import Ranking
from rebus.core.errors import UsageError
from rebus.data.held_out_scenes import SingleObjects
from rebus.evaluate.benchmarks.walk import Example, Source
from rebus.evaluate.outcome import Mistake, Outcome, Worst, bars
from rebus.tasks.classify import Classifier

READS = "images with a label each (folder: a sub-folder for each label, or a column `label`; webdataset)"
TASKS = ("classify",)
HELD_OUT = SingleObjects  # of the scenes world

Rank = Callable[[list[Any]], list[Ranking]]


@dataclass(frozen=True, kw_only=True)
class Options:
    """`labels`: all candidates in place of the data set's own, or what each of its labels is called ("n01440764" →
    "tench"); labels that are numbers are places in a list. `templates`: sentences around a label, or the name of a
    published set; by default those that the data set brings, or the model's own.
    """

    labels: Sequence[str] | Mapping[str, str] | None = None
    templates: str | Sequence[str] | None = None


def run(model: Any, source: Source, options: Options) -> Outcome:
    records = source.records()
    names = Names(records.reader.labels, options.labels)
    templates, note = templates_for(records.reader, options.templates)
    rank = _ranker(model, names.candidates, templates)
    worst = Worst()
    seen: Counter[str] = Counter()
    right: Counter[str] = Counter()
    taken_for: Counter[str] = Counter()
    near = 0
    for batch in records.batches(names.check):
        for example, ranking in zip(batch, rank([example.image for example in batch]), strict=True):
            truth = names.of(example)
            seen[truth] += 1
            right[truth] += ranking.top == truth
            near += truth in ranking.labels[:5]
            if ranking.top != truth:
                taken_for[f"{truth} → {ranking.top}"] += 1
                worst.add(_mistake(example, ranking, truth))
    classes = {name: right[name] / seen[name] for name in names.candidates if seen[name]}
    total = seen.total()
    scores: dict[str, Any] = {"top1": right.total() / total}
    if len(names.candidates) > 5:
        scores["top5"] = near / total
    scores |= {"mean_per_class": sum(classes.values()) / len(classes), "by_class": classes}
    charts = [bars("classes", "accuracy by class", classes, y="top-1")]
    if taken_for:
        common = {pair: float(count) for pair, count in taken_for.most_common(20)}
        charts.append(bars("confusions", "what was taken for what most often", common, y="images"))
    return Outcome(
        scores=scores,
        worst=[*worst],
        plots=charts,
        notes=[f"{len(names.candidates):,} candidates; images of {len(classes):,} of them", *note],
    )


def templates_for(reader: Any, given: str | Sequence[str] | None) -> tuple[str | Sequence[str] | None, list[str]]:
    """Those given, else those that the data set brings (CLIP_benchmark's), else None: the model's own; and a note where
    they are the data set's."""
    own = tuple(getattr(reader, "templates", ()))
    if given or not own:
        return given, []
    return own, [f"with the data set's {len(own):,} sentences around a label"]


class Names:
    """What the labels of a data set are called, and all candidates among which the right one is to be found."""

    def __init__(self, labels: Sequence[str], given: Sequence[str] | Mapping[str, str] | None):
        if not labels and given is None:
            raise UsageError(f"the data set has no labels; this benchmark reads {READS}")
        self._called = given if isinstance(given, Mapping) else _numbered(given or ())
        chosen = labels if given is None else given.values() if isinstance(given, Mapping) else given
        self.candidates = list(dict.fromkeys(chosen))
        self._known = set(self.candidates)

    def of(self, example: Example) -> str:
        """The name of the image's label. Raises `BadRecord` where it has none among the candidates."""
        label = example.record.label
        if label is None:
            raise example.bad("has no label")
        name = self.called(label)
        if name not in self._known:
            raise example.bad(f'its label "{label}" is not among the {len(self.candidates):,} candidates')
        return name

    def called(self, label: str) -> str:
        """The name of a label of the data set; a number that is no candidate itself is a place in the list given."""
        return label if label in self._known else self._called.get(label, label)

    def check(self, example: Example) -> None:
        self.of(example)


def _numbered(names: Sequence[str]) -> dict[str, str]:
    return {str(number): name for number, name in enumerate(names)}


def _ranker(model: Any, labels: Sequence[str], templates: str | Sequence[str] | None) -> Rank:
    if "embed_texts" in model.tasks:
        rank: Any = Classifier(model, labels, templates)  # the labels are read once
        return rank
    return lambda images: model.classify(images, labels, templates)


def _mistake(example: Example, ranking: Ranking, truth: str) -> Mistake:
    first = ranking.probabilities[0]
    return Mistake(
        key=example.record.key,
        badness=first,
        said=f"{ranking.top} ({first:.0%})",
        truth=f"{truth} ({ranking.probabilities[ranking.labels.index(truth)]:.1%})",
        image=example.again,
    )
