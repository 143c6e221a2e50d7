import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rebus.codec.boxes import LOC_1024, LocationTokens, in_pixels, parse_boxes
from rebus.core.answers import Box

sides = st.integers(1, 5000)
share = st.floats(0, 1)


@settings(max_examples=300, deadline=None)
@given(sides, sides, share, share, share, share)
def test_boxes_to_tokens_to_boxes_within_half_a_bin(width, height, x0, y0, x1, y1):
    size = (width, height)
    box = (min(x0, x1) * width, min(y0, y1) * height, max(x0, x1) * width, max(y0, y1) * height)
    found, rejected = LOC_1024.parse(LOC_1024.box_tokens(box, size) + " thing")
    if rejected:
        assert rejected[0].reason == "an empty box"
        assert min(box[2] / width - box[0] / width, box[3] / height - box[1] / height) < 1.01 / 1023
        return
    for back, wanted, side in zip(in_pixels(found[0].xyxy, size), box, size * 2, strict=True):
        assert abs(back - wanted) <= side * (0.5 / 1023) + 1e-9 * side


def test_order_is_top_left_bottom_right_and_outside_is_clipped():
    assert LOC_1024.box_tokens((10, 20, 50, 100), (100, 100)) == "<loc0205><loc0102><loc1023><loc0512>"
    assert LOC_1024.box_tokens((-5, -5, 300, 300), (100, 100)) == "<loc0000><loc0000><loc1023><loc1023>"


def test_detection_text_round_trip_keeps_labels_order_and_duplicates():
    boxes = [Box((0, 0, 50, 25), "cat", 1.0), Box((10, 5, 90, 45), "left dog", 1.0), Box((10, 5, 90, 45), "cat", 1.0)]
    found, rejected = parse_boxes(
        LOC_1024, LOC_1024.detection_text(boxes, (100, 50)), (100, 50), scores=[0.9, 0.5, 0.1]
    )
    assert not rejected
    assert [b.label for b in found] == ["cat", "left dog", "cat"]
    assert [b.score for b in found] == [0.9, 0.5, 0.1]
    assert found[1].xyxy == pytest.approx(boxes[1].xyxy, abs=0.05)


BOX = "<loc0100><loc0200><loc0300><loc0400>"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<loc0100><loc0200><loc0300> cat", "3 location tokens"),
        (BOX + "<loc0001> cat", "5 location tokens"),
        ("<loc0100><loc0200><loc0300><loc1024> cat", "beyond its family"),
        ("<loc0300><loc0200><loc0100><loc0400> cat", "an empty box"),
        ("<loc0100><loc0200><loc0300><loc0200> cat", "an empty box"),
        (BOX + "<seg001><seg002> cat", "2 mask tokens"),
        (BOX + "<seg128>" * 16 + " cat", "beyond its family"),
        (BOX, "no label"),
        ("<seg001> cat", "without a box"),
    ],
)
def test_what_makes_no_sense_is_rejected_with_its_reason_and_the_rest_is_kept(text, reason):
    boxes, rejected = parse_boxes(LOC_1024, f"{text} ; {BOX} dog", (100, 100), 0.5)
    assert [b.label for b in boxes] == ["dog"]
    assert len(rejected) == 1
    assert reason in rejected[0].reason


@pytest.mark.parametrize("text", ["", "cat", " ; ;", "a cat; a dog", "loc0100 <loc12> <locabcd>"])
def test_plain_text_places_nothing(text):
    assert LOC_1024.parse(text) == ([], [])


def test_separators_may_be_loose():
    boxes, rejected = parse_boxes(LOC_1024, f"{BOX}cat;{BOX}  dog  ;  {BOX} red bird {BOX} fox", (100, 100))
    assert [b.label for b in boxes] == ["cat", "dog", "red bird", "fox"]
    assert not rejected


def test_spans_point_into_the_text():
    text = f"{BOX} cat ; {BOX} dog"
    found, _ = LOC_1024.parse(text)
    assert [text[slice(*f.span)].split("> ")[-1].strip() for f in found] == ["cat", "dog"]


def test_scores_must_fit():
    with pytest.raises(ValueError, match="a score for each of 1 boxes; got 2"):
        parse_boxes(LOC_1024, f"{BOX} cat", (10, 10), [0.1, 0.2])


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="<>locseg0123; cat", max_size=80))
def test_any_text_can_be_parsed(text):
    boxes, _ = parse_boxes(LOC_1024, text, (640, 480))
    for box in boxes:
        assert 0 <= box.xyxy[0] < box.xyxy[2] <= 640
        assert 0 <= box.xyxy[1] < box.xyxy[3] <= 480


# Florence-2's notation, from its paper and release: 1,000 equal parts of each side, x first, the label before.
FLORENCE_2 = LocationTokens(bins=1000, token="<loc_{}>", order="xyxy", rounding="floor", label="before")
QUADS = replace(FLORENCE_2, num_points=4)


def test_a_second_notation_floors_to_a_thousand_parts_x_first():
    # 640 × 480: a part is 0.64 by 0.48 pixels. 100/0.64 = 156.25, 50/0.48 = 104.17, 300.5/0.64 = 469.5, 480 is the end.
    assert FLORENCE_2.box_tokens((100, 50, 300.5, 480), (640, 480)) == "<loc_156><loc_104><loc_469><loc_999>"
    assert FLORENCE_2.box_tokens((-3, -3, 999, 999), (640, 480)) == "<loc_0><loc_0><loc_999><loc_999>"
    found, rejected = parse_boxes(FLORENCE_2, "a dog<loc_156><loc_104><loc_469><loc_999>", (640, 480))
    assert not rejected
    # The middle of the part: (bin + 0.5) · side / 1000.
    assert found[0].xyxy == pytest.approx((100.16, 50.16, 300.48, 479.76))
    assert found[0].label == "a dog"


