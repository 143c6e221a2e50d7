"""Flamingo learns from documents of text and images in turn: what is learned, what is not, and several data sets."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import rebus
from rebus.core.errors import UsageError
from rebus.core.labels import IGNORED
from rebus.data.document_batches import learned
from rebus.data.forms import FORMS, MOST_IMAGES, Given
from rebus.data.record import LeftOut, Record
from rebus.objectives import InterleavedLoss, Learner, backward, split
from rebus.recipes import recipe
from rebus.train import train
from rebus.train.config import Watch
from rebus.train.setup import open_data, resolved
from tests.models.frozen_lm.joined import TOKENIZER, joined

END, IMAGE = TOKENIZER.vocab_size, TOKENIZER.vocab_size + 1


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flamingo")
    return joined(folder).save(folder / "joined")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Pages in OBELICS' form, and images with captions."""
    pages, pairs = tmp_path_factory.mktemp("pages"), tmp_path_factory.mktemp("pairs")
    names = {}
    for i, colour in enumerate(("red", "green", "blue")):
        Image.new("RGB", (30 + i, 24), colour).save(pages / f"{i}.png")
        Image.new("RGB", (30 + i, 24), colour).save(pairs / f"{i}.png")
        names[f"https://a.example/{i}"] = f"{i}.png"
    (pages / "pictures.json").write_text(json.dumps(names))
    at = list(names)
    rows = [
        {"images": [None, at[0], None, at[1], None], "texts": ["the cat", None, "a red dog", None, "green"]},
        {"images": [at[2], None, None], "texts": [None, "it is", "blue"]},
    ]
    (pages / "pages.jsonl").write_text("\n".join(json.dumps(row) for row in rows * 6) + "\n")
    lines = [{"file": f"{i}.png", "caption": f"a {c} square"} for i, c in enumerate(("red", "green", "blue"))]
    (pairs / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    return {"pages": pages, "pairs": pairs}


def config(name, start, data, **fields):
    made = recipe(name)
    if name == "flamingo_mixture":
        parts = tuple(replace(part, path=str(data[which])) for part, which in zip(made.data.parts, ("pairs", "pages")))
        made = replace(made, data=replace(made.data, parts=parts))
    else:
        made = replace(made, data=replace(made.data, path=str(data["pages"])))
    optim = replace(made.optim, warmup=1, lr=1e-2)
    short = {"steps": 3, "batch_size": 4, "workers": 0, "eval_every": 0, "optim": optim, "watch": Watch(gallery=0)}
    return replace(made, start_from=str(start), **{**short, **fields})


def test_what_is_learned_of_a_document():
    # the cat [image] a red dog [end] [image] green [end], padding is added later
    tokens = [5, 6, IMAGE, 7, 8, 9, END, IMAGE, 10, END, 1]
    none = IGNORED
    assert learned(tokens, [IMAGE], [END]) == [none, none, none, 7, 8, 9, END, none, 10, END, none]
    assert learned(tokens, [4, IMAGE, 4], []) == [none, none, none, 7, 8, 9, END, none, 10, END, 1]


def test_documents_become_chunks_that_begin_with_images(start, data):
    batches = open_data(resolved(config("flamingo_documents", start, data)))
    batch = batches.batch(0, 0, 4)
    words = TOKENIZER.encode
    pages = {
        2: [*words("the cat"), IMAGE, *words("a red dog"), END, IMAGE, *words("green"), END],
        1: [IMAGE, *words("it is blue"), END],
    }
    assert batch["pixels"].shape[:2] == batch["image_mask"].shape
    for tokens, mask, labels, images in zip(batch["tokens"], batch["mask"], batch["labels"], batch["image_mask"]):
        row = tokens[mask].tolist()
        assert row == pages[int(images.sum())]
        after = [*learned(row, [IMAGE], [END])[1:], IGNORED]
        assert labels[mask].tolist() == after
        assert (labels[~mask] == IGNORED).all()


def test_a_long_document_gives_as_many_images_as_are_learned_from_at_once():
    parts = tuple(part for i in range(9) for part in (bytes([i]), f"text {i}"))
    seen = set()
    for seed in range(60):
        rng = np.random.default_rng(seed)
        example = FORMS["documents"].make(Record(key="a", document=("before", *parts)), Given(None, None, rng))
        assert len(example.images) == MOST_IMAGES == example.document.count(None)
        first = example.images[0][0]
        assert example.document[0] == ("before" if first == 0 else None)
        assert [text for text in example.document if text and text != "before"] == [
            f"text {first + i}" for i in range(5)
        ]
        seen.add(first)
    assert seen == {0, 1, 2, 3, 4}
    with pytest.raises(LeftOut, match="without images"):
        FORMS["documents"].make(Record(key="a", document=("words",)), Given(None, None, np.random.default_rng(0)))


@pytest.mark.parametrize("name", ["flamingo_documents", "flamingo_mixture"])
def test_a_run_moves_what_is_new_alone_and_leaves_a_model(name, start, data, tmp_path):
    made = config(name, start, data)
    train(made, tmp_path / "run")
    metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(metrics) == 3
    before, after = rebus.load(start, device="cpu"), rebus.load(tmp_path / "run" / "final", device="cpu")
    for key, tensor in before.state_dict().items():
        same = torch.equal(tensor, after.state_dict()[key])
        assert same == key.startswith(("text.", "image.")), key
    assert after.complete(["the cat ", Image.new("RGB", (24, 24), "red"), "a"], max_new_tokens=2) is not None


def test_a_mixture_adds_up_the_losses_of_its_data_sets_by_weight(start, data, tmp_path):
    made = resolved(config("flamingo_mixture", start, data))
    batch = open_data(made).batch(0, 0, 4)
    assert [weight for weight, _ in batch["mixture"]] == [0.2, 1.0]
    network = rebus.load(start, device="cpu").network
    learner = Learner(InterleavedLoss(), network)
    with torch.no_grad():
        apart = [float(learner(own).total) for _, own in batch["mixture"]]
    train(replace(made, steps=1), tmp_path / "run")
    line = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert line["loss"] == pytest.approx(0.2 * apart[0] + apart[1], rel=1e-4)
    train(replace(made, steps=1, accumulate=2), tmp_path / "parts")
    parts = json.loads((tmp_path / "parts" / "metrics.jsonl").read_text().splitlines()[0])
    assert parts["loss"] == pytest.approx(line["loss"], rel=1e-5)
    assert parts["norm"] == pytest.approx(line["norm"], rel=1e-4)


def test_gradients_of_parts_are_those_of_the_whole_and_weights_count(start, data):
    batch = open_data(resolved(config("flamingo_documents", start, data))).batch(0, 0, 4)
    grads = []
    for parts, weight in ((1, None), (4, None), (2, 0.5)):
        network = rebus.load(start, device="cpu").network
        given = batch if weight is None else {**batch, "weight": torch.tensor(weight)}
        backward(Learner(InterleavedLoss(), network), split(given, parts))
        grads.append(network.cross[0].attn_gate.grad / (weight or 1.0))
    torch.testing.assert_close(grads[1], grads[0], atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(grads[2], grads[0], atol=1e-6, rtol=1e-4)


def test_what_cannot_be_learned_is_refused(start, data):
    from rebus.objectives import SoftmaxLoss

    with pytest.raises(UsageError, match="not a sum over examples"):
        open_data(replace(resolved(config("flamingo_mixture", start, data)), objective=SoftmaxLoss()))
