"""Answers where people keep them: tables, lines, sidecars, folders of labels, a page of hits."""

import csv
import json
import os
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from rebus.cli.output_files import ResultFiles, as_csv, flattened
from rebus.cli.sidecar import sidecar
from rebus.cli.sort_into_folders import Sorter
from rebus.core.errors import UsageError

TOWERS, WRITER = ("--model", "siglip/scenes"), ("--model", "paligemma/scenes")
LABELS = "red circle,blue star"


def table(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_tables_and_lines_hold_what_json_says(bundled, pictures, run, tmp_path):
    (pictures / "bad.png").write_bytes(b"none")
    out, lines = tmp_path / "t.csv", tmp_path / "t.jsonl"
    words = ("classify", pictures, "--labels", LABELS, "--csv", out, "--jsonl", lines, "--json", *TOWERS)
    code, said, _ = run(*words)
    assert code == 1
    results = json.loads(said)["results"]
    assert [json.loads(line) for line in lines.read_text().splitlines()] == results
    found = table(out)
    assert [row["image"] for row in found] == [row["image"] for row in results]
    assert [row["label"] for row in found if not row["error"]] == [r["label"] for r in results if "label" in r]
    assert float(found[0]["probability"]) == results[0]["ranking"][0]["probability"]
    assert sum("bad.png" in row["error"] for row in found) == 1


def test_match_has_a_column_for_each_sentence(bundled, pictures, run, tmp_path):
    words = ("match", pictures, "--text", "a star", "--text", "a, b", "--csv", tmp_path / "t.csv", *TOWERS)
    assert run(*words)[0] == 0
    found = table(tmp_path / "t.csv")
    assert list(found[0]) == ["image", "a star", "a, b"]
    assert len(found) == 3


def test_what_is_found_has_a_row_each():
    row = {"image": "a", "boxes": [{"xyxy": [1, 2, 3, 4], "label": "x", "score": 0.5}] * 2}
    assert flattened(row) == [{"label": "x", "score": 0.5, "left": 1, "top": 2, "right": 3, "bottom": 4}] * 2
    assert flattened({"image": "a", "boxes": []}) == [{}]
    mask = {"box": [1, 2, 3, 4], "label": "x", "score": None, "area": 3, "size": [2, 2], "counts": [1, 3]}
    assert list(flattened({"image": "a", "masks": [mask]})[0]) == "label score area left top right bottom".split()
    line = {"text": "hi", "corners": [[1, 2], [3, 4], [5, 6], [7, 8]], "score": 1}
    assert flattened({"image": "a", "lines": [line]})[0]["y4"] == 8
    assert as_csv([{"image": "a\udcff", "n": 1}, {"image": "b"}]) == b"image,n\r\na\\udcff,1\r\nb,\r\n"


@pytest.mark.parametrize("kind", ["txt", "xmp", "json"])
def test_sidecars_lie_beside_the_images(bundled, pictures, run, kind):
    code, said, err = run("caption", pictures, "--sidecar", kind, "--json", *WRITER)
    assert code == 0, err
    captions = {row["image"]: row["caption"] for row in json.loads(said)["results"]}
    for image, caption in captions.items():
        text = (pictures / os.path.basename(image)).with_suffix(f".{kind}").read_text()
        if kind == "txt":
            assert text == caption + "\n"
        elif kind == "json":
            assert json.loads(text) == {"image": image, "caption": caption}
        else:
            found = ElementTree.fromstring(text).find(".//{http://purl.org/dc/elements/1.1/}description")
            assert "".join(found.itertext()).strip() == caption.strip()
    (pictures / f"a.{kind}").write_text("mine")
    code, _, err = run("caption", pictures, "--sidecar", kind, *WRITER)
    assert code == 2
    assert f"3 of 3 exist already, {pictures / f'a.{kind}'} first; --overwrite" in err
    assert (pictures / f"a.{kind}").read_text() == "mine"
    assert run("caption", pictures, "--sidecar", kind, "--overwrite", *WRITER)[0] == 0
    assert (pictures / f"a.{kind}").read_text() != "mine"


def test_what_sidecars_say():
    boxes = {"image": "a", "boxes": [{"label": "<b> & c"}, {"label": "d"}, {"label": "d"}]}
    assert sidecar(boxes, "txt") == b"<b> & c\nd\n"
    tree = ElementTree.fromstring(sidecar(boxes, "xmp"))
    items = tree.findall(".//{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Bag/*")
    assert [item.text for item in items] == ["<b> & c", "d"]
    ElementTree.fromstring(sidecar({"image": "a", "answer": "\x00\ud800]]>"}, "xmp"))
    assert sidecar({"image": "a", "lines": [{"text": "one"}, {"text": "two"}]}, "txt") == b"one\ntwo\n"
    assert sidecar({"image": "a", "label": "cat", "ranking": []}, "txt") == b"cat\n"


def test_two_images_of_one_name_would_share_a_sidecar(tmp_path):
    class Args:
        sidecar, overwrite = "txt", False

    with pytest.raises(UsageError, match=r"a\.png and .*a\.jpg would both write"):
        ResultFiles(Args, [str(tmp_path / "a.png"), str(tmp_path / "a.jpg")])


def test_a_place_that_cannot_be_written_is_said_before_a_model_is_loaded(bundled, pictures, run, tmp_path):
    code, _, err = run("caption", pictures, "--csv", tmp_path / "no" / "t.csv", "--model", "clip/never")
    assert code == 1
    assert "no such folder" in err
    code, _, err = run("caption", pictures, "--jsonl", tmp_path, "--model", "clip/never")
    assert code == 1
    assert "is a folder" in err


@pytest.mark.parametrize("way", ["move", "copy", "link"])
def test_images_are_sorted_into_folders(bundled, pictures, run, tmp_path, way):
    before = {path.name: path.read_bytes() for path in pictures.iterdir()}
    root = tmp_path / "sorted"
    words = ("classify", pictures, "--labels", LABELS, f"--{way}-to", root, *TOWERS)
    code, _, err = run(*words, "--dry-run")
    assert code == 0
    assert f"3 images would be {way.rstrip('e')}" in err or "copied" in err
    assert not root.exists()
    code, said, err = run(*words, "--json")
    assert code == 0, err
    rows = json.loads(said)["results"]
    for row in rows:
        name = os.path.basename(row["image"])
        assert row["placed"] == str(root / row["label"] / name)
        assert (root / row["label"] / name).read_bytes() == before[name]
        assert (root / row["label"] / name).is_symlink() == (way == "link")
        assert os.path.exists(row["image"]) == (way != "move")
    if way != "move":  # again: nothing is doubled
        assert run(*words)[0] == 0
        assert len(list(root.glob("*/*"))) == 3
        return
    script = next(root.glob("undo-*.sh"))
    assert f"sh {script} moves them back" in err
    subprocess.run(["sh", str(script)], check=True)
    assert {path.name: path.read_bytes() for path in pictures.iterdir()} == before


def test_what_is_sorted_already_stays(bundled, pictures, run):
    root = pictures / "sorted"
    words = ("classify", pictures, "--labels", LABELS, "--move-to", root, *TOWERS)
    assert run(*words)[0] == 0
    there = sorted(root.glob("*/*"))
    code, _, err = run(*words)
    assert code == 0
    assert "3 images are in" in err
    assert sorted(root.glob("*/*")) == there


def test_sidecars_and_folders_do_not_go_together(bundled, pictures, run, tmp_path):
    words = ("classify", pictures, "--labels", LABELS, *TOWERS)
    code, _, err = run(*words, "--move-to", tmp_path / "s", "--sidecar", "txt")
    assert code == 2
    assert "not both" in err
    assert "go with --move-to" in run(*words, "--dry-run")[2]
    assert "not allowed with" in run(*words, "--move-to", "a", "--copy-to", "b")[2]


class Options:
    """What `Sorter` reads of the command line."""

    dry_run, min_score, move_to, copy_to, link_to = False, 0.0, None, None, None

    def __init__(self, **given):
        self.__dict__.update(given)


@pytest.fixture
def photo(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    return str(tmp_path / "a.png")


@pytest.mark.parametrize("way", ["move_to", "copy_to", "link_to"])
def test_nothing_is_written_over(photo, tmp_path, way):
    root = tmp_path / "s"
    (root / "cat").mkdir(parents=True)
    (root / "cat" / "a.png").write_bytes(b"another")
    assert Sorter(Options(**{way: root}), ["cat"]).place(photo, "cat", 0.5) == root / "cat" / "a-2.png"
    assert (root / "cat" / "a.png").read_bytes() == b"another"
    with Image.open(root / "cat" / "a-2.png") as there:
        assert there.size == (4, 4)


def test_improbable_images_stay(photo, tmp_path):
    sorter = Sorter(Options(move_to=tmp_path / "s", min_score=0.6), ["cat"])
    assert sorter.place(photo, "cat", 0.5) is None
    assert sorter.place(photo, "cat", float("nan")) is None
    assert os.path.exists(photo)


@pytest.mark.parametrize("broken", ["link", "unlink", "fsync"])
def test_a_crash_in_a_move_loses_nothing(photo, tmp_path, monkeypatch, broken):
    """Whichever call never returns, the image is somewhere; and the next run, or the script, goes on."""
    root, data = tmp_path / "s", Path(photo).read_bytes()

    class Crash(BaseException):
        pass

    def crash(*args, **options):
        raise Crash

    with monkeypatch.context() as patch, pytest.raises(Crash):
        patch.setattr(os, broken, crash)
        Sorter(Options(move_to=root), ["cat"]).place(photo, "cat", 1.0)
    places = [path for path in (tmp_path / "a.png", root / "cat" / "a.png") if path.exists()]
    assert places
    assert all(path.read_bytes() == data for path in places)
    assert Sorter(Options(move_to=root), ["cat"]).place(photo, "cat", 1.0) == root / "cat" / "a.png"
    assert not os.path.exists(photo)
    assert (root / "cat" / "a.png").read_bytes() == data
    assert len(list(root.glob("cat/*"))) == 1


def test_moves_between_file_systems_and_without_hard_links(photo, tmp_path, monkeypatch):
    def refused(*args, **options):
        raise OSError(18, "Invalid cross-device link")

    data = Path(photo).read_bytes()
    monkeypatch.setattr(os, "link", refused)
    found = Sorter(Options(move_to=tmp_path / "s"), ["cat"]).place(photo, "cat", 1.0)
    assert found.read_bytes() == data
    assert not os.path.exists(photo)
    assert [path.name for path in found.parent.iterdir()] == ["a.png"]


def test_a_link_is_moved_as_a_link(photo, tmp_path):
    link = tmp_path / "l.png"
    link.symlink_to("a.png")
    found = Sorter(Options(move_to=tmp_path / "s"), ["cat"]).place(str(link), "cat", 1.0)
    assert found.is_symlink()
    assert found.read_bytes() == Path(photo).read_bytes()
    assert not link.is_symlink()


def test_folders_have_names_that_file_systems_take(photo, tmp_path):
    sorter = Sorter(Options(copy_to=tmp_path / "s"), ["../a/b: c.", "x" * 300, "..", "d", "d"])
    assert list(sorter.folders.values()) == [".._a_b_ c".strip(" ."), "x" * 100, "_", "d"]
    with pytest.raises(UsageError, match="would share the folder"):
        Sorter(Options(copy_to=tmp_path / "s"), ["a/b", "A:B"])


def test_hits_on_a_page(bundled, pictures, run, tmp_path):
    page = tmp_path / "hits.html"
    shutil.move(pictures / "a.png", pictures / "a '<b>.png")
    code, said, _ = run("match", pictures, "--text", "a <star>", "--html", page, "--json", *TOWERS)
    assert code == 0
    scores = sorted((row["scores"][0] for row in json.loads(said)["results"]), reverse=True)
    text = page.read_text()
    assert "<star>" not in text
    assert "'<b>" not in text
    assert "a%20%27%3Cb%3E.png" in text
    assert text.count("data:image/jpeg") == 3
    assert [text.index(f"<b>{score:.3f}</b>") for score in scores] == sorted(
        text.index(f"<b>{score:.3f}</b>") for score in scores
    )
    code, said, _ = run("match", pictures, "--text", "a star", "--min-score", scores[1] + 2, *TOWERS)
    assert (code, said) == (0, "a star\n")
    assert run("match", pictures, "--text", "a", "--html", tmp_path / "a.txt", *TOWERS)[0] == 2


def test_least_score_of_hits(bundled, pictures, run):
    words = ("match", pictures, "--text", "a star", *TOWERS)
    every = json.loads(run(*words, "--json", "--top", 3)[1])["best"]["a star"]
    least = every[1]["score"]
    assert json.loads(run(*words, "--json", "--min-score", least)[1])["best"]["a star"] == every[:2]
