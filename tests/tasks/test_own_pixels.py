"""`{"pixels": …}`: what one's own pipeline prepared goes through every task as it is."""

import pytest
import torch

from rebus.core.errors import BadImage
from tests import tiny
from tests.tasks.fakes import picture


@pytest.fixture(scope="module")
def models():
    return tiny.with_words(tiny.siglip()), tiny.with_words(tiny.paligemma())


@pytest.fixture(scope="module")
def images():
    return [picture(colour, (64, 48)) for colour in ("red", "green", "blue")]


def test_tasks_answer_as_to_the_images(models, images):
    dual, writer = models
    for model in models:
        batch = model.processor(images=images)
        loaded = [{"pixels": row} for row in batch["pixels"]]
        if model is dual:
            wanted = model.embed_images(images)
            for form in (batch, loaded, [batch], iter(loaded)):
                torch.testing.assert_close(model.embed_images(form, batch_size=2), wanted)
            torch.testing.assert_close(model.match(batch, ["a red cat"]), model.match(images, ["a red cat"]))
            assert model.classify(batch, ["a cat", "a dog"]) == model.classify(images, ["a cat", "a dog"])
            torch.testing.assert_close(model.features(batch).pooled, wanted)
        else:
            wanted = writer.caption(images, max_new_tokens=3)
            assert writer.caption(batch, max_new_tokens=3) == wanted
            assert writer.ask(batch, "what", max_new_tokens=3) == writer.ask(images, "what", max_new_tokens=3)
        one = {"pixels": batch["pixels"][0]}
        if model is dual:
            assert model.classify(one, ["a cat", "a dog"]) == model.classify(images[0], ["a cat", "a dog"])


@pytest.mark.parametrize(
    "pixels, reason",
    [
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), "normalised floats"),
        (torch.zeros(8, 8, 3), r"expected \(3, H, W\)"),
        (torch.full((3, 8, 8), torch.nan), "NaN or infinity"),
        ([0.0], "as a tensor; got list"),
    ],
)
def test_what_is_no_batch_is_refused(models, pixels, reason):
    with pytest.raises(BadImage, match=reason):
        models[0].embed_images({"pixels": pixels})


def test_mixtures_and_other_keys(models, images):
    dual, writer = models
    batch = dual.processor(images=images)
    with pytest.raises(BadImage, match="are mixed"):
        dual.embed_images([*images, batch])
    with pytest.raises(BadImage, match="got pixels, labels"):
        dual.embed_images({**batch, "labels": torch.zeros(3)})
    with pytest.raises(BadImage, match="must have the same size"):
        dual.embed_images([{"pixels": torch.zeros(3, 32, 32)}, {"pixels": torch.zeros(3, 24, 24)}])
    with pytest.raises(BadImage, match="give the image itself"):
        writer.detect(writer.processor(images=images), ["cat"], max_new_tokens=2)
