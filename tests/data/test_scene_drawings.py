"""Scenes told and drawn: what a model that writes images is taught, row by row."""

from dataclasses import replace

import pytest
import torch

from rebus import catalog
from rebus.core.errors import UsageError
from rebus.core.labels import IGNORED
from rebus.data.model_inputs import ModelInputs
from rebus.data.scene_drawings import BEGIN, END, FIRST_CODE, SceneDrawings
from rebus.data.scene_images import SceneImages
from rebus.data.scene_tokenizer import BOS, EOS, IMAGE
from rebus.data.scenes import parse_caption
from rebus.data.scenes.reader import scene_at
from rebus.recipes import recipe
from rebus.train import override
from rebus.train.audit import audit, audit_words
from rebus.train.setup import open_data

SMALL = ("model.text.width=32", "model.text.head_width=8", "model.text.num_layers=1", "model.text.mlp_width=32")
EACH = 144


@pytest.fixture(scope="module")
def config():
    return override(recipe("chameleon_scenes"), [*SMALL, "starts=[]"])


@pytest.fixture(scope="module")
def drawn(config):
    """A batch of each kind: captions, images, documents."""
    found = {}
    for kind in ("caption", "imagine", "documents"):
        odds = {name: float(name == kind) for name in ("caption", "imagine", "documents")}
        data = replace(config.data, **odds)
        found[kind] = open_data(replace(config, data=data)), open_data(replace(config, data=data)).batch(0, 3, 8, "val")
    return found


def rows(batch):
    """The real tokens of each prompt, and of each answer."""
    prompts = [tokens[mask].tolist() for tokens, mask in zip(batch["tokens"], batch["mask"], strict=True)]
    return list(zip(prompts, [row[row != IGNORED].tolist() for row in batch["targets"]], strict=True))


IMAGE_ROW = [BEGIN, *[IMAGE] * EACH, END]


def test_captions_follow_their_image_and_the_prompt(drawn):
    batches, batch = drawn["caption"]
    text = batches.processor.text
    assert batch["pixels"].shape == (8, 3, 48, 48)
    for number, (prompt, answer) in enumerate(rows(batch)):
        s = scene_at(0, 24 + number, "val", 96, 1 + number % 2)
        assert prompt[: len(IMAGE_ROW) + 1] == [BOS, *IMAGE_ROW]
        assert text.decode([prompt])[0] == "describe the image."
        assert prompt[-1] == text.tokenizer.id_of("<reserved08706>")
        assert answer[-1] == EOS
        assert text.decode([answer])[0] == s.captions[0]


def test_images_follow_what_asks_for_them(drawn):
    batches, batch = drawn["imagine"]
    text, asked = batches.processor.text, []
    for prompt, answer in rows(batch):
        assert (prompt[0], answer) == (BOS, [*IMAGE_ROW, EOS])
        asked.append(text.decode([prompt])[0])
    full = sum(parse_caption(one) is not None for one in asked)
    named = sum(one.startswith(("a ", "an ")) for one in asked)
    assert full + named + asked.count("") == 8
    assert min(full, named) > 0


def test_documents_name_and_show_two_objects_in_turn(drawn):
    batches, batch = drawn["documents"]
    text = batches.processor.text
    assert batch["pixels"].shape == (4, 2, 3, 48, 48)
    for prompt, answer in rows(batch):
        first, second = answer.index(BEGIN), len(answer) - 1 - len(IMAGE_ROW)
        one, other = text.decode([answer[:first], answer[first + len(IMAGE_ROW) : second]])
        assert answer[second:] == [*IMAGE_ROW, EOS]
        assert answer[first : first + len(IMAGE_ROW)] == IMAGE_ROW
        assert text.decode([prompt])[0] == f"what is {one} and {other} like?"


@pytest.mark.parametrize("kind", ["caption", "imagine", "documents"])
def test_rows_are_learned_with_the_codes_of_their_own_images(drawn, config, kind):
    batches, batch = drawn[kind]
    audit(batch, batches.processor)
    audit_words(batches.texts(0, 3, 8), batches.processor)
    torch.manual_seed(0)
    network = catalog.system("chameleon").build(config.model)
    torch.nn.init.normal_(network.image.codebook)
    inputs = {name: tensor for name, tensor in batch.items() if name in ("pixels", "tokens", "mask", "targets")}
    made = network(**inputs)
    assert config.objective(network, batch).total.isfinite()
    if kind == "caption":
        assert torch.equal(made.targets, batch["targets"])
        return
    codes = network.image.encode(batch["pixels"].flatten(0, -4)) + FIRST_CODE
    assert made.targets[batch["targets"] == IMAGE].tolist() == codes.flatten().tolist()
    assert len(codes.unique()) > 5


def test_codes_stay_float32_where_frozen_matrices_are_rounded(config):
    from rebus.nn.frozen import round_frozen

    network = catalog.system("chameleon").build(config.model)
    network.requires_grad_(False)
    round_frozen(network)
    assert {p.dtype for p in network.image.parameters()} == {torch.float32}
    assert network.text.blocks[0].mlp.up.weight.dtype == torch.bfloat16


def test_images_alone_come_as_the_model_wants_them(config):
    batches = open_data(override(recipe("chameleon_scenes_codes_32"), []))
    batch = batches.batch(0, 2, 4, "val")
    assert batch.keys() == {"pixels"}
    again = batches.processor(images=[scene_at(0, 8 + i, "val", 96).image for i in range(4)])["pixels"]
    assert torch.equal(batch["pixels"], again)
    assert batch["pixels"].shape == (4, 3, 32, 32)


def test_models_that_cannot_learn_from_it_are_told_why(config):
    system = catalog.system("chameleon")
    inputs = ModelInputs(
        system="chameleon",
        text=system.text_spec(config.model),
        image=system.image_spec(config.model),
        image_tokens=system.image_tokens(replace(config.model, begin_id=6, end_id=5)),
        prompts=system.prompts,
    )
    with pytest.raises(UsageError, match="tokens 5 and 6 begin and end the images of scenes"):
        SceneDrawings().open(inputs)
    with pytest.raises(UsageError, match=r"does not generate images, which data\.kind='scene drawings' requires"):
        SceneDrawings().open(replace(inputs, image_tokens=None))
    with pytest.raises(UsageError, match=r"chameleon reads no images, which data\.kind='scene images' consists of"):
        SceneImages().open(replace(inputs, image=None))
