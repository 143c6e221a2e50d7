"""detect and segment by a network that finds regions itself, on a toy that tells colours apart."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional as F

from rebus.codec.images import ImagePipeline
from rebus.codec.processor import Processor
from rebus.codec.resize import placement
from rebus.codec.text import TextPipeline
from rebus.core.errors import NotFinite, UnsupportedTask, UsageError
from rebus.core.outputs import Regions
from rebus.core.specs import ImageSpec, Prompts, TextSpec
from rebus.tasks.detect import Detector, detect
from rebus.tasks.region_finding import RegionFinder
from rebus.tasks.segment import segment
from tests.tasks import fakes
from tests.tasks.fakes import EOS, picture
from tests.tasks.toys import RegionNetwork


def finder(prompts=None):
    text = TextSpec(context=16, pad_id=0, eos_id=EOS, bos_id=2)
    return fakes._model(RegionNetwork(), text, fakes.fake_system(prompts or Prompts()))


def halves(left, right, size=(40, 20)):
    image = picture(left, size)
    image.paste(picture(right, (size[0] // 2, size[1])), (size[0] // 2, 0))
    return image


def test_boxes_are_in_pixels_of_the_given_image():
    boxes = detect(finder(), halves("red", "blue"), ["blue", "red"])
    assert {(box.label, box.xyxy) for box in boxes} == {("red", (0, 0, 20, 20)), ("blue", (20, 0, 40, 20))}
    assert all(0.8 < box.score <= 1 for box in boxes)
    assert [box.score for box in boxes] == sorted((box.score for box in boxes), reverse=True)
    assert detect(finder(), halves("red", "red"), "green") == []


def test_templates_of_the_system_are_put_around_labels():
    plain = detect(finder(), halves("red", "blue"), "red")
    within = detect(finder(Prompts(classify="a very very {}")), halves("red", "blue"), "red")
    assert [box.xyxy for box in plain] == [box.xyxy for box in within]
    assert plain[0].score != within[0].score


def test_many_images_answer_in_kind_and_equal_single_ones():
    model = finder()
    images = [halves(a, b, size) for a in fakes.COLOURS for b in fakes.COLOURS for size in ((40, 20), (9, 30))]
    together = detect(model, images, ["red", "blue"])
    assert together == [detect(model, one, ["red", "blue"]) for one in images]
    assert max(model.network.batches) > 1


def test_masks_lie_in_their_boxes():
    (mask,) = segment(finder(), halves("green", "blue"), "blue")
    expected = np.zeros((20, 40), dtype=bool)
    expected[:10, 20:] = True
    assert mask.mask.shape == (20, 40)
    assert (mask.mask != expected).mean() < 0.03
    assert (mask.label, mask.box) == ("blue", (20, 0, 40, 20))


def test_each_phrase_goes_with_its_image_and_is_searched_for_alone():
    model = finder()
    images = [halves("red", "blue"), halves("green", "blue"), halves("red", "red")]
    found = segment(model, images, ["red", "blue", "red"])
    assert [[mask.label for mask in masks] for masks in found] == [["red"], ["blue"], ["red", "red"]]
    for image, phrase, masks in zip(images, ["red", "blue", "red"], found, strict=True):
        alone = segment(model, image, phrase)
        assert [(mask.box, mask.score) for mask in alone] == [(mask.box, mask.score) for mask in masks]
    assert [len(masks) for masks in segment(model, images[0], ["red", "green"])] == [1, 0]


@pytest.mark.parametrize("field", ["scores", "boxes", "masks"])
def test_regions_that_are_no_numbers_are_refused(field):
    model = finder()
    found = model.network.find_regions

    def find_regions(pixels, labels, **options):
        regions = found(pixels, labels)
        getattr(regions[-1], field)[-1] = torch.nan
        return regions

    model.network.find_regions = find_regions
    images = [halves("red", "blue"), halves("red", "red")]
    for search in (lambda: detect(model, images, ["red"]), lambda: segment(model, images, ["red", "red"])):
        with pytest.raises(NotFinite, match=r"(images\[\d\]|phrase \d): .*float32"):
            search()


def test_decoding_options_are_refused():
    for task in (detect, segment):
        with pytest.raises(UsageError, match="num_beams has no meaning"):
            task(finder(), picture("red"), "red", num_beams=3)


@pytest.mark.parametrize(("resize", "side"), [("shorter", None), ("exact", 5)])
def test_boxes_of_a_cropped_image_are_refused_rather_than_misplaced(resize, side):
    model = finder()
    model.processor.image = ImagePipeline(ImageSpec(size=(4, 4), resize=resize, side=side), threads=1)
    with pytest.raises(UnsupportedTask, match=f'resizes images by "{resize}"'):
        detect(model, halves("red", "blue"), "red")


@pytest.mark.parametrize("pad", ["end", "centre"])
def test_boxes_and_masks_on_a_canvas_come_back_to_the_given_image(pad):
    """The network reads 4 × 4 pixels of which the image, twice as wide as high, covers two rows."""
    model, image = finder(), halves("red", "blue")
    spec = ImageSpec(size=(4, 4), resize="longer", pad=pad, mean=(0, 0, 0), std=(1, 1, 1))
    model.processor.image = ImagePipeline(spec, threads=1)
    assert placement(spec, 40, 20) == (0, 0 if pad == "end" else 1, 4, 2)
    boxes = detect(model, image, ["red", "blue"])
    if pad == "end":  # the toy's boxes are as high as the canvas, of which the lower half is padding
        assert {(box.label, box.xyxy) for box in boxes} == {("red", (0, 0, 20, 20)), ("blue", (20, 0, 40, 20))}
        (mask,) = segment(model, image, "blue")
        assert mask.mask[:, 20:].mean() > 0.95, "the upper half of the box before it was clipped"
        assert not mask.mask[:, :19].any()
    found = boxes_of(model, (0.25, 0.25, 0.75, 0.75))
    assert found == [(10, 0 if pad == "centre" else 10, 30, 20)]


def boxes_of(model, box):
    """What becomes of a box that the network finds, in shares of its canvas."""

    def find(pixels, labels, masks=True):
        return [Regions(torch.tensor([box]), torch.tensor([0]), torch.tensor([0.5]))]

    model.network.find_regions = find
    return [one.xyxy for one in detect(model, halves("red", "blue"), "red")]


def test_what_is_found_in_the_padding_is_left_out():
    model = finder()
    model.processor.image = ImagePipeline(ImageSpec(size=(4, 4), resize="longer", pad="end"), threads=1)
    assert boxes_of(model, (0.2, 0.5, 0.9, 0.9)) == []
    assert len(boxes_of(model, (0.2, 0.4, 0.9, 0.9))) == 1


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 300), st.integers(2, 300), st.integers(5, 80), st.sampled_from(["end", "centre"]))
def test_an_image_lies_where_it_is_said_to(width, height, side, pad):
    spec = ImageSpec(size=(side, side), resize="longer", pad=pad, rounding="even", mean=(0, 0, 0), std=(1, 1, 1))
    pixels = ImagePipeline(spec, threads=1)([Image.new("RGB", (width, height), "white")])["pixels"][0, 0]
    left, top, wide, high = placement(spec, width, height)
    assert pixels[top : top + high, left : left + wide].min() == 1
    assert pixels.sum() == wide * high


def test_several_names_of_one_thing_are_their_mean():
    model = finder()
    found = detect(model, halves("red", "blue"), [["red", "a red"], "blue"])
    assert {box.label for box in found} == {"red", "blue"}
    one, other = (RegionFinder(model, labels).vectors for labels in ([["red", "blue"]], ["red", "blue"]))
    torch.testing.assert_close(one[0], F.normalize(other.mean(0), dim=0))
    assert [box.label for box in detect(model, halves("red", "blue"), [["blue", "blue"], ["blue", "red"]])] == ["blue"]


def test_labels_that_stay_are_read_once():
    model = finder()
    find = Detector(model, ["red", "blue"])
    read = model.network.embed_text
    model.network.embed_text = None
    images = [halves("red", "blue"), halves("blue", "green")]
    found = find(images, batch_size=1)
    model.network.embed_text = read
    assert found == detect(model, images, ["red", "blue"])
    assert find(images[1]) == found[1]
    with pytest.raises(UsageError, match="labels as part of the prompt"):
        Detector(fakes.writer(lambda colour, prompt: ""), ["red"])


def test_labels_are_read_again_only_where_the_network_has_changed():
    model, image, read = finder(), halves("red", "blue"), []
    real = model.network.embed_text
    model.network.embed_text = lambda tokens, mask=None: read.append(len(tokens)) or real(tokens, mask)
    found = detect(model, image, ["red", "blue"])
    assert detect(model, image, ["red", "blue"]) == found
    assert read == [2]
    detect(model, image, ["blue", "green"])
    assert read == [2, 1], "green alone is new"
    detect(model, image, "red", "a very {}")
    assert read == [2, 1, 1], "another sentence"
    with torch.no_grad():
        model.network.colours.log_scale.add_(0)
    detect(model, image, ["red", "blue"])
    assert read == [2, 1, 1, 2], "after a step of training"
    text = model.processor.text
    model.processor = Processor(model.processor.image, TextPipeline(text.tokenizer, text.spec))
    detect(model, image, ["red"])
    assert read == [2, 1, 1, 2, 1], "with another tokenizer"


def test_sentences_may_be_given():
    model, image = finder(Prompts(classify="a very very {}")), halves("red", "blue")
    plain = detect(finder(), image, "red")
    assert detect(model, image, "red") != plain
    assert detect(model, image, "red", "plain") == Detector(model, "red", ["{}"])(image) == plain
    assert Detector(model, "blue", "plain").asking("red")(image) == plain
    with pytest.raises(UsageError, match="templates are not put in it"):
        detect(fakes.writer(lambda colour, prompt: ""), image, "red", "plain")


def test_a_generative_model_wants_one_name_a_thing():
    with pytest.raises(UsageError, match="expected one name per object; got cat, kitten"):
        detect(fakes.writer(lambda colour, prompt: ""), picture("red"), [["cat", "kitten"]])


def test_upright_sizes(tmp_path):
    turned = halves("red", "blue", (30, 10)).rotate(90, expand=True)
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as stored:
        assert stored.size == (10, 30)
    (box,) = detect(finder(), tmp_path / "turned.png", "red")
    assert box.xyxy == (0, 0, 15, 10)


def test_no_more_labels_are_kept_than_is_said(monkeypatch):
    monkeypatch.setattr("rebus.tasks.label_memory._MOST", 2)
    model = finder()
    first = RegionFinder(model, ["red", "blue"]).vectors
    assert torch.equal(RegionFinder(model, ["green", "blue", "red"]).vectors[[2, 1]], first)
    assert torch.equal(RegionFinder(model, ["red"]).vectors, first[:1])


def test_regions_of_a_padded_image_lie_in_the_given_one():
    """A canvas of 64 under an image of 40 × 20: what is found in shares of the canvas, in pixels; padding has none."""
    from rebus.codec.resize import boxes_in_image

    spec = ImageSpec(size=(64, 64), resize="longer", pad="end")
    boxes = torch.tensor([[0.25, 0.125, 0.5, 0.25], [0.0, 0.25, 1.0, 0.75], [0.2, 0.6, 0.4, 0.9]])
    moved, inside = boxes_in_image(spec, (40, 20), boxes)
    assert moved[:2].tolist() == [[10, 5, 20, 10], [0, 10, 40, 20]]
    assert inside.tolist() == [True, True, False]
