"""`rebus eval` on data on disk."""

import json

import pytest

from rebus.data.scenes import scene
from rebus.evaluate import scenes
from tests.evaluate.benchmarks.samples import coco, labelled, write_lines


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("REBUS_HOME", str(tmp_path_factory.mktemp("home")))


def test_a_report_and_the_same_document(bundled, run, tmp_path):
    path = coco(tmp_path / "coco", [scene(n, "test") for n in range(6)])
    out = tmp_path / "out"
    words = ("eval", "siglip/scenes", "retrieval", "--data", path, "--captions", 1, "--number", 5)
    code, said, err = run(*words, "--json", "--out", out)
    assert code == 0, err
    document, written = json.loads(said), json.loads((out / "results.json").read_text())
    written.pop("mistakes")
    assert document == written
    assert document["source"] == document["model"] == "siglip/scenes"
    assert document["command"] == f"rebus eval siglip/scenes retrieval --data {path} --number 5 --captions 1"
    assert document["data"]["used"] == 5
    code, said, err = run(*words)
    assert code == 0
    assert "text_to_image" in said
    assert run(*words, "--out", out)[0] == 2  # there is something in it


def test_writers_too(bundled, run, tmp_path):
    path = coco(tmp_path / "coco", [scene(n, "test") for n in range(3)])
    code, said, err = run("eval", "paligemma/scenes", "detection", "--data", path, "--json")
    assert code == 0, err
    assert json.loads(said)["data"]["layout"] == "coco"


def test_labels_from_a_file(bundled, run, tmp_path):
    path = labelled(tmp_path / "set", 6)
    names = sorted({file.parent.name for file in path.rglob("*.png")})
    (tmp_path / "names.txt").write_text("".join(f"{name}\tthe {name}\n" for name in names))
    code, said, err = run(
        "eval", "siglip/scenes", "zeroshot", "--data", path, "--labels-file", tmp_path / "names.txt", "--json"
    )
    assert code == 0, err
    assert set(json.loads(said)["scores"]["by_class"]) == {f"the {name}" for name in names}
    (tmp_path / "names.txt").write_text("a\tb\nc\n")
    code, _, err = run("eval", "siglip/scenes", "zeroshot", "--data", path, "--labels-file", tmp_path / "names.txt")
    assert code == 2
    assert "label 2 should be a label, a tab and a name" in err


def test_scenes_gives_a_report_too(bundled, run, tmp_path, monkeypatch):
    monkeypatch.setattr(scenes, "evaluate", lambda model, **how: {"image_to_text": 0.25, "scenes": how["number"]})
    code, said, err = run("eval", "siglip/scenes", "scenes", "--json", "--out", tmp_path / "out")
    assert code == 0, err
    document = json.loads(said)
    assert document["image_to_text"] == document["scores"]["image_to_text"] == 0.25
    assert (document["data"]["records"], document["data"]["split"]) == (1000, "test")
    assert "image_to_text" in (tmp_path / "out" / "report.md").read_text()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("vqa",), 2, "vqa needs --data PATH; it reads images with questions and answers"),
        (("vqa", "--data", "nowhere"), 1, "--data nowhere: no such file or folder"),
        (("vqa", "--data", ".", "--templates", "cifar10"), 2, "--templates is not for vqa, which has --max-new-tokens"),
        (("detection", "--data", ".", "--shots", "1,2"), 2, "which has --by, --labels-at-once"),
        (("scenes", "--data", "."), 2, "--data does not apply to scenes"),
        (("poppe", "--data", "."), 2, 'no benchmark "poppe"; did you mean "pope"'),
        (("fewshot", "--data", ".", "--shots", "one"), 2, "whole numbers, separated by commas"),
    ],
)
def test_wrong_usage_is_told_before_a_model_is_loaded(run, monkeypatch, words, code, said):
    monkeypatch.setattr("rebus.cli.verbs.evaluate.open_model", None)
    got, out, err = run("eval", "siglip/scenes", *words)
    assert (got, out) == (code, "")
    assert said in err
    assert err.count("\n") == 1


def test_damaged_records_are_named(bundled, run, tmp_path):
    path = labelled(tmp_path / "set", 24)
    next(path.rglob("*.png")).write_bytes(b"torn")
    code, _, err = run("eval", "siglip/scenes", "zeroshot", "--data", path)
    assert code == 0
    assert "1 damaged records were skipped; the first: " in err
    for file in path.rglob("*.png"):
        file.write_bytes(b"torn")
    code, _, err = run("eval", "siglip/scenes", "zeroshot", "--data", path, "--out", tmp_path / "out")
    assert code == 1
    assert "more than 10%" in err
    assert not (tmp_path / "out").exists()


def test_help_says_what_a_benchmark_reads(run):
    code, out, _ = run("eval", "siglip/scenes", "pope", "--help")
    assert code == 0
    assert "pope reads POPE's files" in out


def test_tables_through_the_command(bundled, run, tmp_path):
    rows = [{"image": "a.png", "captions": ["left", "right"], "label": 0}]
    scene(0, "test").image.save(tmp_path / "a.png")
    file = write_lines(tmp_path / "t.jsonl", rows)
    assert run("eval", "siglip/scenes", "spatial", "--data", file)[0] == 0
