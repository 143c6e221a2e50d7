"""Answers in notebooks and tables: drawn from a path or an image, escaped, and rows of pandas."""

import copy
import pickle
import re

import numpy as np
import pytest
from PIL import Image

import rebus
from rebus.core.answers import Box, Mask, Ranking
from rebus.core.errors import UsageError
from rebus.tasks.found import Boxes, Masks
from tests import tiny

EVIL = "<script>alert(1)</script>"
BOX = Box((2, 3, 20, 30), EVIL, 0.5)
MASK = Mask(np.eye(40, 50, dtype=bool), (0, 0, 40, 40), EVIL, float("nan"))
RANKING = Ranking((EVIL, "a cat"), (0.75, 0.25))


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (50, 40), (9, 99, 9)).save(path)
    return path


def test_rankings_are_pairs_and_a_mapping():
    assert RANKING[0] == (EVIL, 0.75)
    assert RANKING[-1] == ("a cat", 0.25)
    assert RANKING["a cat"] == 0.25
    assert RANKING[1:] == Ranking(("a cat",), (0.25,))
    assert RANKING.to_dict() == dict(RANKING) == {EVIL: 0.75, "a cat": 0.25}
    assert list(RANKING) == [(EVIL, 0.75), ("a cat", 0.25)]
    assert pickle.loads(pickle.dumps(RANKING)) == copy.deepcopy(RANKING) == RANKING
    assert len({RANKING, Ranking(RANKING.labels, RANKING.probabilities)}) == 1
    assert Ranking(RANKING.labels, (0.5, 0.5)) != RANKING
    with pytest.raises(KeyError):
        RANKING["a dog"]
    with pytest.raises(AttributeError, match="is immutable"):
        RANKING.labels = ()


def test_pandas_takes_answers_as_they_are():
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame([RANKING, Ranking(("a cat", EVIL), (0.9, 0.1))])
    assert list(table.columns) == [EVIL, "a cat"]
    assert table["a cat"].tolist() == [0.25, 0.9]
    assert list(pandas.DataFrame(Boxes([BOX])).columns) == ["xyxy", "label", "score"]
    flat = pandas.DataFrame([one.to_dict() for one in (BOX, MASK)])
    assert list(flat.columns) == ["label", "score", "left", "top", "right", "bottom", "area"]
    assert flat["area"].tolist()[1] == 40


@pytest.mark.parametrize("answer", [BOX, MASK, RANKING, Boxes([BOX]), Masks([MASK])], ids=lambda a: type(a).__name__)
def test_notebooks_show_text_as_text(answer):
    shown = answer._repr_html_()
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown
    assert "nan" not in re.sub("base64,[^']*", "", shown)


def test_cards_are_shown():
    shown = rebus.info("siglip/scenes")._repr_html_()
    assert "siglip/scenes" in shown
    assert shown.count("<tr>") > 5


@pytest.mark.parametrize("found", [Boxes([BOX]), Masks([MASK])], ids=["boxes", "masks"])
def test_lists_are_drawn_and_stay_lists(photo, found):
    assert found == list(found)
    before = np.asarray(Image.open(photo))
    for source in (photo, str(photo), Image.open(photo)):
        drawn = found.plot(source)
        assert drawn.size[0] / drawn.size[1] == 50 / 40
        assert not (np.asarray(drawn.resize((50, 40))) == before).all()
    with pytest.raises(UsageError, match=r"plot\(image\)"):
        found.plot()
    known = type(found)(found, photo)
    assert np.array_equal(np.asarray(known.plot()), np.asarray(found.plot(photo)))
    assert "data:image/jpeg" in known._repr_html_()
    photo.unlink()
    assert "data:image/jpeg" not in known._repr_html_()


def test_tasks_give_lists_that_know_their_image(photo):
    model = tiny.with_words(tiny.paligemma())
    boxes = model.detect(photo, ["cat"], max_new_tokens=4)
    assert isinstance(boxes, Boxes)
    assert boxes.image == photo
    assert [one.image for one in model.detect([photo, photo], ["cat"], max_new_tokens=4)] == [photo, photo]
    assert model.detect([b"", photo], ["cat"], max_new_tokens=4, on_error="skip")[0] is None
