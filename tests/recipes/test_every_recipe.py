"""Recipes of the scenes world go a step, with scores and gallery, from the bundled model where it is of their kind."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rebus.data.bundled_checkpoints import directory_of
from rebus.recipes import RECIPES, recipe
from rebus.train import train
from rebus.train.config import Watch

ANEW = {"clip_scene_crops", "flamingo_scenes_text", "magic_scenes", "visualbert_scenes_pretrain"}  # of other networks
OWN_DATA = {"vild_scenes"}  # learns from what `rebus data regions` writes
NAMES = [name for name in RECIPES if "_scene" in name and name not in OWN_DATA]
MEASURED = {"clip_scenes": "recall@1", "simvlm_scenes": "exact match", "florence2_scenes": "F1 of boxes"}


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_goes_a_step_from_the_bundled_model(name: str, tmp_path: Path) -> None:
    config = recipe(name)
    start = f"{config.system}/scenes"
    goes_on = name not in ANEW and (directory_of(start) / "config.json").is_file()
    small = {"steps": 1, "batch_size": min(config.batch_size, 4), "eval_every": 1, "eval_batches": 1, "workers": 0}
    config = replace(config, start_from=start if goes_on else None, starts=(), watch=Watch(gallery=3), **small)
    out = tmp_path / "run"
    train(config, out)
    line = json.loads((out / "metrics.jsonl").read_text())
    assert line["val_loss"] == line["val_loss"]
    if goes_on:
        report = json.loads((out / "report.json").read_text())["new"]
        assert report["before"].keys() == report["after"].keys() >= {MEASURED.get(name, "loss")}
