"""A release of OpenFlamingo in files: what was trained, a language model and CLIP, each from its own directory."""

from dataclasses import replace

import pytest
import torch

import rebus
from rebus import catalog
from rebus.backbones.text import mpt
from rebus.codec.images import ImagePipeline
from rebus.codec.processor import Processor
from rebus.codec.text import TextPipeline
from rebus.core.card import ModelCard
from rebus.core.errors import BadCheckpoint, BadConfig
from rebus.models.contrastive import clip
from rebus.models.frozen_lm import flamingo_config, openflamingo
from rebus.models.frozen_lm.flamingo_config import PRESETS, part
from rebus.open_checkpoint import open_checkpoint
from rebus.save_checkpoint import save_checkpoint
from tests.models.frozen_lm.joined import TOKENIZER
from tests.models.frozen_lm.test_flamingo import load_release, released

FIRST = TOKENIZER.vocab_size


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The three directories, and what the whole is to be."""
    folder = tmp_path_factory.mktemp("release")
    cfg, tensors = released("mpt", first=FIRST, vocab_size=FIRST + 2)
    text = replace(mpt.PRESETS["tiny"], num_layers=4, vocab_size=FIRST + 2)
    assert cfg.text == part("mpt", text)
    network = load_release(cfg, tensors)
    (folder / "trained").mkdir()
    torch.save({"model_state_dict": tensors}, folder / "trained" / "checkpoint.pt")
    own = {name.removeprefix("text."): t for name, t in network.state_dict().items() if name.startswith("text.")}
    words = Processor(None, TextPipeline(TOKENIZER, mpt.text_spec(text)))
    save_checkpoint(folder / "text", mpt.SYSTEM.layouts["transformers"], text, own, processor=words)
    image = network.image.cfg
    dual = replace(clip.PRESETS["tiny"], image=image)
    torch.manual_seed(0)
    encoder = clip.CLIP(dual)
    encoder.image.load_state_dict(network.image.state_dict())
    seen = Processor(ImagePipeline(clip.SYSTEM.image_spec(dual)), None)
    save_checkpoint(folder / "image", clip.SYSTEM.layouts["transformers"], dual, encoder.state_dict(), processor=seen)
    return folder, cfg, network


def card(folder, **parts):
    named = {name: str(folder / name) for name in ("trained", "text", "image")} | parts
    row = catalog.SYSTEMS["flamingo"]
    shared = {"family": row.family, "idea": "", "paper": "", "tasks": row.tasks, "license": "", "released": True}
    return ModelCard(
        name="flamingo/open-tiny", system="flamingo", preset="open_3b", parameters=0, parts=named, **shared
    )


@pytest.fixture
def known(files, monkeypatch):
    """The catalogue with this release in it."""
    folder, cfg, _ = files
    monkeypatch.setitem(flamingo_config.PRESETS, "open_3b", cfg)
    monkeypatch.setitem(catalog.ROWS, "flamingo/open-tiny", card(folder))
    return monkeypatch


@torch.no_grad()
def test_a_release_is_put_over_its_language_model_and_clip(files, known):
    _, cfg, network = files
    model = rebus.load("flamingo/open-tiny", device="cpu")
    assert model.config == cfg
    for name, tensor in network.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
    text = model.processor.text
    assert text.spec.eos_id == FIRST
    assert text.tokenizer.id_of("<PAD>") == FIRST + 2
    batch = model.processor(images=[torch.rand(3, 30, 40)], texts=["the cat"])
    assert batch["tokens"].tolist() == [[FIRST + 1, *TOKENIZER.encode("the cat")]]


def test_what_was_trained_alone_is_no_model_and_says_what_is(files, known):
    folder = files[0]
    opened = open_checkpoint(folder / "trained")
    assert (opened.system.name, opened.layout.name) == ("flamingo", "openflamingo")
    with pytest.raises(BadCheckpoint, match=r"Load it by a name that includes these: .*flamingo/open-3b"):
        rebus.load(folder / "trained", device="cpu")


def test_another_language_model_is_refused(files, known, tmp_path):
    folder = files[0]
    other = replace(mpt.PRESETS["tiny"], num_layers=4, vocab_size=FIRST + 2, bias_max=4)
    network = mpt.MPT(other)
    save_checkpoint(tmp_path / "other", mpt.SYSTEM.layouts["transformers"], other, network.state_dict())
    known.setitem(catalog.ROWS, "flamingo/open-tiny", card(folder, text=str(tmp_path / "other")))
    with pytest.raises(BadConfig, match="differs in bias_max"):
        rebus.load("flamingo/open-tiny", device="cpu")


def test_a_file_without_the_vectors_of_new_tokens_is_refused():
    cfg, tensors = released("mpt", first=FIRST)
    ours = openflamingo.keys(cfg).to_ours(tensors)
    table = ours.pop("table.transformer.wte.weight")
    with pytest.raises(BadCheckpoint, match=r"no vectors of <.endofchunk.>"):
        openflamingo.learned(cfg, ours, "a file")
    with pytest.raises(BadCheckpoint, match=f"new ones from {FIRST}"):
        openflamingo.learned(cfg, {**ours, "table.transformer.wte.weight": table.between(0, FIRST)}, "a file")
    assert PRESETS["tiny"].image_id == 97
