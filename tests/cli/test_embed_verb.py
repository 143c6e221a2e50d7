"""`rebus embed`: images or texts into a file, what cannot be read named."""

import json

import numpy as np
import pytest

import rebus

MODEL = ("--model", "siglip/scenes")


def test_images_of_a_folder(bundled, pictures, run, tmp_path):
    (pictures / "bad.png").write_bytes(b"no image")
    out = tmp_path / "v.npy"
    code, said, err = run("embed", pictures, pictures / "none.png", "--out", out, "--unit", 2, *MODEL)
    assert code == 1
    assert said == f"{out}: 3 vectors of images\n"
    assert "bad.png" in err
    assert "none.png: no such file" in err
    names = [json.loads(line)["name"] for line in (tmp_path / "v.npy.jsonl").read_text().splitlines()]
    assert names == [str(pictures / f"{name}.png") for name in "abc"]
    np.testing.assert_allclose(np.load(out), rebus.load("siglip/scenes").embed_images(names), atol=1e-6)


def test_texts_from_both_places(bundled, run, tmp_path):
    (tmp_path / "texts.txt").write_text("a blue star\n\n")
    words = ("embed", "--text", "a red circle", "--texts-file", tmp_path / "texts.txt", "--out", tmp_path / "t.parquet")
    code, said, err = run(*words, "--json", *MODEL)
    assert code == 0, err
    out = str(tmp_path / "t.parquet")
    assert json.loads(said) == {"model": "siglip/scenes", "out": out, "rows": 2, "failures": {}}
    from pyarrow import parquet

    table = parquet.read_table(out)
    assert table["name"].to_pylist() == ["a red circle", "a blue star"]
    wanted = rebus.load("siglip/scenes").embed_texts(["a red circle", "a blue star"])
    np.testing.assert_allclose(np.stack(table["vector"].to_pylist()), wanted, atol=1e-6)


@pytest.mark.parametrize(
    "words, reason",
    [
        ((), "embed needs images"),
        (("a.png", "--text", "b"), "not both"),
        (("a.png", "--out", "v.txt"), ".npy, .parquet, .safetensors"),
        (("a.png", "--out", "nowhere/v.npy"), "no such folder"),
    ],
)
def test_wrong_calls_load_nothing(bundled, pictures, run, monkeypatch, words, reason):
    monkeypatch.chdir(pictures)
    monkeypatch.setattr(rebus.api, "load", None)
    code, said, err = run("embed", *words, *(() if "--out" in words else ("--out", "v.npy")), *MODEL)
    assert code in (1, 2)
    assert (said, err.count("\n")) == ("", 1)
    assert reason in err


def test_a_model_without_embeddings_is_refused(bundled, pictures, run, tmp_path):
    code, _, err = run("embed", pictures, "--out", tmp_path / "v.npy", "--model", "paligemma/scenes")
    assert code == 2
    assert "paligemma/scenes cannot embed_images" in err
