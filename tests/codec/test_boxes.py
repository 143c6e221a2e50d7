import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rebus.codec.boxes import BINS, box_tokens, detection_text, in_pixels, parse_boxes, parse_located
from rebus.core.answers import Box

sides = st.integers(1, 5000)
share = st.floats(0, 1)


@settings(max_examples=300, deadline=None)
@given(sides, sides, share, share, share, share)
def test_boxes_to_tokens_to_boxes_within_half_a_bin(width, height, x0, y0, x1, y1):
    size = (width, height)
    box = (min(x0, x1) * width, min(y0, y1) * height, max(x0, x1) * width, max(y0, y1) * height)
    found, rejected = parse_located(box_tokens(box, size) + " thing")
    if rejected:
        assert rejected[0].reason == "an empty box"
        assert min(box[2] / width - box[0] / width, box[3] / height - box[1] / height) < 1.01 / (BINS - 1)
        return
    for back, wanted, side in zip(in_pixels(found[0].xyxy, size), box, size * 2, strict=True):
        assert abs(back - wanted) <= side * (0.5 / (BINS - 1)) + 1e-9 * side


def test_order_is_top_left_bottom_right_and_outside_is_clipped():
    assert box_tokens((10, 20, 50, 100), (100, 100)) == "<loc0205><loc0102><loc1023><loc0512>"
    assert box_tokens((-5, -5, 300, 300), (100, 100)) == "<loc0000><loc0000><loc1023><loc1023>"


def test_detection_text_round_trip_keeps_labels_order_and_duplicates():
    boxes = [Box((0, 0, 50, 25), "cat", 1.0), Box((10, 5, 90, 45), "left dog", 1.0), Box((10, 5, 90, 45), "cat", 1.0)]
    found, rejected = parse_boxes(detection_text(boxes, (100, 50)), (100, 50), scores=[0.9, 0.5, 0.1])
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
    boxes, rejected = parse_boxes(f"{text} ; {BOX} dog", (100, 100), 0.5)
    assert [b.label for b in boxes] == ["dog"]
    assert len(rejected) == 1
    assert reason in rejected[0].reason


@pytest.mark.parametrize("text", ["", "cat", " ; ;", "a cat; a dog", "loc0100 <loc12> <locabcd>"])
def test_plain_text_places_nothing(text):
    assert parse_located(text) == ([], [])


def test_separators_may_be_loose():
    boxes, rejected = parse_boxes(f"{BOX}cat;{BOX}  dog  ;  {BOX} red bird {BOX} fox", (100, 100))
    assert [b.label for b in boxes] == ["cat", "dog", "red bird", "fox"]
    assert not rejected


def test_spans_point_into_the_text():
    text = f"{BOX} cat ; {BOX} dog"
    found, _ = parse_located(text)
    assert [text[slice(*f.span)].split("> ")[-1].strip() for f in found] == ["cat", "dog"]


def test_scores_must_fit():
    with pytest.raises(ValueError, match="a score for each of 1 boxes; got 2"):
        parse_boxes(f"{BOX} cat", (10, 10), [0.1, 0.2])


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="<>locseg0123; cat", max_size=80))
def test_any_text_can_be_parsed(text):
    boxes, _ = parse_boxes(text, (640, 480))
    for box in boxes:
        assert 0 <= box.xyxy[0] < box.xyxy[2] <= 640
        assert 0 <= box.xyxy[1] < box.xyxy[3] <= 480
