import math

import pytest
from PIL import Image

import rebus
from rebus.codec.boxes import LocationTokens
from rebus.core.errors import UsageError
from rebus.core.specs import Prompts
from rebus.data.scenes import scene
from rebus.tasks.detect import detect
from tests.tasks.fakes import picture, writer
from tests.tasks.toys import InterleavedWriter, toy

HALF = "<loc0000><loc0000><loc1023><loc0511>"  # top, left, bottom, right: the left half
WHOLE = "<loc0000><loc0000><loc1023><loc1023>"


def test_boxes_are_in_pixels_of_the_given_picture():
    model = writer(lambda colour, prompt: f"{HALF} {colour} cat ; {WHOLE} dog")
    boxes = detect(model, picture("red", (200, 100)), ["red cat", "dog"])
    assert model.network.prompts == ["detect red cat ; dog"]
    assert {box.label for box in boxes} == {"red cat", "dog"}
    cat = next(box for box in boxes if box.label == "red cat")
    assert cat.xyxy == pytest.approx((0, 0, 200 * 511 / 1023, 100))


@pytest.mark.parametrize("options", [{}, {"strategy": "beam", "num_beams": 2}], ids=["greedy", "beam"])
def test_a_score_is_the_probability_of_the_location_tokens(options):
    model = writer(lambda colour, prompt: f"{HALF} cat", sure=0.8)
    (box,) = detect(model, picture("red"), ["cat"], **options)
    assert box.score == pytest.approx(0.8, abs=1e-4)


def test_each_box_has_the_score_of_its_own_tokens():
    model = writer(lambda colour, prompt: f"{HALF} cat ; {WHOLE} dog", sure=0.8)
    say, sure = model.network._say, [0.5] * 4 + [0.8] * 2 + [0.9] * 4 + [0.8] * 5

    def unevenly(cache):
        model.network.sure = sure[min(cache.at, len(sure) - 1)]
        return say(cache)

    model.network._say = unevenly
    boxes = detect(model, picture("red"), ["cat", "dog"])
    assert [box.label for box in boxes] == ["dog", "cat"], "best first"
    assert [box.score for box in boxes] == pytest.approx([0.9, 0.5], abs=1e-4)


def test_no_labels_ask_for_any_object():
    model = writer(lambda colour, prompt: f"{HALF} object")
    assert len(detect(model, picture("red"))) == 1
    assert model.network.prompts == ["detect object"]


def test_nothing_found_is_an_empty_list():
    assert detect(writer(lambda colour, prompt: ""), picture("red"), "cat") == []


@pytest.mark.parametrize("text", ["<loc0000><loc0001> cat", "<loc0009><loc0000><loc0001><loc1023> cat", HALF, "cat"])
def test_pieces_that_make_no_box_are_left_out(text):
    boxes = detect(writer(lambda colour, prompt: f"{text} ; {WHOLE} dog"), picture("red"), ["cat"])
    assert [box.label for box in boxes] == ["dog"]
    assert boxes[0].score == pytest.approx(0.9, abs=1e-4)


def test_a_list_answers_in_kind_and_rows_equal_single_results():
    def says(colour, prompt):
        return {"red": f"{HALF} cat", "green": "", "blue": f"{WHOLE} cat ; {HALF} dog"}[colour]

    model = writer(says)
    pictures = [picture(c, size) for c in ("red", "green", "blue") for size in ((20, 10), (7, 30))] * 2
    assert detect(model, pictures, ["cat", "dog"]) == [detect(model, one, ["cat", "dog"]) for one in pictures]


def test_fault_7_boxes_are_those_of_the_upright_picture(tmp_path):
    turned = Image.new("RGB", (30, 10))
    exif = turned.getexif()
    exif[0x0112] = 6  # on its side: upright it is 10 × 30
    turned.save(tmp_path / "turned.jpg", exif=exif)
    (box,) = detect(writer(lambda colour, prompt: f"{WHOLE} cat"), tmp_path / "turned.jpg", ["cat"])
    assert box.xyxy == pytest.approx((0, 0, 10, 30))


def test_scores_are_probabilities():
    (box,) = detect(writer(lambda colour, prompt: f"{WHOLE} cat", sure=0.3), picture("red"), ["cat"])
    assert 0 < box.score < 1
    assert not math.isnan(box.score)


def test_another_system_spells_places_in_another_way():
    locations = LocationTokens(bins=1000, token="<loc_{}>", order="xyxy", rounding="floor", label="before")
    said = "cat <loc_0> <loc_100> <loc_499> <loc_999> <loc_500> <loc_0> <loc_999> <loc_499> dog <loc_0> <loc_0> <loc_1>"
    network = InterleavedWriter(lambda prompt: said)
    model = toy(network, prompts=Prompts(detect="detect {labels}"), locations=locations)
    boxes = detect(model, picture("red", (200, 100)), ["cat", "dog"])
    assert network.prompts == ["[red] detect cat ; dog"]
    assert [box.label for box in boxes] == ["cat", "cat"], "the third has a token too few"
    assert boxes[0].xyxy == pytest.approx((0.1, 10.05, 99.9, 99.95))
    assert boxes[1].xyxy == pytest.approx((100.1, 0.05, 199.9, 49.95))
    assert [box.score for box in boxes] == pytest.approx([1, 1])


def test_threshold_leaves_boxes_below_it_out():
    model = rebus.load("vild/scenes")
    images = [scene(seed, "test").image for seed in (1, 2)]
    every = model.detect(images, ["circle", "star"])
    scores = sorted(box.score for boxes in every for box in boxes)
    least = scores[len(scores) // 2]
    kept = model.detect(images, ["circle", "star"], threshold=least)
    assert kept == [[box for box in boxes if box.score >= least] for boxes in every]
    assert sum(map(len, kept)) < len(scores)
    assert model.detector(["circle", "star"])(images, threshold=least) == kept
    with pytest.raises(UsageError, match="threshold expects a probability"):
        model.detect(images, ["circle"], threshold=2)
