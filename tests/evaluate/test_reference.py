"""What bundled checkpoints answered where they were recorded, they answer here."""

import json

import pytest

import rebus
from rebus import catalog
from rebus.evaluate import reference

STORED = sorted(catalog.checkpoint_folder().glob(f"*/{reference.FILE}"))


@pytest.mark.parametrize("file", STORED, ids=[file.parent.name for file in STORED])
def test_bundled_checkpoints_answer_as_recorded(file):
    model = rebus.load(file.parent, device="cpu")
    stored = json.loads(file.read_text())
    same, said = reference.compare(model, stored)
    assert same, said
    for name in {"images", "texts"} & set(stored):
        changed = {**stored, name: [[x + 0.01 for x in row] for row in stored[name]]}
        assert not reference.compare(model, changed)[0]
    if "captions" in stored:
        assert not reference.compare(model, {**stored, "captions": ["something else", *stored["captions"][1:]]})[0]


def test_every_bundled_checkpoint_has_its_reference():
    assert {file.parent.name for file in STORED} == {name.replace("/", "_") for name in catalog.bundled()}
