"""Scores and probabilities of dual encoders, and results that are not numbers."""

import numpy as np
import pytest
import torch
from PIL import Image

import rebus
from rebus.core.answers import Mask
from rebus.core.errors import NotFinite, UsageError

IMAGES = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
TEXTS = ["a red circle", "a blue square", "a photo"]


@pytest.fixture(scope="module", params=["align/scenes", "clip/scenes", "siglip/scenes"])
def model(request):
    return rebus.load(request.param)


def test_logits_are_the_networks(model):
    out = model(**model.processor(images=IMAGES, texts=TEXTS))
    with torch.no_grad():
        assert torch.allclose(model.logits(IMAGES, TEXTS), out.logits, atol=1e-4)
    assert torch.allclose(model.match(IMAGES, TEXTS), (out.image @ out.text.T).detach(), atol=1e-5)


def test_probabilities_by_sigmoid_or_softmax(model):
    scores = model.logits(IMAGES, TEXTS)
    sigmoid = model.card.system == "siglip"
    expected = scores.sigmoid() if sigmoid else scores.softmax(1)
    assert torch.allclose(model.probabilities(IMAGES, TEXTS), expected)
    if sigmoid:
        one = model.classify(IMAGES[0], TEXTS[:1], templates="{}")
        assert one.probabilities[0] == pytest.approx(float(expected[0, 0]), rel=1e-4)
        many = dict(model.classify(IMAGES[0], TEXTS, templates="{}", multi=True))
        assert [many[t] for t in TEXTS] == pytest.approx(expected[0].tolist(), rel=1e-3)
    else:
        with pytest.raises(UsageError, match="sigmoid"):
            model.classify(IMAGES[0], TEXTS, multi=True)


@pytest.mark.parametrize("name", ["clip/scenes", "paligemma/scenes"])
def test_fault_39_half_precision_that_overflows_is_no_answer(name):
    model = rebus.load(name, dtype="float16")
    with torch.no_grad():
        model.network.get_parameter("image.patch.weight").fill_(60_000)
    with pytest.raises(NotFinite, match="float16"):
        model.caption(IMAGES[0]) if name.startswith("pali") else model.classify(IMAGES[0], TEXTS)


@pytest.mark.parametrize(("dtype", "most"), [("float32", 1e-6), ("bfloat16", 4e-3)])
@pytest.mark.parametrize("name", ["clip/scenes", "siglip/scenes"])
def test_a_row_moves_between_batches_by_rounding_alone(name, dtype, most):
    model = rebus.load(name, dtype=dtype)
    texts = ["a red square", "two small green circles above one large solid cyan triangle", *TEXTS]
    for embed, items in ((model.embed_images, IMAGES * 4), (model.embed_texts, texts * 4)):
        together, alone = (embed(items, batch_size=size) for size in (len(items), 1))
        assert float((together - alone).abs().max()) <= most


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # of pycocotools
def test_masks_are_run_lengths_of_coco():
    from pycocotools import mask as coco

    mask = np.random.default_rng(0).random((5, 7)) > 0.5
    for one in (mask, ~mask, np.zeros((3, 4), bool), np.ones((3, 4), bool)):
        found = Mask(one, (0, 0, 1, 1), "a", 0.5).to_json()
        runs = {"size": found["size"], "counts": found["counts"]}
        assert np.array_equal(coco.decode(coco.frPyObjects(runs, *one.shape)).astype(bool), one)
