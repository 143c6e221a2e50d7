"""explain: the score of a text, the place that adds most to it, and a heat map."""

import json

import pytest
from PIL import Image

import rebus

MODEL = ("--model", "siglip/scenes")


def test_the_score_and_the_peak_are_those_of_the_library(bundled, pictures, run, tmp_path):
    out = tmp_path / "where.png"
    code, text, err = run("explain", pictures / "a.png", "red circle", *MODEL, "--out", out)
    assert code == 0, err
    seen = rebus.load("siglip/scenes").explain(pictures / "a.png", "red circle")
    x, y = seen.peak
    assert text == f"{seen.score:.3f}  {x} {y}\n"
    assert seen.heat[y, x] == seen.heat.max()
    with Image.open(out) as drawn:
        assert drawn.size == seen.image.size


def test_several_images_draw_into_a_folder_and_one_that_is_damaged_fails_alone(bundled, pictures, run, tmp_path):
    (pictures / "bad.png").write_bytes(b"not an image")
    code, out, err = run("explain", pictures, "red circle", *MODEL, "--out", tmp_path / "maps", "--json")
    document = json.loads(out)
    assert code == 1
    assert "bad.png" in err
    assert document["failed"] == 1
    drawn = sorted(path.stem for path in (tmp_path / "maps").iterdir())
    assert drawn == sorted(path.stem for path in pictures.iterdir() if path.stem != "bad")
    assert set(document["results"][0]) == {"image", "score", "peak"}


@pytest.mark.parametrize(
    "words, code, message",
    [(("a.png", " "), 2, "the text is empty"), (("nowhere.png", "cat"), 1, "nowhere.png"), (("a.png",), 2, "TEXT")],
)
def test_mistakes_are_told(bundled, pictures, run, words, code, message):
    found, out, err = run("explain", pictures / words[0], *words[1:], *MODEL)
    assert (found, out) == (code, "")
    assert message in err
