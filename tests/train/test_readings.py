"""Both phases of an encoder that reads image and text together, from the first step to the saved model."""

import json
from dataclasses import replace

import pytest
import torch

import rebus
from rebus import catalog
from rebus.codec.images import normalised
from rebus.data.scene_readings import scene_answers
from rebus.data.scenes import scene
from rebus.train import train
from rebus.train.config import Start
from rebus.train.setup import open_data
from tests.train.settings import VISUALBERT, VISUALBERT_ANSWERS

PARTS = ("text", "region_proj", "region_types", "region_positions", "image")


def losses(out):
    return [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_blanks_then_answers(tmp_path):
    first = train(VISUALBERT, tmp_path / "first")
    model = rebus.load(first, device="cpu")
    assert model.tasks == {"match"}
    s = scene(0, "test")
    probability = model.match(s.image, s.captions[0])
    assert 0 < float(probability) < 1

    starts = tuple(Start(source=str(first), take=part, into=part) for part in PARTS)
    second = train(replace(VISUALBERT_ANSWERS, starts=starts, freeze=("image",)), tmp_path / "second")
    asked = rebus.load(second, device="cpu")
    assert asked.tasks == {"ask"}
    assert asked.ask(s.image, [question for question, _ in s.questions]).count("<unk>") == 0
    assert (second / "answers_vqa.txt").read_text().splitlines() == list(scene_answers())
    assert asked.card.domain == "shapes"
    kept = model.network.state_dict()
    for name, value in asked.network.state_dict().items():
        if name.startswith("image."):
            assert torch.equal(value, kept[name]), name


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path):
    config = replace(VISUALBERT, optim=replace(VISUALBERT.optim, schedule="constant"))
    train(config, tmp_path / "whole")
    train(replace(config, steps=2), tmp_path / "cut")
    train(config, tmp_path / "cut")
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")


@pytest.mark.parametrize("config", [VISUALBERT_ANSWERS, VISUALBERT], ids=["answers", "blanks"])
def test_parts_of_a_batch_give_the_losses_of_the_whole(config, tmp_path):
    once = replace(config, steps=2)
    train(once, tmp_path / "once")
    train(replace(once, accumulate=4), tmp_path / "parts")
    assert losses(tmp_path / "parts") == pytest.approx(losses(tmp_path / "once"), rel=1e-4)


def test_eight_pairs_are_learned_by_heart():
    torch.manual_seed(0)
    network = catalog.system("visualbert").network(VISUALBERT.model)
    data = open_data(VISUALBERT)
    batch = {name: value for name, value in data.batch(0, 0, 8).items() if torch.is_tensor(value)}
    batch["pixels"] = normalised(batch["pixels"], data.processor.image.spec)
    assert 0 < batch["fits"].sum() < 8
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for _ in range(60):
        losses = VISUALBERT.objective(network, batch)
        optimiser.zero_grad()
        losses.total.backward()
        optimiser.step()
    assert float(losses.parts["matched"]) == 1
    assert float(losses.parts["accuracy"]) > 0.9
