"""ask, match and detect on region features: `--regions` gives those of each image in its place."""

import json

import numpy as np
import pytest

from rebus.codec.region_files import save_regions
from rebus.codec.regions import ImageRegions
from tests.tasks.test_reading_networks import ANSWERS, model


@pytest.fixture
def saved(tmp_path):
    def save(preset, **changes):
        folder = model(preset, **changes).save(tmp_path / preset)
        (folder / "answers_vqa.txt").write_text("\n".join(ANSWERS) + "\n")
        return folder

    return save


def features(tmp_path, *names, size=(96, 96)):
    rng = np.random.default_rng(0)
    boxes = np.array([[0, 0, 40, 30], [50, 20, 90, 80.0]])
    regions = {name: ImageRegions(rng.normal(size=(2, 14)), boxes, size) for name in names}
    return save_regions(tmp_path / "features.npz", regions)


def test_questions_matches_and_boxes(saved, pictures, tmp_path, run):
    file = features(tmp_path, "a", "b")
    code, out, err = run("ask", pictures / "a.png", "what?", "--model", saved("tiny_answers"), "--regions", file)
    assert code == 0, err
    assert out.strip() in ANSWERS
    code, out, err = run(
        *("match", pictures / "a.png", pictures / "b.png", "--text", "a cat", "--json"),
        *("--model", saved("tiny"), "--regions", file),
    )
    assert code == 0, err
    assert all(0 < row["probabilities"][0] < 1 for row in json.loads(out)["results"])
    code, out, err = run(
        *("detect", pictures / "a.png", "--labels", "a cat", "--out", tmp_path / "drawn.png"),
        *("--model", saved("tiny_phrases", region_width=20), "--regions", file),
    )
    assert code == 0, err
    assert out.startswith(("a cat  0 0 40 30", "a cat  50 20 90 80"))
    assert (tmp_path / "drawn.png").is_file()


def test_faults_of_features_fail_their_image_alone(saved, pictures, tmp_path, run):
    folder = saved("tiny_answers")
    words = ("ask", pictures / "a.png", pictures / "b.png", "what?", "--json", "--model", folder, "--regions")
    code, out, _ = run(*words, features(tmp_path, "a"))
    first, second = json.loads(out)["results"]
    assert code == 1
    assert first["answer"] in ANSWERS
    assert "no regions of image b" in second["error"]
    code, out, _ = run(*words, features(tmp_path, "a", "b", size=(100, 96)))
    assert code == 1
    assert "has 96 × 96: they belong to another image" in json.loads(out)["results"][0]["error"]
    code, _, err = run("ask", pictures / "a.png", "what?", "--model", folder)
    assert code == 1
    assert "takes region features" in err
