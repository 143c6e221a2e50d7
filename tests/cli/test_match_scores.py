"""`rebus match` and `rebus classify`: cosines, logits and probabilities in JSON; answers that are not numbers."""

import io
import json
import sys

import pytest
import torch
from PIL import Image

import rebus
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


@pytest.fixture(scope="module", params=["siglip/scenes", "paligemma/scenes"])
def large(request, tmp_path_factory):
    """A checkpoint whose weights fit into float16 and whose activations do not."""
    model = rebus.load(request.param)
    with torch.no_grad():
        model.network.get_parameter("image.patch.weight").fill_(60_000)
    return model.save(tmp_path_factory.mktemp("large") / request.param.replace("/", "_"))


@pytest.mark.parametrize("words", [["classify", "--labels", "red,blue"], ["match", "--text", "red"], ["caption"]])
def test_half_precision_that_overflows_fails_the_row(large, tmp_path, capsys, words):
    if words[0] == ("caption" if "siglip" in large.name else "match"):
        pytest.skip("not a task of this model")
    for name in ("a.png", "b.png"):
        Image.new("RGB", (32, 32), "red").save(tmp_path / name)
    pictures = [str(tmp_path / name) for name in ("a.png", "b.png")]
    command = [words[0], *pictures, *words[1:], "--model", str(large), "--dtype", "float16", "--device", "cpu"]
    assert main([*command, "--json"]) == 1
    out, err = capsys.readouterr()
    document = json.loads(out, parse_constant=lambda name: pytest.fail(name))
    assert document["failed"] == 2
    assert all("float16" in row["error"] and "is NaN or infinite" in row["error"] for row in document["results"])
    assert "Traceback" not in err
    assert main(command) == 1
    out, err = capsys.readouterr()
    assert "nan" not in out.lower()
    assert err.count("float16") >= 2


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_json_is_escaped_where_stdout_is_not_utf8(tmp_path, monkeypatch, encoding):
    picture = tmp_path / "café 犬.png"
    Image.new("RGB", (32, 32), "red").save(picture)
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
    command = ["classify", str(picture), "--labels", "red,bleu foncé,犬", "--model", "siglip/scenes"]
    assert main([*command, "--json"]) == 0
    (row,) = json.loads(written.getvalue().decode(encoding))["results"]
    assert row["image"] == str(picture)
    assert {one["label"] for one in row["ranking"]} == {"red", "bleu foncé", "犬"}
    written.truncate(0)
    written.seek(0)
    assert main(command) == 0
    assert ("犬" if encoding == "utf-8" else "\\u72ac") in written.getvalue().decode(encoding)
