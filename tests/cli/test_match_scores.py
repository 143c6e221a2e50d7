"""`rebus match` and `rebus classify`: cosines, logits and probabilities in JSON."""

import json

import pytest
from PIL import Image

from rebus.cli import main


@pytest.mark.parametrize("name", ["clip/scenes", "siglip/scenes"])
def test_match_tells_all_three(tmp_path, capsys, name):
    Image.new("RGB", (32, 32), "red").save(tmp_path / "a.png")
    texts = ["--text", "a red circle", "--text", "a blue square"]
    assert main(["match", str(tmp_path / "a.png"), *texts, "--model", name, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["results"]
    assert all(-1 <= score <= 1 for score in row["scores"])
    assert row["logits"] != row["scores"]
    assert (sum(row["probabilities"]) == pytest.approx(1)) == (name == "clip/scenes")
    code = main(["classify", str(tmp_path / "a.png"), "--labels", "red,blue", "--multi", "--model", name, "--json"])
    assert code == (0 if name == "siglip/scenes" else 2)
