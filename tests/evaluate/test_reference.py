"""What bundled checkpoints answered where they were recorded, they answer here."""

import json

import pytest
import torch

import rebus
from rebus import catalog
from rebus.evaluate import reference

STORED = sorted(catalog.checkpoint_folder().glob(f"*/{reference.FILE}"))


@pytest.mark.parametrize("file", STORED, ids=[file.parent.name for file in STORED])
def test_bundled_checkpoints_answer_as_recorded(file):
    model = rebus.load(json.loads((file.parent / "card.json").read_text())["name"], device="cpu")
    stored = json.loads(file.read_text())
    same, said = reference.compare(model, stored)
    assert same, said
    for name in {"images", "texts"} & set(stored):
        changed = {**stored, name: [[x + 0.01 for x in row] for row in stored[name]]}
        assert not reference.compare(model, changed)[0]
    for name in {"captions", "answers"} & set(stored):
        assert not reference.compare(model, {**stored, name: ["something else", *stored[name][1:]]})[0]


def test_outputs_that_are_not_finite_are_named():
    model = rebus.load("siglip/scenes", device="cpu")
    stored = reference.record(model)
    spoilt = {**stored, "texts": [[float("nan")] * len(row) for row in stored["texts"]]}
    assert reference.compare(model, spoilt) == (False, "texts: 36 of 36 numbers stored are not finite")
    with torch.no_grad():
        next(model.network.image.parameters()).fill_(float("nan"))
    said = "images[0]: the network's output in float32 is NaN or infinite; its weights may be damaged"
    assert reference.compare(model, stored) == (False, said)


def test_empty_references_do_not_pass():
    model = rebus.load("siglip/scenes", device="cpu")
    assert reference.compare(model, {"dtype": "float32"}) == (None, "nothing stored")
    assert reference.compare(model, {"images": []}) == (False, "images: (0,) numbers stored, (3, 12) now")


def test_every_bundled_checkpoint_has_its_reference():
    assert {file.parent.name for file in STORED} == {name.replace("/", "_") for name in catalog.bundled()}


@pytest.mark.parametrize("name", catalog.bundled())
def test_a_bundled_checkpoint_is_small_beside_the_package(name):
    files = list(catalog.bundled_folder(name).iterdir())
    assert sum(file.stat().st_size for file in files) <= 4_000_000
    assert "rebus_manifest.json" not in {file.name for file in files}  # whose run is not in the package
