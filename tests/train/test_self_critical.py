"""A captioner's second stage, from the first step to the saved model."""

import json
from dataclasses import replace

import pytest

import rebus
from rebus.core.config import to_dict
from rebus.core.errors import BadConfig
from rebus.data.scenes import scene
from rebus.objectives import SelfCriticalLoss
from rebus.recipes import recipe
from rebus.train import train
from rebus.train.config import Optim
from rebus.train.setup import config_from_dict
from tests.train.settings import VISUALBERT

STAGE = recipe("visualgpt_scenes")
SMALL = replace(
    STAGE,
    model=replace(
        STAGE.model,
        text=replace(STAGE.model.text, width=24, num_layers=1, num_heads=2, mlp_width=40),
        image=replace(VISUALBERT.model.image, image_size=96),
        region_width=VISUALBERT.model.image.width,
        merge=1,
        num_levels=2,
        mlp_width=20,
    ),
    starts=(),
    freeze=(),
    steps=2,
    batch_size=4,
    eval_every=0,
    workers=0,
)
SECOND = replace(
    SMALL,
    objective=SelfCriticalLoss(num_beams=3, max_new_tokens=8, corpus=8),
    optim=Optim(lr=1e-3, warmup=0, schedule="constant"),
    steps=3,
)


def lines(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_the_second_stage_goes_on_from_the_first_and_resumes(tmp_path):
    first = train(SMALL, tmp_path / "first")
    config = replace(SECOND, start_from=str(first))
    final = train(config, tmp_path / "whole")
    whole = lines(tmp_path / "whole")
    assert all({"cider", "reward"} <= line.keys() for line in whole)
    train(replace(config, steps=1), tmp_path / "cut")
    train(config, tmp_path / "cut")
    assert [line["loss"] for line in lines(tmp_path / "cut")] == [line["loss"] for line in whole]
    assert isinstance(rebus.load(final, device="cpu").caption(scene(0, "test").image, max_new_tokens=3), str)


def test_its_settings_come_back_from_the_folder(tmp_path):
    assert config_from_dict(to_dict(SECOND)) == SECOND
    with pytest.raises(BadConfig, match="num_beam"):
        config_from_dict({**to_dict(SECOND), "objective": {"kind": "self-critical", "num_beam": 3}})
