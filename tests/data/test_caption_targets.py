"""What image encoders learn from in place of whole captions, on disk, and that a network learns from it."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from rebus.codec.images import ImagePipeline
from rebus.codec.processor import Processor
from rebus.codec.text import TextPipeline
from rebus.codec.tokenizers import word_level_tokenizer
from rebus.core.errors import UsageError
from rebus.core.labels import IGNORED
from rebus.core.specs import Prompts
from rebus.data.file_records import Files, file_batches
from rebus.models.prefix_lm.virtex import PRESETS, VirTex, image_spec, text_spec
from rebus.objectives import BothWaysLoss, LabelSetLoss

WORDS = "a an the red blue green cat dog bird on in of and with mat house tree big small old new wet dry two".split()
CAPTION = " ".join(WORDS[:20])
TINY = PRESETS["tiny"]
MASK = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where, rows = tmp_path_factory.mktemp("photos"), []
    boxes = [
        [],
        [{"label": "cat", "xyxy": [0, 0, 4, 4]}] * 2,
        [{"label": n, "xyxy": [0, 0, 4, 4]} for n in ("dog", "cat")],
    ]
    for i in range(6):
        Image.fromarray(np.full((64, 64, 3), 40 * i, np.uint8)).save(where / f"{i}.png")
        rows.append({"file": f"{i}.png", "caption": CAPTION, "boxes": boxes[i % 3]})
    (where / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return where


def batches(folder, form, control="[MASK]"):
    tokenizer = word_level_tokenizer(WORDS, ("<unk>", "[SOS]", "[EOS]", control))
    cfg = replace(TINY, text=replace(TINY.text, vocab_size=tokenizer.vocab_size))
    processor = Processor(ImagePipeline(image_spec(cfg), threads=1), TextPipeline(tokenizer, text_spec(cfg)))
    return file_batches(
        Files(path=str(folder), form=form, val_split=None), processor, Prompts(caption=""), measured=False
    )


def test_masked_words_alone_are_asked_for(folder):
    data = batches(folder, "masked caption")
    whole = torch.tensor([1, *(4 + i for i in range(20)), 2])
    others = kept = asked = 0
    for index in range(40):
        batch = data.batch(0, index, 4)
        masked = batch["targets"] != IGNORED
        assert (batch["tokens"][masked] == MASK).all()
        assert torch.equal(torch.where(masked, batch["targets"], 0), torch.where(masked, whole, 0))
        assert not masked[:, [0, -1]].any(), "the first token and the last are never masked"
        changed = (batch["tokens"] != whole).sum(dim=1)
        assert (changed <= 3).all(), "a sixth of twenty words, rounded up"
        asked += int(masked.sum())
        others += int((changed - masked.sum(dim=1)).sum())
        kept += int((3 - changed).sum())
    assert 0.8 < asked / 480 < 0.9
    assert 0.05 < others / 480 < 0.15
    assert 0.02 < kept / 480 < 0.09


def test_a_batch_is_the_same_in_parts(folder):
    data = batches(folder, "masked caption")
    whole, half = data.batch(0, 3, 4), data.batch(0, 3, 4, share=(1, 2))
    assert torch.equal(whole["tokens"][2:], half["tokens"])
    with pytest.raises(UsageError, match="has no \\[MASK\\]"):
        batches(folder, "masked caption", control="[GAP]")


def test_the_set_of_words_has_no_control_tokens(folder):
    batch = batches(folder, "word set").batch(0, 0, 2)
    assert set(batch) == {"pixels", "targets"}
    assert set(batch["targets"].flatten().tolist()) == {IGNORED, *range(4, 24)}


def test_the_labels_of_an_image_are_a_set_and_images_without_any_are_left_out(folder):
    batch = batches(folder, "label set").batch(0, 0, 4)
    assert {tuple(row) for row in batch["targets"].tolist()} == {(1, IGNORED), (1, 2)}


@pytest.mark.parametrize(
    ("form", "head", "loss", "outputs"),
    [
        ("masked caption", "masked words", BothWaysLoss(), 28),
        ("word set", "labels", LabelSetLoss(), 28),
        ("label set", "labels", LabelSetLoss(), 3),
    ],
)
def test_a_network_learns_from_each(folder, form, head, loss, outputs):
    torch.manual_seed(0)
    text = replace(TINY.text, vocab_size=outputs)
    network = VirTex(replace(TINY, head=head, both_ways=False, text=text))
    batch = batches(folder, form).batch(0, 0, 4)
    batch["pixels"] = batch["pixels"].float()
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(15):
        optimiser.zero_grad()
        found = loss(network, batch).total
        found.backward()
        optimiser.step()
        losses.append(float(found.detach()))
    assert losses[-1] < losses[0] - 0.15


def test_a_label_that_has_no_output_is_named(folder):
    batch = batches(folder, "label set").batch(0, 0, 4)
    network = VirTex(replace(TINY, head="labels", both_ways=False, text=replace(TINY.text, vocab_size=2)))
    with pytest.raises(UsageError, match="label 2 has no output: the network has 2"):
        LabelSetLoss()(network, {**batch, "pixels": batch["pixels"].float()})
