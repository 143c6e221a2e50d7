"""Agreement and scores of single answers, by task; and the table of the ground truth."""

import numpy as np
import pytest

from rebus.compare.scoring import AGREED, agreement, box_f1, score
from rebus.compare.truth import read_truth
from rebus.core.answers import Mask
from rebus.core.errors import MissingFile, UsageError


def box(label, *xyxy):
    return {"label": label, "xyxy": list(xyxy), "score": 0.5}


def mask(*rows):
    return Mask(np.array(rows, bool), (0, 0, 1, 1), "thing", 0.5).to_json()


A, B = box("dog", 0, 0, 10, 10), box("dog", 0, 0, 10, 16)
LINES = [{"text": "exit"}, {"text": "only"}]
SAME = {
    "classify": [{"label": "cat", "probability": 0.6}],
    "ask": "two",
    "caption": "A dog on the grass.",
    "segment": [mask([0, 1], [1, 1])],
    "detect": [A],
    "read": LINES,
}
OTHER = {
    "classify": [{"label": "dog", "probability": 0.6}],
    "ask": "three",
    "caption": "an aeroplane",
    "segment": [],
    "detect": [box("cat", 0, 0, 10, 10)],
    "read": [{"text": "####"}],
}


@pytest.mark.parametrize("task", AGREED)
def test_equal_answers_agree_and_others_do_not(task):
    assert agreement(task, SAME[task], SAME[task]) == 1.0
    assert agreement(task, SAME[task], OTHER[task]) == agreement(task, OTHER[task], SAME[task]) < 0.3


def test_what_does_not_matter_does_not_count():
    assert agreement("ask", "Two.", "2") == 1.0
    assert agreement("caption", "a dog, on the grass", "A dog on the grass.") == 1.0
    assert agreement("segment", [], []) == 1.0
    assert agreement("segment", [mask([0, 1], [1, 1])], [mask([0, 1], [0, 0]), mask([0, 0], [1, 0])]) == pytest.approx(
        2 / 3
    )


def test_scores():
    assert score("classify", SAME["classify"], ["kitten", "cat"]) == 1.0
    assert score("classify", SAME["classify"], ["dog"]) == 0.0
    assert score("ask", "2", ["two", "three"]) == 1.0
    assert score("caption", "a dog on grass", ["an aeroplane", "a dog on the grass"]) > 0.8
    assert score("read", LINES, ["exit  only"]) == 1.0
    assert 0 < score("read", LINES, ["exit onli"]) < 1
    assert score("caption", "", ["a dog"]) == 0.0


def test_f1_of_boxes():
    assert box_f1([A], [B]) == 1.0  # they overlap by 10 / 16
    assert box_f1([A, A], [B]) == pytest.approx(2 / 3)  # one is too many
    assert box_f1([A], [box("cat", 0, 0, 10, 10)]) == 0.0
    assert box_f1([A], [box("dog", 0, 0, 10, 21)]) == 0.0
    assert box_f1([], []) == 1.0
    assert box_f1([], [A]) == 0.0


def table(tmp_path, text):
    file = tmp_path / "truth.csv"
    file.write_text(text, encoding="utf-8")
    return str(file)


def test_tables(tmp_path):
    images = [str(tmp_path / "a" / "one.png"), str(tmp_path / "a" / "two.png"), str(tmp_path / "b" / "two.png")]
    said = table(tmp_path, '\ufeffimage,caption\na/one.png,a dog\none.png,the dog\na/two.png,"cats, two"\ntwo.png,x\n')
    found = read_truth(said, "caption", images)
    assert found.of == {images[0]: ["a dog", "the dog"], images[1]: ["cats, two"]}
    assert found.strangers == 1  # two.png alone does not say which
    boxes = table(tmp_path, "image,label,left,top,right,bottom\na/one.png,dog,1,2,3,4\na/two.png,,,,,\n")
    assert read_truth(boxes, "detect", images).of == {
        images[0]: [{"label": "dog", "xyxy": [1.0, 2.0, 3.0, 4.0]}],
        images[1]: [],
    }


@pytest.mark.parametrize(
    "task, text, said",
    [
        ("classify", "image,name\na.png,cat\n", "missing: label"),
        ("classify", "image,label\na.png,\n", "row 2 has no label"),
        ("classify", "image,label\nz.png,cat\n", "not one of its 1 rows"),
        ("detect", "image,label,left,top,right,bottom\na.png,cat,1,x,3,4\n", "row 2 should have numbers"),
        ("detect", "image,label,left,top,right,bottom\na.png,cat,3,2,3,4\n", "is empty"),
        ("segment", "image,label\na.png,cat\n", "agreement alone"),
    ],
)
def test_wrong_tables(tmp_path, task, text, said):
    with pytest.raises(UsageError, match=said):
        read_truth(table(tmp_path, text), task, [str(tmp_path / "a.png")])


def test_no_table(tmp_path):
    with pytest.raises(MissingFile, match="folders"):
        read_truth(str(tmp_path / "absent.csv"), "classify", ["a.png"])
    with pytest.raises(UsageError, match="for classify"):
        read_truth("folders", "caption", ["a.png"])
    (tmp_path / "latin.csv").write_bytes(b"image,label\na.png,caf\xe9\n")
    with pytest.raises(UsageError, match="UTF-8"):
        read_truth(str(tmp_path / "latin.csv"), "classify", ["a.png"])
