"""Ask several models about the same images, and what follows from their answers."""

import os
import platform
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from rebus import __version__
from rebus.compare.conclusions import conclusions
from rebus.compare.process import How, ModelRun, run_model
from rebus.compare.question import Question
from rebus.compare.scoring import AGREED, SCORED, agreement, score
from rebus.compare.truth import Truths, read_truth
from rebus.core.atomic_write import write_folder_atomically
from rebus.core.errors import UsageError
from rebus.core.strict_json import to_json
from rebus.evaluate.paired import compare_pairs, pareto, score_interval, tie_groups


@dataclass(frozen=True)
class Comparison:
    """What models answered of the same images, in one order for all of them."""

    question: Question
    images: tuple[str, ...]
    runs: tuple[ModelRun, ...]
    truths: Truths | None
    seed: int

    @property
    def whole(self) -> list[ModelRun]:
        """Models that did not fail: those that are compared."""
        return [run for run in self.runs if run.error is None]

    def score_of(self, run: ModelRun, image: int) -> float | None:
        """0 to 1; None without an answer or ground truth."""
        truth = self.truths.of.get(self.images[image]) if self.truths is not None else None
        if truth is None or image not in run.answers:
            return None
        return score(self.question.task, run.answers[image], truth)

    def disagreement(self, image: int) -> float:
        """1 minus the mean agreement of all pairs of answers to an image; 0 for fewer than two answers."""
        answers = [run.answers[image] for run in self.whole if image in run.answers]
        pairs = [agreement(self.question.task, a, b) for a, b in combinations(answers, 2)]
        return 1.0 - float(np.mean(pairs)) if pairs else 0.0

    def by_disagreement(self) -> list[int]:
        """Numbers of the images, the most disputed first."""
        return sorted(range(len(self.images)), key=lambda image: (-self.disagreement(image), image))

    def answers(self) -> Iterator[dict[str, Any]]:
        """A row for each image and model that came to it."""
        for number, image in enumerate(self.images):
            for run in self.runs:
                if number in run.answers:
                    row = {"image": image, "model": run.model, "answer": run.answers[number]}
                    right = self.score_of(run, number)
                    yield row if right is None else {**row, "score": right}
                elif number in run.faults:
                    yield {"image": image, "model": run.model, "error": run.faults[number]}

    def summary(self) -> dict[str, Any]:
        """Everything but the answers, as `summary.json` has it."""
        task = self.question.task
        scores = self._scores()
        means = {name: float(np.mean(row)) for name, row in scores.items()}
        pairs = compare_pairs(scores, self.seed)
        models = [run.to_json() for run in self.runs]
        best = pareto(
            {
                row["model"]: (-means[row["model"]], row["seconds_per_image"], row["peak_memory_bytes"])
                for row in models
                if row["model"] in means and row["seconds_per_image"] is not None and row["peak_memory_bytes"]
            }
        )
        for row in models:
            name = row["model"]
            row["score"] = means.get(name)
            row["interval"] = list(score_interval(np.array(scores[name]), self.seed)) if name in scores else None
            row["pareto"] = name in best if name in means else None
        found = {
            "task": task,
            "question": {**asdict(self.question), "labels": list(self.question.labels)},
            "images": len(self.images),
            "scored_images": len(next(iter(scores.values()), ())),
            "score": SCORED[task] if scores else None,
            "agreement": AGREED[task],
            "models": models,
            "pairs": [*self._agreements({(pair.first, pair.second): pair.to_json() for pair in pairs})],
            "groups": tie_groups(means, pairs) if means else None,
            "smallest_difference": max((pair.smallest for pair in pairs), default=None),
            "rows_of_other_images": self.truths.strangers if self.truths is not None else None,
            "seed": self.seed,
            "machine": {"system": platform.platform(), "processors": os.cpu_count()},
            "versions": {"rebus": __version__, "python": platform.python_version()},
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        return {**found, "conclusions": conclusions(found)}

    def save(self, folder: str | os.PathLike[str]) -> dict[str, Any]:
        """Write a new folder with report.html, answers.jsonl and summary.json, completely or not at all; gives the
        summary. Raises `UsageError` for a folder that has something in it, `CannotWrite`."""
        from rebus.compare.page import page
        from rebus.evaluate.report import check_free

        target = Path(folder)
        check_free(target)
        summary = self.summary()
        with write_folder_atomically(target) as draft:
            with (draft / "answers.jsonl").open("wb") as file:
                file.writelines((to_json(row) + "\n").encode("ascii") for row in self.answers())
            (draft / "summary.json").write_text(to_json(summary, indent=2) + "\n")
            (draft / "report.html").write_text(page(self, summary), encoding="utf-8")
        return summary

    def _scores(self) -> dict[str, list[float]]:
        """Of each model that did not fail, on the images which all of those answered and whose truth is known."""
        if self.truths is None:
            return {}
        rows = {run.model: [self.score_of(run, image) for image in range(len(self.images))] for run in self.whole}
        common = [i for i in range(len(self.images)) if all(row[i] is not None for row in rows.values())]
        return {name: [float(row[i] or 0.0) for i in common] for name, row in rows.items()} if common else {}

    def _agreements(self, tests: Mapping[tuple[str, str], dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Each pair of models: on how many images both answered, how far they agree, and what the tests say."""
        for a, b in combinations(self.whole, 2):
            both = [image for image in a.answers if image in b.answers]
            agreed = [agreement(self.question.task, a.answers[image], b.answers[image]) for image in both]
            row = {"first": a.model, "second": b.model, "images": len(both)}
            mean = float(np.mean(agreed)) if agreed else None
            yield {**row, "agreement": mean, **tests.get((a.model, b.model), {})}


def compare(
    images: Sequence[str | os.PathLike[str]],
    models: Sequence[str],
    task: str,
    *,
    labels: Sequence[str] = (),
    question: str | None = None,
    phrase: str | None = None,
    threshold: float | None = None,
    truth: str | os.PathLike[str] | None = None,
    device: str | None = None,
    dtype: str | None = None,
    quantize: str | None = None,
    budget: float | None = None,
    seed: int = 0,
    tell: Callable[[str], None] = lambda model: None,
) -> Comparison:
    """Ask each model, one after another and each in a new process, about the same images in the same order.

    `models`: what `rebus.load` takes, each once. `task`: classify (`labels`), caption, ask (`question`), detect
    (`labels`, and `threshold`, below which a box does not count; 0.3), segment (`phrase`) or read. `truth`: a CSV or
    "folders" (`rebus.compare.truth.read_truth`); with it labels may be left out, and are those of the ground truth.
    `budget`: seconds that each model may answer for, after its warm-up; the order is drawn by `seed`, so that the
    images which all came to are a sample. `tell` is called with the model's name for each image that is done.

    A model that fails does not raise: its run has the `error`. Raises `UsageError` for what makes no comparison.
    """
    paths = [os.fspath(image) for image in images]
    if not paths:
        raise UsageError("compare expects images; got none")
    if not models or len(set(models)) < len(models):
        raise UsageError(f"compare expects models, each once; got {', '.join(models) or 'none'}")
    if budget is not None and not budget > 0:
        raise UsageError(f"--budget expects more than 0 seconds; got {budget:g}")
    truths = read_truth(os.fspath(truth), task, paths) if truth is not None else None
    if not labels and task in ("classify", "detect") and truths is not None:
        labels = _labels(truths)
    if task == "detect" and threshold is None:
        threshold = 0.3  # a detector gives boxes of any score, most of them of almost none
    asked = Question(task=task, labels=tuple(labels), question=question, phrase=phrase, threshold=threshold)
    asked.check()
    random.Random(seed).shuffle(paths)
    how = How(device=device, dtype=dtype, quantize=quantize, budget=budget)
    runs = tuple(run_model(model, asked, paths, how, tell) for model in models)
    return Comparison(asked, tuple(paths), runs, truths, seed)


def _labels(truths: Truths) -> list[str]:
    """All labels of the ground truth, in the order of the alphabet."""
    return sorted({one if isinstance(one, str) else one["label"] for rows in truths.of.values() for one in rows})