@settings(max_examples=200, deadline=None)
@given(sides, sides, share, share, share, share)
def test_floored_boxes_return_within_half_a_part(width, height, x0, y0, x1, y1):
    box = (min(x0, x1) * width, min(y0, y1) * height, max(x0, x1) * width, max(y0, y1) * height)
    found, rejected = FLORENCE_2.parse("thing" + FLORENCE_2.box_tokens(box, (width, height)))
    assert len(found) + len(rejected) == 1
    for one in found:
        for back, wanted, side in zip(in_pixels(one.xyxy, (width, height)), box, (width, height) * 2, strict=True):
            assert abs(back - wanted) <= side * (0.5 / 1000) * (1 + 1e-6)


def test_a_label_before_its_tokens_is_said_once_for_boxes_that_follow_each_other():
    boxes = [Box((0, 0, 50, 25), "car", 1.0), Box((10, 5, 90, 45), "car", 1.0), Box((1, 1, 9, 9), "red door", 1.0)]
    text = FLORENCE_2.detection_text(boxes, (100, 50))
    assert text == (
        "car<loc_0><loc_0><loc_500><loc_500><loc_100><loc_100><loc_900><loc_900>"
        "red door<loc_10><loc_20><loc_90><loc_180>"
    )
    found, rejected = parse_boxes(FLORENCE_2, text, (100, 50), scores=[0.9, 0.5, 0.1])
    assert not rejected
    assert [(box.label, box.score) for box in found] == [("car", 0.9), ("car", 0.5), ("red door", 0.1)]
    for one, given_box in zip(found, boxes, strict=True):
        assert one.xyxy == pytest.approx(given_box.xyxy, abs=0.05 + 1e-9)


def test_each_box_of_a_label_has_the_span_of_its_own_tokens():
    text = "car<loc_0><loc_0><loc_5><loc_5><loc_1><loc_1><loc_9><loc_9>"
    found, _ = FLORENCE_2.parse(text)
    assert [text[slice(*one.span)] for one in found] == [
        "car<loc_0><loc_0><loc_5><loc_5>",
        "<loc_1><loc_1><loc_9><loc_9>",
    ]
    pieces = ["car", *re.findall("<loc_.>", text)]
    starts = [start for start, _ in FLORENCE_2.log_probabilities(text, pieces, [0.0] * len(pieces))]
    assert [sum(one.span[0] <= start < one.span[1] for start in starts) for one in found] == [4, 4]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("cat<loc_1><loc_2><loc_3>", "3 location tokens instead of 4"),
        ("cat<loc_1><loc_2><loc_3><loc_1000>", "beyond its family"),
        ("cat<loc_5><loc_2><loc_3><loc_9>", "an empty box"),
        ("<loc_1><loc_2><loc_3><loc_4>", "no label"),
    ],
)
def test_a_second_notation_rejects_what_makes_no_sense(text, reason):
    boxes, rejected = parse_boxes(FLORENCE_2, f"dog<loc_1><loc_2><loc_3><loc_4>{text}", (100, 100))
    if reason == "no label":  # right after another box it is one more of the same label
        assert [box.label for box in boxes] == ["dog", "dog"]
        boxes, rejected = parse_boxes(FLORENCE_2, text, (100, 100))
        assert not boxes
    else:
        assert [box.label for box in boxes] == ["dog"]
    assert [reason in one.reason for one in rejected] == [True]


def test_quads_keep_their_corners():
    corners = ((10.05, 20.05), (90.05, 25.05), (88.05, 60.05), (8.05, 55.05))
    text = "EXIT" + QUADS.tokens(corners, (100, 100))
    assert text == "EXIT<loc_100><loc_200><loc_900><loc_250><loc_880><loc_600><loc_80><loc_550>"
    (sign,), rejected = QUADS.parse(text)
    assert not rejected
    assert sign.label == "EXIT"
    assert [100 * v for point in sign.points for v in point] == pytest.approx([v for point in corners for v in point])
    assert in_pixels(sign.xyxy, (100, 100)) == pytest.approx((8.05, 20.05, 90.05, 60.05))
    assert "instead of 8" in QUADS.parse("EXIT<loc_1><loc_2><loc_3><loc_4>")[1][0].reason


def test_tokens_of_one_notation_are_text_to_the_other():
    assert FLORENCE_2.parse(f"{BOX} cat") == ([], [])
    assert LOC_1024.parse("cat<loc_1><loc_2><loc_3><loc_4>") == ([], [])
    assert LOC_1024.log_probabilities("<loc0012>", ["<loc0012>"], [-1.0]) == [(0, -1.0)]
    assert FLORENCE_2.log_probabilities("<loc_12>", ["<loc_12>"], [-1.0]) == [(0, -1.0)]
    assert FLORENCE_2.log_probabilities("<loc0012>", ["<loc0012>"], [-1.0]) == []
    assert LOC_1024.log_probabilities("<seg012>", ["<seg012>"], [-1.0]) == []


def test_locations_that_are_spelt_out_letter_by_letter_have_no_probability():
    pieces = ["<", "loc", "0012", ">"]
    assert LOC_1024.log_probabilities("<loc0012>", pieces, [-1.0] * 4) == []


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="<>loc_0123; cat", max_size=80))
def test_any_text_can_be_parsed_with_the_label_before(text):
    boxes, _ = parse_boxes(FLORENCE_2, text, (640, 480))
    for box in boxes:
        assert 0 <= box.xyxy[0] < box.xyxy[2] <= 640
        assert 0 <= box.xyxy[1] < box.xyxy[3] <= 480
