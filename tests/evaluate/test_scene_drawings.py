"""Drawings of scenes are judged by a detector: what it is sure of, no more and no less than was asked for."""

from types import SimpleNamespace

import pytest
from PIL import Image

from rebus import catalog
from rebus.core.answers import Box
from rebus.data.scenes import LABELS, scene
from rebus.evaluate import evaluate
from rebus.evaluate.scene_drawings import drawing_scores


def coded(number):
    """An image that says a number by its colour."""
    return Image.new("RGB", (48, 48), (number % 256, number // 256, 200))


class Draws:
    """Draws every caption, the one of `spoiled` as nothing; answers every question, the first one without a name."""

    tasks = frozenset({"caption", "imagine", "complete"})

    def __init__(self, scenes, spoiled=()):
        self.scenes, self.spoiled, self.shown = scenes, spoiled, {}

    def show(self, labels):
        self.shown[len(self.shown)] = labels
        return coded(len(self.shown) - 1)

    def imagine(self, prompts, seed):
        assert len(set(seed)) == len(prompts)
        labels = {s.captions[0]: s.labels for s in self.scenes}
        return [self.show([] if i in self.spoiled else labels[one]) for i, one in enumerate(prompts)]

    def complete(self, documents, seed):
        replies = []
        for i, (question,) in enumerate(documents):
            first, second = question.removeprefix("what is ").removesuffix(" like?").split(" and ")
            shown = [self.show([name.split(" ", 1)[1]]) for name in (first, second)]
            replies.append([first, shown[0], second, shown[1]] if i else shown)
        return replies

    def caption(self, images):
        return [s.captions[0] for s in self.scenes]


class Sees:
    def __init__(self, draws):
        self.draws = draws
        self.true = {s.image.tobytes(): s.labels for s in draws.scenes}

    def detect(self, images, labels):
        assert tuple(labels) == LABELS
        found = []
        for image in images:
            r, g, b = image.getpixel((0, 0))
            names = self.draws.shown[r + 256 * g] if b == 200 else self.true[image.tobytes()]
            unsure = [Box((0, 0, 1, 1), "red star", 0.5)]
            found.append([Box((0, 0, 9, 9), name, 0.9) for name in names] + unsure)
        return found


def test_each_score_counts_what_it_says():
    scenes = [scene(i, "test", count=1 + i % 2) for i in range(6)]
    draws = Draws(scenes, spoiled=(1,))
    scores = drawing_scores(draws, Sees(draws), scenes)
    assert scores == pytest.approx({"drawing": 5 / 6, "drawing_objects": 7 / 9, "drawing_truth": 1.0, "replies": 2 / 3})


def test_the_benchmark_draws_only_with_a_detector_and_scenes_of_so_many_objects(monkeypatch):
    monkeypatch.setattr("rebus.evaluate.scenes.GROUP", 4)
    monkeypatch.setattr("rebus.evaluate.scenes._TOGETHER", 4)
    scenes = [scene(i, "test", count=1 + i % 2) for i in range(4)]
    draws = Draws(scenes)
    scores = evaluate(draws, "scenes", number=4, objects=2, detector=Sees(draws))
    assert (scores["objects"], scores["captions"], scores["drawing"]) == (2, 1.0, 1.0)
    assert not any(name.startswith("drawing") for name in evaluate(draws, "scenes", number=4, objects=2))


def test_the_judge_is_the_best_detector_of_the_package(monkeypatch):
    def card(name, ap50, tasks=("detect",)):
        scores = {"scores": {"test": {"detection_ap50": ap50}}}
        return name, SimpleNamespace(name=name, tasks=frozenset(tasks), scores=scores)

    rows = dict([card("a/scenes", 0.7), card("b/scenes", 0.9), card("c/scenes", 1.0, ("caption",))])
    monkeypatch.setattr(catalog, "bundled", lambda: rows)
    assert catalog.scene_judge() == "b/scenes"
