"""Boxes in plain numbers: there and back, what is refused, and how sure a model was of them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rebus.codec.boxes import parse_boxes
from rebus.codec.number_locations import NumberLocations
from rebus.core.answers import Box

PALI = NumberLocations()
SIZE = (640, 480)


def test_boxes_come_back_within_half_a_line():
    boxes = [Box((10.2, 20.7, 300.0, 401.5), "red circle", 1.0), Box((-4.0, 0.0, 700.0, 480.0), "8 ball", 1.0)]
    text = PALI.detection_text(boxes, SIZE)
    assert text == "43 16 836 468 red circle ; 0 0 999 999 8 ball"
    found, rejected = parse_boxes(PALI, text, SIZE, [0.5, 0.25])
    assert not rejected
    assert [(box.label, box.score) for box in found] == [("red circle", 0.5), ("8 ball", 0.25)]
    assert found[0].xyxy == pytest.approx(boxes[0].xyxy, abs=0.5 * 640 / 999 + 1e-9)
    assert found[1].xyxy == (0.0, 0.0, 640.0, 480.0)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1 2 3 cat", "3 numbers instead of 4"),
        ("1 2 3 1000 cat", "beyond the grid"),
        ("5 2 3 9 cat", "an empty box"),
        ("1 2 3 4", "no label"),
    ],
)
def test_what_makes_no_sense_is_rejected_and_the_rest_kept(text, reason):
    boxes, rejected = parse_boxes(PALI, f"1 2 3 4 dog ; {text} ; a cat ; 5 6 7 8 cow", (100, 100))
    assert [box.label for box in boxes] == ["dog", "cow"]
    assert [reason in one.reason for one in rejected] == [True]


def test_a_coordinate_is_as_likely_as_all_pieces_that_spell_it():
    text = "12 345 678 900 8 ball ; 1 2 3 4 cow"
    pieces = ["▁1", "2", "▁34", "5", "▁678", "▁900", "▁8", "▁ball", "▁;", "▁1", "▁2", "▁3", "▁4", "▁cow"]
    logs = [-1.0, -2.0, -4.0, -8.0, -16.0, -32.0, -64.0, -128.0, -256.0, -0.1, -0.2, -0.3, -0.4, -0.5]
    found = PALI.log_probabilities(text, pieces, logs)
    assert found == [(0, -3.0), (3, -12.0), (7, -16.0), (11, -32.0), (24, -0.1), (26, -0.2), (28, -0.3), (30, -0.4)]
    assert PALI.log_probabilities(text, pieces[:3], logs[:3]) == []
    assert PALI.log_probabilities("12 34", ["12 34"], [-1.0]) == []


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="0123 ; cat²", max_size=60))
def test_any_text_can_be_parsed(text):
    boxes, _ = parse_boxes(PALI, text, SIZE)
    for box in boxes:
        assert 0 <= box.xyxy[0] < box.xyxy[2] <= 640
        assert 0 <= box.xyxy[1] < box.xyxy[3] <= 480
