"""Fault 38: tables and links that point outside their data set."""

import json
import pickle
from pathlib import Path

import pytest
from PIL import Image

from rebus.core.errors import RebusError, UsageError
from rebus.data.held_out import open_parts
from rebus.data.layouts import open_layout
from rebus.data.reading.media_paths import MediaPaths, media_root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """`set/` with a.jpg, and SECRET.jpg beside it."""
    folder = tmp_path / "set"
    (folder / "images").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(folder / "images" / "a.jpg")
    Image.new("RGB", (4, 4)).save(tmp_path / "SECRET.jpg")
    return folder


def test_fault_38_names_stay_inside(root: Path) -> None:
    places, secret = MediaPaths([root, root / "images"]), root.parent / "SECRET.jpg"
    (root / "link.jpg").symlink_to(secret)
    (root / "linked").symlink_to(root.parent)
    (root / "inner.jpg").symlink_to(root / "images" / "a.jpg")
    for name in (
        "../SECRET.jpg",
        "..\\SECRET.jpg",
        "images/../../SECRET.jpg",
        str(secret),
        "",
        ".",
        "a\0",
        "file:///a",
    ):
        with pytest.raises(RebusError, match="is not the name of a file inside the data set"):
            places.find(name)
    for name in ("link.jpg", "linked/SECRET.jpg"):
        with pytest.raises(RebusError, match=r"is a link to .*SECRET\.jpg', which is outside the data set; --root"):
            places.find(name)
    for name in ("a.jpg", "images/a.jpg", "inner.jpg", "images/../images/a.jpg", str(root / "images" / "a.jpg")):
        assert places.find(name).is_file()
    with media_root(root.parent):
        places = MediaPaths([root, root / "images"])
    for name in ("../SECRET.jpg", str(secret), "link.jpg", "linked/SECRET.jpg"):
        assert places.find(name).samefile(secret)


def test_a_data_set_behind_a_link_and_one_in_a_hub_cache(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root.parent / "way").symlink_to(root)
    assert MediaPaths([root.parent / "way"]).find("images/a.jpg").is_file()
    monkeypatch.chdir(root.parent)
    assert MediaPaths([Path("set")]).find("images/a.jpg").is_file()
    repository = root.parent / "datasets--a--b"
    snapshot = repository / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    (repository / "blobs" / "ab").write_bytes(b"")
    (snapshot / "x.jpg").symlink_to("../../blobs/ab")
    (snapshot / "y.jpg").symlink_to(root.parent / "SECRET.jpg")
    assert MediaPaths([snapshot]).find("x.jpg").is_file()
    with pytest.raises(RebusError, match="outside the data set"):
        MediaPaths([snapshot]).find("y.jpg")


@pytest.mark.parametrize("form", ["captions.jsonl", "captions.csv"])
def test_fault_38_one_rule_for_tables(form: str, root: Path) -> None:
    names = ["images/a.jpg", "../SECRET.jpg", str(root.parent / "SECRET.jpg"), str(root / "images" / "a.jpg")]
    rows = [json.dumps({"file": name, "caption": "x"}) for name in names]
    text = rows if form.endswith("jsonl") else ["file,caption", *(f"{name},x" for name in names)]
    (root / form).write_text("\n".join(text) + "\n")
    reader = open_layout(root)
    assert isinstance(reader.read(0, 0).image, Path)
    assert isinstance(reader.read(0, 3).image, Path)
    for row in (1, 2):
        with pytest.raises(RebusError, match="inside the data set"):
            reader.read(0, row)


def test_a_root_that_is_given_holds_absolute_paths_and_images(root: Path, tmp_path: Path) -> None:
    """A table of absolute paths, and one apart from its images; nothing else of the machine is opened."""
    (tmp_path / "tables").mkdir()
    table = tmp_path / "tables" / "captions.jsonl"
    names = [str(root / "images" / "a.jpg"), "images/a.jpg", str(root.parent / "SECRET.jpg"), "../SECRET.jpg"]
    table.write_text("".join(json.dumps({"file": name, "caption": "x"}) + "\n" for name in names))
    reader = pickle.loads(pickle.dumps(open_layout(table, root=root)))
    assert [reader.read(0, row).image for row in (0, 1)] == [root / "images" / "a.jpg"] * 2
    for row in (2, 3):
        with pytest.raises(RebusError, match="is not the name of a file inside the data set"):
            reader.read(0, row)
    train, _ = open_parts(str(table), "auto", None, None, root=str(root))
    assert sum(train.sizes) == 3
    with pytest.raises(UsageError, match="no such folder; --root"):
        open_layout(table, root=tmp_path / "nowhere")
    with pytest.raises(RebusError, match=r"--root \(data.root\) names a folder"):
        open_layout(table).read(0, 0)
