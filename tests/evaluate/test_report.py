"""The folder that a run leaves."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from rebus.core.answers import Box, Mask
from rebus.core.errors import CannotWrite, UnknownName, UnsupportedTask, UsageError
from rebus.core.fonts import font_for
from rebus.data.scenes import scene
from rebus.evaluate import evaluate, report
from rebus.evaluate.measure import Result, measure, plain
from rebus.evaluate.outcome import Mistake, Outcome, Plot, Worst, bars
from tests.evaluate.benchmarks.samples import Seeing, Told, labelled


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("REBUS_HOME", str(tmp_path_factory.mktemp("home")))


def mistake(**more):
    given = {"key": "a|b", "badness": 1.0, "said": "a <cat>", "truth": "a dog", "image": lambda: picture()}
    return Mistake(**(given | more))


def picture():
    import io

    buffer = io.BytesIO()
    scene(0, "test").image.save(buffer, "PNG")
    return buffer.getvalue()


def result(worst=(), plots=(), **scores):
    document = {
        "benchmark": "zeroshot",
        "model": "some/model",
        "scores": scores or {"top1": 0.5, "by_class": {"a": 0.25, "b": None}},
        "notes": ["two candidates"],
        "data": {
            "path": "x",
            "layout": "folder",
            "records": 3,
            "used": 2,
            "damaged": {"count": 1, "first": ["r: torn"]},
        },
        "versions": {"rebus": "0"},
        "command": "rebus eval some/model zeroshot --data x",
    }
    return Result(document=document, outcome=Outcome(scores={}, worst=worst, plots=plots))


def test_all_of_it(tmp_path):
    shots = Plot(
        name="shots", title="t", x="n", y="top-1", series={"a": ([1, 2], [0.1, 0.3]), "b": ([1], [0.2])}, kind="lines"
    )
    groups = Plot(
        name="groups", title="t", x="", y="y", series={"a": (["x", "y"], [0.1, 2.0]), "b": (["x", "y"], [0, 0])}
    )
    charts = [shots, groups, bars("few", "t", {"a": 0.5}), bars("many", "t", {f"class {n}": n / 99 for n in range(60)})]
    mask = np.zeros((96, 96), dtype=bool)
    mask[10:40, 20:50] = True
    box = Box((10, 10, 50, 50), "cat", 0.9)
    worst = [mistake(), mistake(found=[box], wanted=[box]), mistake(found=[Mask(mask, (20, 10, 50, 40), "cat", 0.5)])]
    report.write_report(result([*worst, mistake(image=lambda: b"torn")], charts), tmp_path / "new" / "out")
    out = tmp_path / "new" / "out"
    files = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    assert files == [
        "images/01.jpg", "images/02.jpg", "images/03.jpg", "plots/few.png", "plots/groups.png", "plots/many.png",
        "plots/shots.png", "report.md", "results.json",
    ]  # fmt: skip
    assert sorted(path.name for path in out.parent.iterdir()) == ["out"]
    document = json.loads((out / "results.json").read_text())
    assert document["scores"]["top1"] == 0.5
    assert [one["image"] for one in document["mistakes"]][2:] == ["images/03.jpg", None]
    page = (out / "report.md").read_text()
    assert "| a\\|b | a &lt;cat> | a dog | ![](images/01.jpg) |" in page
    assert "| b | — |" in page
    assert "1 damaged records were skipped:\n\n- r: torn" in page
    assert "rebus eval some/model zeroshot --data x" in page
    with Image.open(out / "images" / "02.jpg") as drawn:
        assert drawn.width == 2 * 320 + 8  # said beside true
    with Image.open(out / "plots" / "many.png") as plot:
        assert plot.size[0] > 500


def test_long_groups_are_cut_in_the_report_only(tmp_path):
    report.write_report(result(by_class={f"c{n}": n / 100 for n in range(100)}), tmp_path / "out")
    page = (tmp_path / "out" / "report.md").read_text()
    assert "by_class: the lowest 40 of 100, all in results.json" in page
    assert "| c39 |" in page
    assert "| c40 |" not in page
    assert len(json.loads((tmp_path / "out" / "results.json").read_text())["scores"]["by_class"]) == 100


def test_without_matplotlib_the_report_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "can_plot", lambda: False)
    report.write_report(result(plots=[bars("few", "t", {"a": 0.5})]), tmp_path / "out")
    assert not (tmp_path / "out" / "plots").exists()
    assert 'drawing plots needs the extra "report"' in (tmp_path / "out" / "report.md").read_text()


def test_never_over_something_else(tmp_path):
    (tmp_path / "mine.txt").write_text("")
    with pytest.raises(UsageError, match="is not empty"):
        report.write_report(result(), tmp_path)
    with pytest.raises(UsageError, match="a file; a report is a folder"):
        report.check_free(tmp_path / "mine.txt")
    (tmp_path / "empty").mkdir()
    report.write_report(result(), tmp_path / "empty")
    assert (tmp_path / "empty" / "report.md").exists()


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CannotWrite, match="no space left"):
        report.write_report(result(), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_the_worst_are_kept_whatever_the_order():
    all_of_them = [mistake(key=str(n), badness=float(n % 5)) for n in range(50)]
    kept = []
    for order in (all_of_them, all_of_them[::-1]):
        worst = Worst(7)
        for one in order:
            worst.add(one)
        kept.append([one.key for one in worst])
    assert kept[0] == kept[1]
    assert [int(key) % 5 for key in kept[0]] == [4] * 7


def test_numbers_that_are_none_become_null():
    assert plain({"a": float("nan"), 1: (1, [float("inf"), 0.5])}) == {"a": None, "1": [1, [None, 0.5]]}


def test_a_document_says_how_to_repeat_it(tmp_path):
    path = labelled(tmp_path, 12)
    document = measure(
        Seeing([scene(n, "test", count=1) for n in range(12)]), "zeroshot", path, number=5, seed=3
    ).document
    assert document["data"]["path"] == str(path)
    assert (document["data"]["number"], document["data"]["seed"], document["data"]["used"]) == (5, 3, 5)
    assert set(document["versions"]) == {"rebus", "torch", "python"}
    assert document["options"] == {"labels": None, "templates": None, "batch_size": 32}
    json.dumps(document, allow_nan=False)


def test_mistakes_are_named(tmp_path):
    model = Told(ask=lambda images, questions: [])
    with pytest.raises(UsageError, match="vqa needs --data PATH; it reads images with questions"):
        evaluate(model, "vqa")
    with pytest.raises(UnknownName, match='no option of vqa "max_tokens"; did you mean "max_new_tokens"'):
        evaluate(model, "vqa", data=tmp_path, max_tokens=3)
    with pytest.raises(UnsupportedTask, match="captions needs a model that can caption; this one does ask"):
        evaluate(model, "captions", data=tmp_path)
    with pytest.raises(UnknownName, match='did you mean "retrieval"'):
        evaluate(model, "retrival", data=tmp_path)


def test_panels_say_what_they_are_and_how_much_they_leave_out(monkeypatch):
    said = []
    monkeypatch.setattr(report, "font_for", lambda text, size: said.append(text) or font_for(text, size))
    boxes = [Box((i, i, i + 20, i + 20), "cat", 0.5) for i in range(11)]
    one = mistake(found=boxes, wanted=boxes[:2])
    assert report._image(one)
    assert "prediction, 8 of 11 shown" in said
    assert "ground truth" in said
