"""detect and segment by a network that finds regions itself, on a toy that tells colours apart."""

import numpy as np
import pytest
import torch
from PIL import Image

from rebus.codec.images import ImagePipeline
from rebus.core.errors import NotFinite, UnsupportedTask, UsageError
from rebus.core.specs import ImageSpec, Prompts, TextSpec
from rebus.tasks.detect import detect
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

    def find_regions(pixels, labels):
        regions = found(pixels, labels)
        getattr(regions[-1], field)[-1] = torch.nan
        return regions

    model.network.find_regions = find_regions
    images = [halves("red", "blue"), halves("red", "red")]
    for search in (lambda: detect(model, images, ["red"]), lambda: segment(model, images, ["red", "red"])):
        with pytest.raises(NotFinite, match=r"(image|phrase) \d: .*float32"):
            search()


def test_decoding_options_are_refused():
    for task in (detect, segment):
        with pytest.raises(UsageError, match="num_beams has no meaning"):
            task(finder(), picture("red"), "red", num_beams=3)


def test_boxes_of_a_cropped_image_are_refused_rather_than_misplaced():
    model = finder()
    model.processor.image = ImagePipeline(ImageSpec(size=(4, 4), resize="shorter"), threads=1)
    with pytest.raises(UnsupportedTask, match='resizes images by "shorter"'):
        detect(model, halves("red", "blue"), "red")


def test_upright_sizes(tmp_path):
    turned = halves("red", "blue", (30, 10)).rotate(90, expand=True)
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as stored:
        assert stored.size == (10, 30)
    (box,) = detect(finder(), tmp_path / "turned.png", "red")
    assert box.xyxy == (0, 0, 15, 10)
