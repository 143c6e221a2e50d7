from dataclasses import replace

import pytest
from PIL import Image

from rebus.core.errors import BadText, MissingFile, UnsupportedTask, UsageError
from rebus.core.specs import Prompts
from rebus.tasks.imagine import imagine
from tests.tasks.fakes import COLOURS
from tests.tasks.toys import IMAGE_DECODER, IMAGE_TOKENS, PROMPTS, ImageWriter, InterleavedWriter, toy

CAPTIONS = replace(PROMPTS, caption="caption en")
DRAWS = {"image_tokens": lambda cfg: IMAGE_TOKENS}


def code_of(prompt):
    """The code of the colour that the prompt names."""
    return next((f"<code{i}>" for i, colour in enumerate(COLOURS) if colour in prompt), "<code0>")


def model(reply=lambda prompt: " ".join([code_of(prompt)] * 4), network=ImageWriter, **declared):
    return toy(network(reply), **{**DRAWS, **declared})


def test_a_prompt_is_drawn():
    writer = model()
    image = imagine(writer, "a blue dog")
    assert isinstance(image, Image.Image)
    assert (image.mode, image.size) == ("RGB", (4, 4))
    assert image.getpixel((2, 1)) == (0, 0, 255)
    assert writer.network.prompts == ["draw a blue dog <begin>"]


def test_many_prompts_answer_in_kind_and_equal_single_ones():
    writer = model()
    prompts = ["a blue dog", "the very very red cat", "green"] * 3
    images = imagine(writer, prompts)
    assert [image.getpixel((0, 0)) for image in images[:3]] == [(0, 0, 255), (255, 0, 0), (0, 255, 0)]
    assert [one.tobytes() for one in images] == [imagine(writer, prompt).tobytes() for prompt in prompts]
    assert max(writer.network.batches) > 1
    assert len(imagine(writer, ["red"])) == 1


def test_an_image_is_all_codes_whatever_the_model_would_rather_say():
    image = imagine(model(lambda prompt: "a"), "red", strategy="greedy")  # it would end after one token
    pixels = {image.getpixel((x, y)) for x in range(4) for y in range(4)}
    assert pixels <= {tuple(int(255 * v) for v in colour) for colour in COLOURS.values()}


def test_chance_is_repeated_by_a_seed_and_differs_between_seeds():
    writer = model(lambda prompt: "a cat")  # of all codes none is likelier
    seeds = list(range(20))
    images = [image.tobytes() for image in imagine(writer, ["red"] * 20, seed=seeds)]
    assert len(set(images)) > 10
    assert images == [imagine(writer, "red", seed=seed).tobytes() for seed in seeds]


def dominant(image):
    means = [sum(image.getpixel((x, y))[band] for x in range(4) for y in range(4)) for band in range(3)]
    return list(COLOURS)[means.index(max(means))]


def test_the_best_of_many_is_the_one_that_the_model_would_caption_so():
    """It draws at random, and captions an image by the colour that most of it has."""
    writer = model(lambda read: read[1:].split("]")[0] if read.startswith("[") else "a cat", prompts=CAPTIONS)
    seeds = list(range(12))
    plain, one, best = (imagine(writer, ["red"] * 12, seed=seeds, **kw) for kw in ({}, {"best_of": 1}, {"best_of": 16}))
    assert [image.tobytes() for image in one] == [image.tobytes() for image in plain]
    assert 2 < [dominant(image) for image in one].count("red") < 10
    assert [dominant(image) for image in best] == ["red"] * 12
    assert imagine(writer, "red", seed=3, best_of=16).tobytes() == best[3].tobytes()
    assert len({image.tobytes() for image in best}) > 4  # each from images of its own


@pytest.mark.parametrize("number", [0, -1, 1.5, True, "4"], ids=repr)
def test_the_best_of_no_image_is_refused(number):
    with pytest.raises(UsageError, match="best_of is a number of images, 1 or more"):
        imagine(model(), "red", best_of=number)


def test_a_system_decodes_images_as_it_declares():
    writer = model(lambda prompt: "a cat", decoding={"imagine": {"strategy": "greedy"}})
    assert imagine(writer, "red").tobytes() == imagine(writer, "red").tobytes()


@pytest.mark.parametrize("prompt", ["", " ", ["red", " "]], ids=repr)
def test_an_empty_prompt_is_a_clear_error(prompt):
    with pytest.raises(BadText, match="a prompt must be a text that is not empty"):
        imagine(model(), prompt)


def test_options_without_meaning_are_refused():
    with pytest.raises(UsageError, match="max_new_tokens has no meaning for an image, which is always 4 tokens"):
        imagine(model(), "red", max_new_tokens=3)


def test_what_is_missing_is_said():
    with pytest.raises(UnsupportedTask, match="no prompt for imagine"):
        imagine(model(prompts=Prompts()), "red")
    with pytest.raises(UnsupportedTask, match="writes no images"):
        imagine(model(image_tokens=None), "red")
    with pytest.raises(UnsupportedTask, match="nothing that decodes images"):
        imagine(model(network=InterleavedWriter), "red")
    with pytest.raises(MissingFile, match=r"vqgan\.ckpt"):
        imagine(model(network=InterleavedWriter, companions={"image_decoder": IMAGE_DECODER}), "red")
