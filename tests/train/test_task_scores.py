"""Scores of a task on held-out batches: what is generated against the truth, and images that find their own text."""

import json
from dataclasses import replace

import pytest
import torch

import rebus
from rebus.core.answers import Box
from rebus.data.scene_drawings import SceneDrawings
from rebus.objectives import Learner, NextTokenLoss, SigmoidLoss
from rebus.recipes import recipe
from rebus.train import task_scores as module
from rebus.train import train
from rebus.train.config import Watch
from rebus.train.task_scores import task_scores


def test_generated_texts_are_compared_with_the_truth(monkeypatch):
    model = rebus.load("paligemma/scenes")
    truths = ["a red circle above a blue star", "a green heart below a red square"]
    answers = ["A red  circle above a blue star", "a blue star"]
    batch = model.processor(texts=["caption en"] * 2, targets=truths)
    told = model.processor(texts=["caption en"] * 2, targets=answers)["targets"]
    monkeypatch.setattr(module, "said", lambda network, batch, processor: told)
    found = task_scores(Learner(NextTokenLoss(), model.network), [batch], model.processor)
    assert found["exact match"] in (0.5, 0.0)  # as the tokenizer keeps capitals or not
    whole = task_scores(Learner(NextTokenLoss(), model.network), [{**batch, "targets": told}], model.processor)
    assert whole["exact match"] == 1
    assert found["CIDEr-D"] < whole.get("CIDEr-D", 10.0)


def test_images_find_their_own_text():
    model = rebus.load("siglip/scenes")
    from rebus.data.scenes import scene

    examples = [scene(index, "test") for index in range(6)]
    batch = model.processor(images=[one.image for one in examples], texts=[one.captions[0] for one in examples])
    scores = model.match([one.image for one in examples], [one.captions[0] for one in examples])
    wanted = (scores.argmax(1) == torch.arange(6)).float().mean()
    learner = Learner(SigmoidLoss(), model.network)
    assert task_scores(learner, [batch], model.processor) == {"recall@1": pytest.approx(float(wanted))}
    twice = {**batch, "tokens": batch["tokens"].flip(0), "mask": batch["mask"].flip(0)}
    twice["owners"] = torch.arange(6).flip(0)
    assert task_scores(learner, [twice], model.processor) == {"recall@1": pytest.approx(float(wanted))}


def test_nothing_is_said_without_texts():
    model = rebus.load("siglip/scenes")
    learner = Learner(SigmoidLoss(), model.network)
    assert task_scores(learner, [], model.processor) == {}
    assert task_scores(learner, [{"pixels": torch.zeros(1, 3, 96, 96)}], None) == {}


def test_boxes_in_generated_texts_are_paired_with_true_ones(monkeypatch):
    model = rebus.load("paligemma/scenes")
    notation = model.system.locations
    assert notation is not None

    def text(*things):
        return notation.detection_text([Box(xyxy, label, 1.0) for label, xyxy in things], (96, 96))

    cross, star = ("red cross", (10.0, 10.0, 40.0, 40.0)), ("blue star", (50.0, 50.0, 90.0, 90.0))
    truths = [text(cross, star), text(star)]
    answers = [text(("red cross", (12.0, 10.0, 42.0, 40.0)), ("blue star", (10.0, 10.0, 40.0, 40.0))), text(star)]
    batch = model.processor(texts=["detect"] * 2, targets=truths)
    told = model.processor(texts=["detect"] * 2, targets=answers)["targets"]
    monkeypatch.setattr(module, "said", lambda network, batch, processor: told)
    learner = Learner(NextTokenLoss(), model.network)
    found = task_scores(learner, [batch], model.processor, notation)
    assert found["F1 of boxes"] == pytest.approx(2 * 2 / (3 + 3))
    assert "F1 of boxes" not in task_scores(learner, [batch], model.processor)
    plain = model.processor(texts=["caption en"] * 2, targets=["a red star"] * 2)
    assert "F1 of boxes" not in task_scores(learner, [{**plain}], model.processor, notation)


@pytest.mark.parametrize("data", [SceneDrawings(caption=0, documents=0), SceneDrawings(caption=0, imagine=0)])
def test_images_to_be_generated_are_no_texts_to_be_scored(data, tmp_path):
    """Their placeholders are in the answers: a prompt alone has none for the images of its row."""
    config = replace(
        recipe("chameleon_scenes"),
        start_from="chameleon/scenes",
        data=data,
        steps=1,
        batch_size=2,
        eval_every=1,
        eval_batches=1,
        workers=0,
        watch=Watch(gallery=2),
    )
    train(config, tmp_path / "run")
    before = json.loads((tmp_path / "run" / "before.json").read_text())
    assert before["new"].keys() == {"loss", "accuracy", "whole"}
    assert not (tmp_path / "run" / "gallery").exists()
