"""detect and segment: answers, and the drawings of `--out`."""

import json

import numpy as np
import pytest
from PIL import Image

from rebus.core.answers import Box, Mask

WRITER = ("--model", "paligemma/scenes")


@pytest.fixture
def found(monkeypatch):
    """The tiny models are untrained, so what they would find is given."""
    from rebus.tasks import detect, segment

    def boxes(model, images, labels=None, **_):
        return [[Box((10, 20, 50, 60), (labels or ["object"])[0], 0.9)] for _ in images]

    def masks(model, images, phrase, **_):
        inside = np.zeros((96, 96), bool)
        inside[20:60, 10:50] = True
        return [[Mask(inside, (10, 20, 50, 60), phrase, 0.8)] for _ in images]

    monkeypatch.setattr(detect, "detect", boxes)
    monkeypatch.setattr(segment, "segment", masks)


def test_untrained_models_answer_too(bundled, pictures, run):
    code, out, err = run("detect", pictures / "a.png", "--labels", "circle,star", "--json", *WRITER)
    assert code == 0, err
    assert isinstance(json.loads(out)["results"][0]["boxes"], list)
    code, out, err = run("segment", pictures / "a.png", "red circle", "--json", *WRITER)
    assert code == 0, err
    assert isinstance(json.loads(out)["results"][0]["masks"], list)


def test_detect_draws(bundled, found, pictures, tmp_path, run):
    target = tmp_path / "out.png"
    code, out, _ = run("detect", pictures / "a.png", "--labels", "circle", "--out", target, *WRITER)
    assert (code, out) == (0, "circle  10 20 50 60  0.90\n")
    with Image.open(target) as drawn, Image.open(pictures / "a.png") as given:
        assert drawn.size == (96 * 4, 96 * 4)
        assert np.asarray(drawn).std() != np.asarray(given).std()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.png", "pictures"]


def test_segment_draws_several_into_a_folder(bundled, found, pictures, tmp_path, run):
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.png").write_bytes((pictures / "b.png").read_bytes())
    words = (pictures, other, pictures / "a.png", "red circle", "--out", tmp_path / "drawn", *WRITER)
    code, out, _ = run("segment", *words, "--json")
    assert code == 0
    assert sorted(p.name for p in (tmp_path / "drawn").iterdir()) == ["a-2.png", "a.png", "b.png", "c.png"]
    mask = json.loads(out)["results"][0]["masks"][0]
    assert mask["label"] == "red circle"
    assert mask["area"] == 1600


@pytest.mark.parametrize(
    "name, code, said",
    [
        ("out.xyz", 2, "an image ends in .png"),
        ("nothing/out.png", 1, "no such folder"),
        ("pictures/a.png/out.png", 1, "no such folder"),
        ("/proc/out.png", 1, "cannot be written|no such folder"),
    ],
)
def test_an_impossible_out_is_said_before_any_work(pictures, tmp_path, run, monkeypatch, name, code, said):
    import re

    monkeypatch.setattr("rebus.cli.verbs.detect.open_model", lambda *_: pytest.fail("a model was loaded"))
    got, out, err = run("detect", pictures / "a.png", "--out", tmp_path / name, *WRITER)
    assert (got, out) == (code, "")
    assert re.search(said, err)
    assert err.count("\n") == 1


def test_nothing_half_written_when_the_drawing_fails(bundled, found, pictures, tmp_path, run, monkeypatch):
    import os

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    code, _, err = run("detect", pictures / "a.png", "--out", tmp_path / "out.png", *WRITER)
    assert code == 1
    assert "no space left" in err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pictures"]
