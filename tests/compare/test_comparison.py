"""Models side by side: one that fails leaves the others whole, and what is concluded is shown by the answers."""

import json
import re
import shutil
from pathlib import Path

import pytest

from rebus.compare import compare
from rebus.core.errors import UnknownName, UsageError

LABELS = ["cat", "dog"]


def test_with_ground_truth(stand_ins, photos, truth, tmp_path):
    found = compare(photos, ["poor", "good", "twin"], "classify", truth=truth)
    summary = found.save(tmp_path / "report")
    assert found.question.labels == ("cat", "dog")  # those of the ground truth
    models = {row["model"]: row for row in summary["models"]}
    assert [models[name]["score"] for name in ("poor", "good", "twin")] == [0.5, 1.0, 1.0]
    low, high = models["poor"]["interval"]
    assert 0.3 < low < 0.5 < high < 0.7
    assert models["poor"]["seconds_per_image"] == 0.5
    assert models["poor"]["peak_memory_bytes"] == 40_000
    assert models["twin"]["pareto"]  # as good as good, and faster
    assert not models["good"]["pareto"]
    assert summary["groups"] == [["good", "twin"], ["poor"]]
    pairs = {(row["first"], row["second"]): row for row in summary["pairs"]}
    assert pairs["poor", "good"]["better"] == "good"
    assert pairs["good", "twin"]["better"] is None
    assert pairs["good", "twin"]["agreement"] == 1.0
    assert summary["rows_of_other_images"] == 1
    said = "\n".join(summary["conclusions"])
    assert "good is better than poor: 1.000 against 0.500" in said
    assert "No difference is shown between good and twin." in said
    assert re.search(r"With 40 images only differences of at least 0\.\d+ show\.", said)
    rows = [json.loads(line) for line in (tmp_path / "report" / "answers.jsonl").read_text().splitlines()]
    assert len(rows) == 120
    assert {row["score"] for row in rows if row["model"] == "good"} == {1.0}
    assert json.loads((tmp_path / "report" / "summary.json").read_text()) == summary


def test_folders_are_labels_and_one_model_is_enough(stand_ins, photos):
    summary = compare(photos, ["good"], "classify", truth="folders").summary()
    assert summary["models"][0]["score"] == 1.0
    assert summary["pairs"] == []


def test_without_ground_truth_the_disputed_come_first(stand_ins, photos):
    found = compare(photos, ["good", "poor"], "classify", labels=LABELS)
    summary = found.summary()
    assert summary["pairs"][0]["agreement"] == 0.5
    assert summary["score"] is None
    assert summary["models"][0]["pareto"] is None
    disputed = [found.disagreement(number) for number in found.by_disagreement()]
    assert disputed == [1.0] * 20 + [0.0] * 20
    assert found.images != tuple(photos), "a budget should stop at a sample, not at the first folder"
    assert found.images == compare(photos, ["good"], "classify", labels=LABELS).images


@pytest.mark.parametrize(
    "name, answered, why", [("dies", 3, "SIGKILL"), ("absent", 0, "absent: no such model"), ("hangs", 0, "longer")]
)
def test_a_model_that_fails_leaves_the_others_whole(stand_ins, photos, tmp_path, monkeypatch, name, answered, why):
    monkeypatch.setattr("rebus.compare.process._PATIENCE", 0.2)
    found = compare(photos, ["good", name, "poor"], "classify", truth="folders", budget=5 if name != "hangs" else 0.1)
    summary = found.save(tmp_path / "report")
    models = {row["model"]: row for row in summary["models"]}
    assert models[name]["status"] == "failed"
    assert models[name]["answered"] == answered
    assert why in models[name]["error"]
    assert models[name]["score"] is None
    assert summary["scored_images"] == 40
    assert summary["pairs"][0]["better"] == "good"
    assert len(summary["pairs"]) == 1
    page = (tmp_path / "report" / "report.html").read_text()
    assert f"{name} failed after {answered} of 40 images" in page


def test_an_image_that_fails_stays_alone(stand_ins, photos):
    bad = str(Path(photos[0]).with_name("bad.png"))
    found = compare([*photos, bad], ["good", "poor"], "classify", truth="folders")
    summary = found.summary()
    assert [row["images_failed"] for row in summary["models"]] == [1, 1]
    assert summary["scored_images"] == 40
    assert any("40 of 41 images" in line for line in summary["conclusions"])
    assert [row["error"] for row in found.answers() if "error" in row] == ["bad.png: not an image"] * 2


def test_the_page_holds_all_it_shows_and_text_stays_text(stand_ins, photos, tmp_path):
    strange = tmp_path / "photos" / "cat" / "cat07.<img src=x onerror=alert(1)>.png"
    shutil.copy(photos[0], strange)
    compare([strange, *photos[:3]], ["good", "poor"], "classify", truth="folders").save(tmp_path / "report")
    page = (tmp_path / "report" / "report.html").read_text()
    assert "&lt;img src=x onerror" in page
    assert not re.search(r"<img src=x|<script|https?://|url\(", page)
    assert page.count("data:image/jpeg;base64,") == 4
    assert "With 4 images no difference can show." in page


def test_what_cannot_be_compared(stand_ins, photos, tmp_path):
    with pytest.raises(UsageError, match="labels"):
        compare(photos, ["good"], "classify")
    with pytest.raises(UnknownName, match="classify"):
        compare(photos, ["good"], "classfy", labels=LABELS)
    with pytest.raises(UsageError, match="each once"):
        compare(photos, ["good", "good"], "classify", labels=LABELS)
    with pytest.raises(UsageError, match="question"):
        compare(photos, ["good"], "caption", question="what?")
    with pytest.raises(UsageError, match="threshold"):
        compare(photos, ["good"], "caption", threshold=0.5)
    with pytest.raises(UsageError, match="none"):
        compare([], ["good"], "caption")
    with pytest.raises(UsageError, match="budget"):
        compare(photos, ["good"], "caption", budget=0)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_text("")
    found = compare(photos[:2], ["good"], "classify", labels=LABELS)
    with pytest.raises(UsageError, match="is not empty; choose a new folder"):
        found.save(tmp_path / "there")


@pytest.mark.slow
def test_a_real_model_killed_midway(tmp_path, monkeypatch):
    """Two bundled models in their processes; the second is killed from outside after four answers."""
    import os
    import signal
    import subprocess

    from rebus.compare import process
    from rebus.data.scenes import scene

    for number in range(12):
        scene(number, "test").image.save(tmp_path / f"{number}.png")
    started = []
    monkeypatch.setattr(
        process.subprocess, "Popen", lambda *a, _new=subprocess.Popen, **k: started.append(_new(*a, **k)) or started[-1]
    )
    done = []

    def tell(model: str) -> None:
        done.append(model)
        if done.count("siglip/scenes") == 4:
            os.kill(started[-1].pid, signal.SIGKILL)

    found = compare(
        sorted(tmp_path.glob("*.png")), ["clip/scenes", "siglip/scenes"], "classify", labels=["a circle", "a star"],
        tell=tell,
    )  # fmt: skip
    clip, siglip = found.runs
    assert clip.error is None
    assert len(clip.answers) == 12
    assert "SIGKILL" in siglip.error
    assert 4 <= len(siglip.answers) < 12
    assert clip.peak > 100e6
    assert 0 < clip.ready["load_seconds"] < clip.first_answer
