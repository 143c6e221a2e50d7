"""`rebus data regions`: a folder that training reads, taken up again, and refused to other models."""

import json

import pytest

from rebus.cli import main
from rebus.data.scene_records import SceneReader
from rebus.data.taught_regions import TaughtRegions


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("REBUS_HOME", str(tmp_path / "home"))

    def command(*words):
        capsys.readouterr()
        code = main(["data", "regions", *map(str, words)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return command


def test_regions_of_scenes(run, tmp_path):
    out = tmp_path / "taught"
    words = ("scenes", "--scenes", 3, "--teacher", "clip/scenes", "--templates", "plain", "--out", out)
    code, said, err = run(*words, "--json")
    assert code == 0, err
    assert json.loads(said) == {"out": str(out), "images": 3, "embedded": 3, "units": 1, "damaged_files": []}
    taught = TaughtRegions(out)
    boxes, vectors = taught.of(SceneReader(3).read(0, 2).key)
    assert vectors.shape == (len(boxes), 128)
    code, said, _ = run(*words)
    assert code == 0
    assert "the regions of 3 images, and 56 labels" in said
    code, _, err = run(*words[:3], "--teacher", "siglip/scenes", *words[5:])
    assert code == 2
    assert "was started with teacher" in err


def test_what_is_missing_is_said(run, tmp_path):
    code, _, err = run("scenes", "--scenes", 2, "--teacher", "clip/sceens", "--out", tmp_path / "a")
    assert code in (1, 2)
    assert "clip/scenes" in err
    code, _, err = run(tmp_path / "nowhere", "--teacher", "clip/scenes", "--out", tmp_path / "b")
    assert code in (1, 2)
    assert "nowhere" in err
    models = ("--teacher", "clip/scenes", "--proposals", "clip/scenes")
    code, _, err = run("scenes", "--scenes", 2, *models, "--out", tmp_path / "c")
    assert code == 1
    assert "finds no regions" in err
