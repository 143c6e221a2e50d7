"""Lines of writing, places by polygons, and tasks by their names."""

import json
from dataclasses import replace

import pytest

from rebus.codec.boxes import LOC_1024
from rebus.codec.polygons import PolygonTokens
from rebus.core.answers import Box, TextLine
from rebus.core.errors import BadImage, UnsupportedTask, UsageError
from rebus.core.specs import NamedTask, Prompts
from rebus.tasks.batching import BatchOptions
from rebus.tasks.detect import detect
from rebus.tasks.perform import perform
from rebus.tasks.read import read
from rebus.tasks.segment import segment
from tests.tasks.fakes import picture, writer

PLACES = replace(LOC_1024, order="xyxy", label="before", between="", masks=None)
LINES = replace(PLACES, num_points=4)
CORNERS = "<loc0000><loc0000><loc1023><loc0000><loc1023><loc0511><loc0000><loc0511>"
BOX = "<loc0000><loc0000><loc0511><loc1023>"
PROMPTS = Prompts(
    caption="caption en",
    detect="detect {phrase}",
    detect_all="detect",
    segment="segment {phrase}",
    read="what is this",
)
TASKS = {
    "<READ>": NamedTask(prompt="what is this", answer="lines"),
    "<FIND>": NamedTask(prompt="detect {text}", answer="boxes or masks", skip=frozenset({"it"})),
    "<PLACES>": NamedTask(prompt="detect object", answer="boxes", label=""),
    "<WHAT>": NamedTask(prompt="what is {region} ?"),
}


def speaker(reply, **declared):
    said = {"locations": PLACES, "lines": LINES, "outlines": PolygonTokens(locations=PLACES), "named_tasks": TASKS}
    return writer(reply, prompts=PROMPTS, sure=0.8, **{**said, **declared})


def test_lines_in_pixels_of_the_given_image():
    model = speaker(lambda colour, prompt: f"red cat{CORNERS}dog{CORNERS}<loc0003>")
    (first, second) = read(model, picture("red", (40, 20)))
    assert (first.text, second.text) == ("red cat", "dog")
    assert model.network.prompts == ["what is this"]
    flat = [value for corner in first.corners for value in corner]
    assert flat == pytest.approx([0, 0, 40, 0, 40, 20 * 511 / 1023, 0, 20 * 511 / 1023])
    assert first.score == pytest.approx(0.8, abs=1e-4)
    assert json.loads(json.dumps(first.to_json()))["corners"][2] == [40.0, 9.99]


def test_a_corner_too_few_and_writing_without_text_are_left_out():
    model = speaker(lambda colour, prompt: f"cat{BOX}" if colour == "red" else CORNERS)
    assert read(model, [picture("red"), picture("blue")]) == [[], []]


def test_a_model_that_reads_nothing_says_so():
    with pytest.raises(UnsupportedTask, match="no prompt for read"):
        read(writer(lambda colour, prompt: ""), picture("red"))
    with pytest.raises(UnsupportedTask, match="nor states places"):
        read(speaker(lambda colour, prompt: "", lines=None), picture("red"))


def test_polygons_become_masks():
    model = speaker(lambda colour, prompt: CORNERS)
    (mask,) = segment(model, picture("red", (40, 20)), "the cat")
    assert mask.label == "the cat"
    assert mask.mask[:9].all()
    assert not mask.mask[12:].any()
    assert mask.box == pytest.approx((0, 0, 40, 20 * 511 / 1023))


def test_every_label_is_asked_for_alone_and_everything_by_its_own_prompt():
    model = speaker(lambda colour, prompt: f"cat{BOX}" if "dog" not in prompt else f"it{BOX}{BOX}")
    assert [box.label for box in detect(model, picture("red"), ["cat", "dog"])] == ["cat", "dog", "dog"]
    assert model.network.prompts == ["detect cat", "detect dog"]
    assert [box.label for box in detect(model, picture("red"))] == ["cat"]
    assert model.network.prompts[-1] == "detect"


def test_tasks_by_their_names():
    model = speaker(lambda colour, prompt: f"dog{CORNERS}" if prompt == "what is this" else f"it{BOX}cat{BOX}")
    image = picture("red", (40, 20))
    assert [type(one) for one in perform(model, image, "<READ>")] == [TextLine]
    assert [box.label for box in perform(model, image, "<FIND>", text="cat")] == ["cat"]
    assert [box.label for box in perform(model, [image], "<PLACES>")[0]] == ["", ""]
    assert all(isinstance(box, Box) for box in perform(model, image, "<PLACES>"))


def test_a_region_becomes_location_tokens():
    model = speaker(lambda colour, prompt: "cat")
    assert perform(model, picture("red", (40, 20)), "<WHAT>", region=(0, 0, 20, 20)) == "cat"
    assert model.network.prompts == ["what is <loc0000><loc0000><loc0512><loc1023> ?"]
    with pytest.raises(UsageError, match="takes no region"):
        perform(model, picture("red"), "<READ>", region=(0, 0, 1, 1))
    with pytest.raises(UnsupportedTask, match="no named tasks"):
        perform(writer(lambda colour, prompt: ""), picture("red"), "<READ>")


def test_an_image_that_fails_leaves_the_others(tmp_path):
    """Fault 1."""
    (tmp_path / "empty.png").write_bytes(b"")
    model = speaker(lambda colour, prompt: f"cat{CORNERS}" if prompt == "what is this" else f"cat{BOX}")
    images = [picture("red"), tmp_path / "empty.png", picture("blue")]
    skip = BatchOptions(on_error="skip")
    assert [lines and lines[0].text for lines in read(model, images, batching=skip)] == ["cat", None, "cat"]
    found = perform(model, images, "<FIND>", text="cat", batching=skip)
    assert [boxes and boxes[0].label for boxes in found] == ["cat", None, "cat"]
    with pytest.raises(BadImage, match="empty file"):
        read(model, images)
