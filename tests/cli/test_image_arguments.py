"""IMAGE…: what is found, and what one bad image does to the others."""

import pytest
from PIL import Image

from rebus.cli.image_arguments import find_pictures
from rebus.core.errors import MissingFile


def test_files_folders_and_patterns(pictures, tmp_path):
    (pictures / ".hidden.png").write_bytes(b"")
    (pictures / "notes.txt").write_text("no image")
    inner = pictures / "inner"
    inner.mkdir()
    Image.new("RGB", (8, 8)).save(inner / "D.JPG")
    words = [str(pictures / "b.png"), str(pictures), str(pictures / "[ac].png")]
    names = [picture.path.removeprefix(f"{pictures}/") for picture in find_pictures(words)]
    assert names == ["b.png", "a.png", "b.png", "c.png", "inner/D.JPG", "a.png", "c.png"]


@pytest.mark.parametrize(
    "name, said",
    [
        ("pictures/aa.png", "Did you mean"),
        ("nowhere/a.png", "There is no folder"),
        ("pictures/*.gif", "nothing matches"),
        ("empty", "no images in this folder"),
    ],
)
def test_what_is_not_there_is_said_without_loading_a_model(pictures, tmp_path, run, monkeypatch, name, said):
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr("rebus.cli.verbs.classify.open_model", lambda *_: pytest.fail("a model was loaded"))
    found = find_pictures([str(tmp_path / name)])
    assert isinstance(found[0].error, MissingFile)
    code, out, err = run("classify", tmp_path / name, "--labels", "a,b")
    assert (code, out) == (1, "")
    assert said in err
    assert err.count("\n") == 1


def test_bad_pictures_fail_alone(bundled, pictures, run):
    (pictures / "broken.png").write_bytes((pictures / "a.png").read_bytes()[:500])
    (pictures / "empty.jpg").write_bytes(b"")
    code, out, err = run(
        "classify", pictures, pictures / "d.png", "--labels", "red circle,blue star", "--model", "siglip/scenes"
    )
    assert code == 1
    assert [line.split()[0].rpartition("/")[2] for line in out.splitlines()] == ["a.png", "b.png", "c.png"]
    assert "broken.png: " in err
    assert "empty.jpg: empty file" in err
    assert "d.png: no such file" in err
    assert err.rstrip().endswith("3 of 6 images failed")


def test_a_web_address_is_refused(bundled, run):
    code, out, err = run("caption", "https://example.org/cat.jpg", "--model", "paligemma/scenes")
    assert (code, out) == (1, "")
    assert "web address" in err
