"""Outlines as text: what is written comes back, and what makes no sense is named."""

import numpy as np
import pytest

from rebus.codec.boxes import LOC_1000, QUADS_1000
from rebus.codec.masks import fill_polygons
from rebus.codec.polygons import PolygonTokens
from rebus.core.answers import TextLine

NOTATION = PolygonTokens()
SQUARE = ((10.0, 10.0), (30.0, 10.0), (30.0, 30.0), (10.0, 30.0))
TRIANGLE = ((50.0, 5.0), (90.0, 5.0), (70.0, 45.0))
SIZE = (100, 50)


def close(points, expected):
    """Half a bin, a two-thousandth of a side."""
    scaled = [(x * SIZE[0], y * SIZE[1]) for x, y in points]
    return np.allclose(scaled, expected, atol=0.051)


def test_polygons_of_one_thing_come_back():
    text = NOTATION.tokens([SQUARE, TRIANGLE], SIZE)
    assert text.count("<sep>") == 1
    ((found,), rejected) = NOTATION.parse(text)
    assert rejected == []
    assert found.label == ""
    assert all(close(got, wanted) for got, wanted in zip(found.outlines, (SQUARE, TRIANGLE), strict=True))
    assert close([found.xyxy[:2], found.xyxy[2:]], [(10, 5), (90, 45)])


def test_several_things_with_their_labels():
    square, triangle = (NOTATION.tokens([one], SIZE) for one in (SQUARE, TRIANGLE))
    found, rejected = NOTATION.parse(f"a car<poly>{square}</poly><poly>{triangle}</poly> dog<poly>{square}")
    assert [one.label for one in found] == ["a car", "a car", "dog"]
    assert rejected == []
    assert found[2].span[1] - found[2].span[0] == len(square)


@pytest.mark.parametrize(
    "text, reason",
    [
        ("<loc_1><loc_2><loc_3><loc_4>", "three points"),
        ("<poly></poly>", "three points"),
        ("<loc_1><loc_2><loc_3><loc_4><loc_5><loc_1000>", "beyond"),
        ("a car<sep>", "three points"),
    ],
)
def test_what_outlines_nothing_is_rejected(text, reason):
    found, (rejected,) = NOTATION.parse(text)
    assert found == []
    assert reason in rejected.reason


def test_a_coordinate_without_its_pair_is_left_out():
    text = NOTATION.tokens([TRIANGLE], SIZE)
    assert NOTATION.parse(text + "<loc_7>")[0][0].outlines == NOTATION.parse(text)[0][0].outlines


def test_text_without_locations_is_no_outline():
    assert NOTATION.parse("a cat on a mat") == ([], [])
    assert NOTATION.is_marked("x<poly>")
    assert not NOTATION.is_marked("x<loc_1>")


def test_lines_of_writing_come_back():
    lines = [TextLine("SALE", SQUARE, 1.0), TextLine("50 %", ((0, 0), (99, 3), (95, 40), (2, 44)), 1.0)]
    found, rejected = QUADS_1000.parse(QUADS_1000.lines_text(lines, SIZE))
    assert rejected == []
    assert [one.label for one in found] == ["SALE", "50 %"]
    assert all(close(one.points, line.corners) for one, line in zip(found, lines, strict=True))


def test_boxes_of_one_label_share_it():
    found, rejected = LOC_1000.parse("car<loc_1><loc_2><loc_30><loc_40><loc_5><loc_6><loc_70><loc_80><loc_9>")
    assert [one.label for one in found] == ["car", "car"]
    assert len(rejected) == 1


def test_filled():
    mask = fill_polygons([SQUARE, TRIANGLE], SIZE)
    assert mask.shape == (50, 100)
    assert mask[20, 20]
    assert mask[20, 70]
    assert not mask[20, 40]
    ten = fill_polygons([[(20, 10), (30, 10), (30, 20), (20, 20)]], SIZE)
    assert ten.sum() == 100
    assert ten[10:20, 20:30].all()
