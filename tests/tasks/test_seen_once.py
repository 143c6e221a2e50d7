"""An image is encoded once for all that is asked of it, and the answers are those of asking one after another."""

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

import rebus
from rebus.codec.boxes import LOC_1000
from rebus.codec.processor import Processor
from rebus.codec.text import TextPipeline
from rebus.data.scene_tokenizer import BOS, EOS, IMAGE, PAD, scenes_tokenizer
from rebus.data.scenes import scene
from rebus.models.unified.florence2 import PRESETS

LABELS = ["circle", "red square", "star", "cross", "heart", "diamond", "triangle", "blue star", "white cross"]


@pytest.fixture(scope="module")
def model():
    """Random weights; image and text are of the scenes world."""
    torch.manual_seed(0)
    tokenizer = scenes_tokenizer(spoken=(*LOC_1000.control_tokens, "<poly>", "</poly>", "<sep>"))
    ids = {"pad_id": PAD, "bos_id": BOS, "eos_id": EOS, "start_id": EOS, "vocab_size": tokenizer.vocab_size}
    tiny = PRESETS["tiny"]
    cfg = replace(tiny, text=replace(tiny.text, **ids), image_id=IMAGE)
    made = rebus.create("florence2/base", **asdict(cfg))
    for parameter in made.network.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    made.processor = Processor(made.processor.image, TextPipeline(tokenizer, made.system.text_spec(cfg)))
    return made


@pytest.fixture
def seen(model, monkeypatch):
    """How many images each call of the image encoder had."""
    counts, see = [], model.network.see
    monkeypatch.setattr(model.network, "see", lambda pixels: counts.append(len(pixels)) or see(pixels))
    return counts


def options(model, strategy):
    """Locations alone, so that there are boxes."""
    allowed = [model.processor.text.tokenizer.id_of(token) for token in LOC_1000.control_tokens]
    return {"allowed": allowed, "max_new_tokens": 14, "strategy": strategy, "no_repeat_ngram_size": 1}


@pytest.mark.parametrize("strategy", ["greedy", "beam"])
def test_detection_of_many_labels(model, seen, strategy):
    images, how = [scene(i, "val").image for i in range(2)], options(model, strategy)
    together = model.detect(images, LABELS, **how)
    assert seen == [2]  # the likelihood of what beams found included
    alone = [[box for label in LABELS for box in model.detect(image, [label], **how)] for image in images]
    for boxes, wanted in zip(together, alone, strict=True):
        assert boxes
        wanted.sort(key=lambda box: -box.score)
        assert [box.label for box in boxes] == [box.label for box in wanted]
        np.testing.assert_allclose([box.xyxy for box in boxes], [box.xyxy for box in wanted])
        np.testing.assert_allclose([box.score for box in boxes], [box.score for box in wanted], rtol=1e-4)


def test_segmentation_of_many_phrases(model, seen):
    image, how = scene(0, "val").image, options(model, "greedy")
    together = model.segment(image, LABELS[:8], **how)
    assert seen == [1]
    for masks, phrase in zip(together, LABELS, strict=False):
        (wanted,) = model.segment(image, phrase, **how)
        (mask,) = masks
        assert mask.label == phrase
        assert np.array_equal(mask.mask, wanted.mask)
        assert mask.score == pytest.approx(wanted.score, rel=1e-4)


def test_questions_share_an_image_by_identity_alone(model, seen):
    one, same = scene(0, "val").image, scene(0, "val").image
    model.perform([one, same, one], "<CAPTION>", max_new_tokens=2)
    assert seen == [2]
