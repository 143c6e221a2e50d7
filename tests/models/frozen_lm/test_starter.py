"""`flamingo/starter`, what `flamingo_photos` begins with: real networks of the package index, not yet trained; and
`flamingo/photos`, what it leads to."""

from importlib.util import find_spec

import pytest
import torch
from PIL import Image

import rebus
from rebus import catalog
from rebus.core import extras
from rebus.core.errors import MissingExtra
from rebus.models.frozen_lm.flamingo_config import PRESETS
from rebus.recipes import recipe
from rebus.tour.photos import samples

needs_packages = pytest.mark.skipif(
    any(find_spec(name) is None for name in extras.PACKAGES["captions"]), reason='the extra "captions" is not installed'
)


@pytest.fixture(scope="module")
def model():
    return rebus.load("flamingo/starter", device="cpu")


@needs_packages
@torch.no_grad()
def test_texts_are_the_language_models_bit_by_bit_even_with_open_gates(model):
    assert model.config == PRESETS["starter"]
    tokens = model.processor(texts=["Once upon a time", "The capital of France is"])
    text = {name: tokens[name] for name in ("tokens", "mask")}
    alone = model.network.text(**text).logits
    vocabulary = model.config.vocabulary
    gates = {name: p for name, p in model.network.named_parameters() if name.endswith("_gate")}
    image = model.processor(images=[Image.new("RGB", (60, 50), "red")], texts=["Output:"])
    closed = model.network(**image).logits
    try:
        for gate in gates.values():
            gate.fill_(0.5)
        assert torch.equal(model.network(**text).logits[..., :vocabulary], alone)
        assert not torch.allclose(model.network(**image).logits[..., :vocabulary], closed[..., :vocabulary], atol=1e-2)
    finally:
        for gate in gates.values():
            gate.zero_()
    assert torch.isneginf(closed[..., vocabulary:]).all()  # it never writes the token of an image
    plain = model.complete(["The capital of France is"], max_new_tokens=6, strategy="greedy")
    written = model.generate(**text, max_new_tokens=6, strategy="greedy")
    assert plain == model.processor.decode(written)[1].strip()


@needs_packages
def test_it_is_the_same_each_time_and_learns_six_million_weights(model):
    again = catalog.system("flamingo").assemble["starter"]()
    assert torch.equal(again.tensors["resampler.latents"], model.network.resampler.latents)
    learned = {n: p for n, p in model.network.named_parameters() if n.split(".")[0] in ("resampler", "cross")}
    assert 2 * sum(p.numel() for p in learned.values()) < 12e6  # bytes in float16


def test_it_has_a_card_and_is_never_chosen_by_itself():
    card = rebus.info("flamingo/starter")
    assert (card.extra, card.ready) == ("captions", False)
    assert "flamingo/starter" not in catalog.models_that_can("caption")


@pytest.mark.parametrize("name", ["flamingo/starter", "flamingo/photos"])
def test_missing_packages_name_the_extra(monkeypatch, name):
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=f'{name} needs the extra "captions"'):
        rebus.load(name)


@needs_packages
@torch.no_grad()
def test_photos_are_captioned_offline_and_texts_alone_stay_the_language_models(model):
    trained = rebus.load("flamingo/photos", device="cpu")
    assert trained.tasks == {"caption", "stream"}
    tokens = trained.processor(texts=["Once upon a time", "The capital of France is"])
    text = {name: tokens[name] for name in ("tokens", "mask")}
    assert torch.equal(trained.network(**text).logits, model.network(**text).logits)
    learned = catalog.checkpoint_folder() / "flamingo_photos" / "learned.safetensors"
    assert learned.stat().st_size <= 12e6
    coffee = [file for file, label in samples() if "coffee" in label]
    if not coffee:
        pytest.skip("scikit-image is not installed")
    assert "cup of coffee" in trained.caption(coffee[0])


def test_the_recipe_begins_with_it_and_keeps_what_was_trained():
    config = recipe("flamingo_photos")
    assert config.start_from == "flamingo/starter"
    assert config.freeze == ("text", "image", "added")
    blocks = PRESETS["starter"].cross.places(PRESETS["starter"].text.config["num_layers"])
    assert len(config.optim.rates) == 2 * len(blocks)
