"""What all task methods share: many items in any form, batch sizes, and items that fail alone."""

import logging

import pytest
import torch

import rebus
from rebus.generation.loop import OPTIONS
from rebus.tasks.methods import Decoding
from tests import tiny
from tests.tasks.fakes import picture

COLOURS = ("red", "green", "blue")


@pytest.fixture(scope="module")
def models():
    return tiny.with_words(tiny.siglip()), tiny.with_words(tiny.paligemma())


@pytest.fixture
def folder(tmp_path):
    """Three images, and one that is none, in the middle."""
    for name, colour in zip("acd", COLOURS, strict=True):
        picture(colour, (64, 48)).save(tmp_path / f"{name}.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    return tmp_path


@pytest.mark.parametrize("size", [None, 1, 3])
def test_a_bad_image_is_skipped_alone(models, folder, caplog, size):
    clip, paligemma = models
    images = rebus.images_in(folder)
    good = [path for path in images if path.name != "b.png"]
    more = {"on_error": "skip", "batch_size": size}
    with caplog.at_level(logging.WARNING, "rebus"):
        vectors = clip.embed_images(images, **more)
    assert "1 of 4 images failed and have no answer: " in caplog.text
    assert "b.png" in caplog.text
    assert vectors[1].isnan().all()
    torch.testing.assert_close(vectors[[0, 2, 3]], clip.embed_images(good), atol=1e-6, rtol=0)
    scores = clip.match(images, ["a", "red"], **more)
    torch.testing.assert_close(scores[[0, 2, 3]], clip.match(good, ["a", "red"]), atol=1e-6, rtol=0)
    assert scores[1].isnan().all()
    rankings = clip.classify(images, ["a", "red"], **more)
    assert [ranking and ranking.top for ranking in rankings] == [
        None if path.name == "b.png" else clip.classify(path, ["a", "red"]).top for path in images
    ]
    captions = paligemma.caption(images, max_new_tokens=3, **more)
    assert captions[1] is None
    assert [text for text in captions if text is not None] == paligemma.caption(good, max_new_tokens=3)
    answers = [
        paligemma.ask(images, "what", max_new_tokens=2, **more),
        paligemma.detect(images, "cat", max_new_tokens=2, **more),
        paligemma.classify(images, ["cat", "dog"], **more),
    ]
    assert [[answer is None for answer in kind] for kind in answers] == [[False, True, False, False]] * 3


def test_without_skip_the_first_bad_image_is_named(models, folder):
    with pytest.raises(rebus.BadImage, match=r"images\[1\]"):
        models[0].embed_images(rebus.images_in(folder))
    with pytest.raises(rebus.RebusError, match="not one of 1 images"):
        models[0].embed_images([folder / "b.png"], on_error="skip")


def test_folders_and_generators_are_many(models, folder):
    clip, paligemma = models
    (folder / "b.png").unlink()
    images = rebus.images_in(folder)
    wanted = clip.embed_images(images)
    assert clip.embed_images(folder).equal(wanted)
    assert clip.embed_images(str(folder)).equal(wanted)
    assert clip.embed_images(path for path in images).equal(wanted)
    assert paligemma.caption(folder, max_new_tokens=2) == paligemma.caption(iter(images), max_new_tokens=2)
    assert clip.embed_texts(text for text in ("a", "red")).equal(clip.embed_texts(["a", "red"]))
    (folder / "empty").mkdir()
    with pytest.raises(rebus.MissingFile, match="no images in this folder"):
        clip.embed_images(folder / "empty")


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"batch_size": True}, {"on_error": "ignore"}], ids=str)
def test_options_that_mean_nothing(models, wrong):
    with pytest.raises(rebus.UsageError, match=next(iter(wrong))):
        models[0].embed_images(picture("red"), **wrong)


def test_a_classifier_equals_classify(models):
    clip, _ = models
    ranked = clip.classifier(["a", "red"], "a photo of {}")([picture("red"), picture("blue")], batch_size=2)
    assert ranked == clip.classify([picture("red"), picture("blue")], ["a", "red"], "a photo of {}")


def test_the_typed_options_are_those_of_generation():
    own = {"batch_size", "progress", "do_sample"}
    assert set(Decoding.__annotations__) - own == OPTIONS - {
        *"eos_id pad_id first_id last_id decode read on_token".split()
    }


def test_familiar_decoding_options(models):
    _, paligemma = models
    image, same = picture("red"), paligemma.caption
    assert same(image, max_new_tokens=3, num_beams=2) == same(image, max_new_tokens=3, num_beams=2, strategy="beam")
    assert same(image, max_new_tokens=3, num_beams=1, do_sample=False) == same(image, max_new_tokens=3)
    sampled = {"temperature": 5.0, "seed": 3, "max_new_tokens": 3}
    assert same(image, do_sample=True, **sampled) == same(image, strategy="sample", **sampled)


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"do_sample": True, "num_beams": 2}, "num_beams"),
        ({"do_sample": True, "strategy": "beam"}, "do_sample"),
        ({"do_sample": False, "strategy": "sample"}, "do_sample"),
        ({"max_length": 20}, "max_new_tokens"),
        ({"output_hidden_states": True}, "model.network"),
    ],
    ids=str,
)
def test_options_of_other_libraries_that_contradict_or_are_not_there(models, wrong, said):
    with pytest.raises(rebus.UsageError, match=said):
        models[1].caption(picture("red"), **wrong)
