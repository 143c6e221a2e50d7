"""The tasks on real networks, tiny and untrained: rows equal single results, and every verb answers."""

from dataclasses import replace

import pytest
import torch

from rebus.api import Model
from rebus.catalog import info
from rebus.codec.images import ImagePipeline
from rebus.codec.processor import Processor
from rebus.codec.text import TextPipeline
from rebus.core.errors import BadText, UnsupportedTask, UsageError
from rebus.models.contrastive import clip
from rebus.models.unified import paligemma
from tests.tasks.fakes import EOS, TOKENIZER, picture


@pytest.fixture(scope="module")
def writer():
    tiny = paligemma.PRESETS["tiny"]
    config = replace(tiny, text=replace(tiny.text, vocab_size=TOKENIZER.vocab_size), image_id=4)
    torch.manual_seed(0)
    network = paligemma.SYSTEM.network(config)
    torch.nn.init.normal_(network.image_proj.weight, std=0.5)
    return _model(network, config, paligemma.SYSTEM, "paligemma/3b-mix-224")


@pytest.fixture(scope="module")
def towers():
    tiny = clip.PRESETS["tiny"]
    text = replace(tiny.text, vocab_size=TOKENIZER.vocab_size)
    config = replace(tiny, text=text, end_id=EOS)
    torch.manual_seed(0)
    spec = replace(clip.SYSTEM.text_spec(config), bos_id=2, eos_id=EOS)
    return _model(clip.SYSTEM.network(config), config, clip.SYSTEM, "clip/b32", spec)


def _model(network, config, system, name, spec=None):
    text = TextPipeline(TOKENIZER, spec or system.text_spec(config))
    processor = Processor(ImagePipeline(system.image_spec(config), threads=1), text)
    return Model(network, processor, config=config, card=info(name), system=system)


PICTURES = [picture(colour, size) for colour in ("red", "green", "blue") for size in ((20, 10), (9, 30), (33, 24))]
QUESTIONS = ["what colour is this", "the very very very red cat ?", "dog"] * 3


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"strategy": "sample", "seed": 3},
        {"strategy": "beam", "num_beams": 2},
        {"strategy": "contrastive", "alpha": 0.5},
    ],
    ids=str,
)
def test_rows_of_a_mixed_batch_equal_single_results(writer, options):
    options = {"max_new_tokens": 6, **options}
    together = writer.ask(PICTURES, QUESTIONS, **options)
    assert len(set(together)) > 1
    assert together == [writer.ask(p, q, **options) for p, q in zip(PICTURES, QUESTIONS, strict=True)]


def test_a_stream_is_the_caption(writer):
    whole = writer.caption(PICTURES[0], max_new_tokens=8)
    assert "".join(writer.stream("caption", PICTURES[0], max_new_tokens=8)) == whole


def test_a_writer_classifies_as_its_full_forward_does(writer):
    labels = ["a red dog", "cat", "a red cat", "very very blue"]
    ranking = writer.classify(PICTURES[3], labels)
    batch = writer.processor(images=[PICTURES[3]] * 4, texts=["caption en"] * 4, targets=labels)
    with torch.no_grad():
        logits = writer(**batch).logits.log_softmax(-1)
    targets = batch["targets"]
    total = (logits.gather(-1, targets.clamp(min=0)[..., None])[..., 0] * (targets >= 0)).sum(1)
    assert dict(ranking) == pytest.approx(dict(zip(labels, total.softmax(0).tolist(), strict=True)), abs=1e-5)


def test_detection_of_an_untrained_model_is_a_list(writer):
    assert isinstance(writer.detect(PICTURES[0], ["cat"], max_new_tokens=12), list)


def test_a_misspelt_option_is_named(writer):
    with pytest.raises(UsageError, match='did you mean "temperature"'):
        writer.caption(PICTURES[0], temprature=1.0)


@pytest.mark.parametrize("pictures, prompts", [(1, 2), (2, 1)])
def test_fault_15_pictures_and_their_marks_must_agree(writer, pictures, prompts):
    batch = writer.processor(images=PICTURES[:2], texts=["caption en"] * 2)
    with pytest.raises(BadText, match=rf"{prompts} prompts for {pictures} rows of images"):
        writer.generate(
            pixels=batch["pixels"][:pictures], tokens=batch["tokens"][:prompts], mask=batch["mask"][:prompts]
        )


def test_fault_15_a_typed_mark_is_no_picture(writer):
    assert isinstance(writer.ask(PICTURES[0], "<image> <image> what is this", max_new_tokens=2), str)


def test_towers_embed_match_and_classify(towers):
    vectors = towers.embed_images(PICTURES)
    torch.testing.assert_close(vectors[4:5], towers.embed_images(PICTURES[4]))
    scores = towers.match(PICTURES, ["a red cat", "dog"])
    assert scores.shape == (9, 2)
    rankings = towers.classify(PICTURES, ["red", "green", "blue"], "cifar10")
    assert rankings[2].labels == towers.classify(PICTURES[2], ["red", "green", "blue"], "cifar10").labels


def test_a_task_that_the_model_lacks_names_models_that_can(towers):
    with pytest.raises(UnsupportedTask, match=r"clip/b32 cannot caption; models that can: .*paligemma"):
        towers.caption(PICTURES[0])
