"""`rebus compare`: its table, its JSON document, its exit codes."""

import json

import pytest

from rebus.cli import main


def test_a_report(stand_ins, photos, truth, tmp_path, capsys):
    out = tmp_path / "new" / "report"
    command = ["compare", str(tmp_path / "photos"), "--task", "classify", "--models", "good,poor"]
    assert main([*command, "--truth", str(truth), "--budget", "1m", "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[0].split()[:2] == ["model", "accuracy"]
    assert "good is better than poor" in said.out
    assert str(out / "report.html") in said.err
    assert sorted(path.name for path in out.iterdir()) == ["answers.jsonl", "report.html", "summary.json"]
    assert main([*command, "--truth", "folders", "--out", str(out)]) == 2  # it is not empty
    assert "is not empty" in capsys.readouterr().err


def test_json_and_a_model_that_fails(stand_ins, photos, capsys):
    code = main(
        ["compare", *photos[:2], "--task", "classify", "--models", "good,absent", "--labels", "cat,dog", "--json"]
    )
    assert code == 1
    found = json.loads(capsys.readouterr().out)
    assert [row["status"] for row in found["models"]] == ["complete", "failed"]
    assert {row["model"] for row in found["answers"]} == {"good"}


def test_a_few_images_are_shown_with_their_answers(stand_ins, photos, capsys):
    assert main(["compare", photos[0], "--task", "classify", "--models", "good", "--labels", "cat,dog"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split() == ["good", "cat", "80.0%"]


@pytest.mark.parametrize(
    "words, said",
    [
        (["--task", "classify", "--models", "clip/b31", "--labels", "a,b"], "clip/b3"),
        (["--task", "caption", "--models", "clip/b32"], "cannot caption"),
        (["--task", "classify", "--models", "good"], "labels"),
        (["--task", "clasify", "--models", "good"], "classify"),
        (["--task", "caption", "--models", "good", "--budget", "soon"], "60s"),
        (["--task", "caption", "--models", "good,good"], "each once"),
    ],
)
def test_wrong_usage(stand_ins, photos, capsys, words, said):
    assert main(["compare", photos[0], *words]) == 2
    assert said in capsys.readouterr().err
