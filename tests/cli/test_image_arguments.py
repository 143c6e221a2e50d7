"""IMAGE…: what is found, and what one bad image does to the others."""

import os

import pytest
from PIL import Image

from rebus.cli.arguments import read_lines
from rebus.cli.image_arguments import find_images
from rebus.core.errors import MissingFile


def test_files_folders_and_patterns(pictures, tmp_path):
    (pictures / ".hidden.png").write_bytes(b"")
    (pictures / "notes.txt").write_text("no image")
    inner = pictures / "inner"
    inner.mkdir()
    Image.new("RGB", (8, 8)).save(inner / "D.JPG")
    words = [str(pictures / "b.png"), str(pictures), str(pictures / "[ac].png")]
    names = [picture.path.removeprefix(f"{pictures}/") for picture in find_images(words)]
    assert names == ["b.png", "a.png", "b.png", "c.png", "inner/D.JPG", "a.png", "c.png"]


@pytest.mark.parametrize(
    "name, said",
    [
        ("pictures/aa.png", "Did you mean"),
        ("nowhere/a.png", "There is no folder"),
        ("pictures/*.gif", "no file matches"),
        ("empty", "no images in this folder"),
    ],
)
def test_what_is_not_there_is_said_without_loading_a_model(pictures, tmp_path, run, monkeypatch, name, said):
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr("rebus.cli.verbs.classify.open_model", lambda *_: pytest.fail("a model was loaded"))
    found = find_images([str(tmp_path / name)])
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
    assert "a URL" in err


def test_odd_names_fail_alone(pictures, monkeypatch):
    monkeypatch.chdir(pictures)
    (pictures / "a.png").rename("~nobody.png")
    found = find_images(["~nobody.png", "~no-such-person/x.png", "x" * 300 + ".png", "b\0.png", "b.png"])
    assert [picture.error is None for picture in found] == [True, False, False, False, True]
    assert "too long" in str(found[2].error)


def test_a_folder_without_permission_fails_alone(pictures, monkeypatch, bundled, run):
    (pictures / "closed").mkdir()
    real = os.scandir

    def scandir(path):
        if str(path).endswith("closed"):  # permissions do not bind whoever may do everything
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    code, out, err = run("classify", pictures, "--labels", "red circle,blue star", "--model", "siglip/scenes")
    assert code == 1
    assert len(out.splitlines()) == 3
    assert f"{pictures / 'closed'}: Permission denied" in err


def test_links_to_folders_are_followed_once(pictures, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (pictures / "c.png").rename(other / "c.png")
    (pictures / "linked").symlink_to(other)
    (other / "back").symlink_to(pictures)
    (other / "self").symlink_to(other / "self")
    found = find_images([str(pictures)])
    names = [picture.path.removeprefix(f"{pictures}/") for picture in found]
    assert names == ["a.png", "b.png", "linked/c.png", "linked/self"]
    assert "symbolic links" in str(found[-1].error)


def test_names_are_shown_on_one_line(bundled, pictures, run):
    (pictures / "a.png").rename(pictures / "x\n\x1b[31m.png")
    words = ("--labels", 'red circle,"a star, blue\x1b[2J"', "--model", "siglip/scenes")
    code, out, err = run("classify", pictures, *words)
    assert code == 0
    assert len(out.splitlines()) == 3
    assert "\x1b" not in out + err
    assert "x\\n\\x1b[31m.png" in out
    assert "a star, blue\\x1b[2J" in out


def test_an_image_whose_name_begins_with_a_dash(bundled, pictures, monkeypatch, run):
    monkeypatch.chdir(pictures)
    (pictures / "a.png").rename("-h")
    words = ("classify", "--labels", "red circle,blue star", "--model", "siglip/scenes", "--", "-h")
    code, out, err = run(*words)
    assert code == 0, err
    assert out.startswith("-h ")


def test_a_labels_file_with_a_byte_order_mark(tmp_path):
    (tmp_path / "labels.txt").write_bytes("\ufeffa cat\r\na dog\u2028x\r\n".encode())
    assert read_lines(str(tmp_path / "labels.txt")) == ["a cat", "a dog\u2028x", ""]
