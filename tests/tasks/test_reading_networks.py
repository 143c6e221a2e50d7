"""Networks that read image and text together, at the tasks: whole tiny models, on images and on region features."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import rebus
from rebus import catalog
from rebus.api import Model
from rebus.codec.images import ImagePipeline
from rebus.codec.processor import Processor
from rebus.codec.regions import ImageRegions
from rebus.codec.text import TextPipeline
from rebus.codec.tokenizers import word_level_tokenizer
from rebus.core.box_overlap import box_iou
from rebus.core.card import ModelCard
from rebus.core.errors import BadImage, BadRegions, BadText, NotFinite, UnsupportedTask, UsageError
from rebus.core.specs import ImageSpec
from rebus.data.scenes import scene
from tests.tasks.fakes import picture
from tests.tiny import WORDS

SYSTEM = catalog.system("visualbert")
ANSWERS = ["<unk>", "red", "blue", "green", "cat", "dog", "yes", "no", "left", "right", "large"]


def model(preset, **changes):
    cfg = replace(SYSTEM.presets[preset], **changes)
    torch.manual_seed(0)
    network = SYSTEM.network(cfg).eval()
    for p in network.parameters():
        if p.ndim > 1:
            torch.nn.init.normal_(p, std=0.4)
    specials = ("<pad>", "<eos>", "<bos>", "<unk>", "[MASK]")
    rest = [f"word{i}" for i in range(cfg.text.vocab_size - len(specials) - len(WORDS) - 1)]
    tokenizer = word_level_tokenizer([*WORDS, "?", *rest], specials)
    text = TextPipeline(tokenizer, replace(SYSTEM.text_spec(cfg), bos_id=2, eos_id=1))
    spec = SYSTEM.image_spec(cfg)
    processor = Processor(None if spec is None else ImagePipeline(spec), text, reads_regions=spec is None)
    row = catalog.SYSTEMS["visualbert"]
    card = ModelCard(
        name="tiny", system="visualbert", family="", preset=preset, parameters=0, idea="", paper="",
        tasks=SYSTEM.tasks(cfg) & row.tasks, license="",
    )  # fmt: skip
    return Model(network, processor, config=cfg, card=card, system=SYSTEM, companions={"answers": ANSWERS})


def regions(number, width=14, size=(40, 30), seed=0):
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 10, (number, 2))
    return ImageRegions(rng.normal(size=(number, width)), np.concatenate([low, low + 8], 1), size, f"r{seed}")


def test_questions_are_answered_from_the_list_by_images_and_by_features():
    asked = model("tiny_grid")
    images, questions = [picture("red"), picture("blue"), picture("green")], ["what is this?", "is a cat left", "what"]
    together = asked.ask(images, questions)
    assert together == [asked.ask(image, question) for image, question in zip(images, questions, strict=True)]
    assert set(together) <= set(ANSWERS[1:])
    seen = [regions(3), regions(5, seed=1)]
    found = model("tiny_answers").ask(seen, "what is this?")
    assert found == [model("tiny_answers").ask(one, "what is this?") for one in seen]


def test_a_question_mark_more_or_less_is_the_same_question():
    asked = model("tiny_answers")
    batch = [asked.network.answer_logits(**asked.processor(images=[regions(3)], texts=[p])) for p in (
        asked_prompt("what is this?"), asked_prompt("what is this"))]  # fmt: skip
    assert torch.equal(*batch)


def asked_prompt(question):
    from rebus.codec.text import filled_prompt

    return filled_prompt(SYSTEM.prompts, "ask", question=question)


def test_matches_are_probabilities_of_each_pair():
    matched = model("tiny")
    images, texts = [regions(3), regions(5, seed=1)], ["a red cat", "the dog is left", "a photo"]
    found = matched.match(images, texts)
    assert found.shape == (2, 3)
    assert ((found > 0) & (found < 1)).all()
    alone = torch.cat([torch.cat([matched.match(i, t) for t in texts], 1) for i in images])
    torch.testing.assert_close(found, alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(matched.logits(images, texts).sigmoid(), found)
    torch.testing.assert_close(matched.probabilities(images, texts), found)
    with pytest.raises(BadText, match="text 1 must be a text that is not empty"):
        matched.match(images, ["a", " "])


def test_a_statement_about_two_images():
    judge = model("tiny_verdict")
    one, two = regions(3), regions(5, seed=1)
    left, right = judge.match([[one, two]], "a red cat"), judge.match([[two, one]], "a red cat")
    assert left.shape == (1, 1)
    assert abs(float(left - right)) > 1e-4  # which is the first matters


def test_phrases_are_boxed_in_pixels_of_the_image():
    grounded = model("tiny_phrases", region_width=20)
    seen = regions(4)
    boxes = grounded.detect(seen, ["a red cat", "the dog"])
    assert {box.label for box in boxes} == {"a red cat", "the dog"}
    assert boxes[0].score >= boxes[1].score
    for box in boxes:
        assert np.abs(seen.boxes - np.array(box.xyxy)).max(axis=1).min() < 1e-3
    many = grounded.detect([seen, regions(2, seed=1)], ["the dog"])
    assert [len(found) for found in many] == [1, 1]
    with pytest.raises(BadRegions, match="the size of the image is not known"):
        grounded.detect(ImageRegions(np.ones((2, 14))), ["cat"])
    with pytest.raises(UsageError, match="num_beams has no meaning"):
        grounded.detect(seen, ["cat"], num_beams=2)


def test_phrases_in_an_image_are_boxed_by_its_grid():
    grounded = model("tiny_grid", head="phrases", num_answers=3129, region_width=20)
    (box,) = grounded.detect(picture("red"), ["cat"])
    width, height = picture("red").size
    sides = np.array(box.xyxy) / (width, height, width, height) * 3
    np.testing.assert_allclose(sides, sides.round(), atol=1e-3)


def test_faults_are_named():
    with pytest.raises(BadRegions, match="takes region features"):
        model("tiny_answers").ask(picture("red"), "what?")
    with pytest.raises(BadRegions, match="features of a region are 9 wide; this network was trained with 14"):
        model("tiny_answers").ask(regions(3, width=9), "what?")
    with pytest.raises(BadImage, match="mixed"):
        model("tiny_grid").ask([picture("red"), regions(3)], "what?")
    with pytest.raises(UnsupportedTask):
        model("tiny").ask(regions(3), "what?")
    skipped = model("tiny_answers").ask([regions(3), regions(3, width=9)], "what?", batch_size=1, on_error="skip")
    assert skipped[0] in ANSWERS
    assert skipped[1] is None


def test_fault_39_answers_that_are_not_numbers_fail():
    for preset, ask in (
        ("tiny_answers", lambda m: m.ask(regions(3), "what?")),
        ("tiny", lambda m: m.match(regions(3), "a cat")),
        ("tiny_phrases", lambda m: m.detect(regions(3), ["cat"])),
    ):
        spoilt = model(preset)
        with torch.no_grad():
            spoilt.network.region_proj.weight.fill_(torch.nan)
        with pytest.raises(NotFinite, match="is NaN or infinite"):
            ask(spoilt)


def test_regions_of_one_network_are_read_by_another():
    vit = catalog.system("vit")
    cfg = replace(SYSTEM.presets["tiny_grid"].image, class_token=True)
    torch.manual_seed(0)
    spec = ImageSpec(size=(24, 24), resize="shorter")
    card = ModelCard(name="v", system="vit", family="", preset="", parameters=0, idea="", paper="",
                     tasks=catalog.BACKBONES["vit"].tasks, license="")  # fmt: skip
    seer = Model(vit.network(cfg).eval(), Processor(ImagePipeline(spec), None), config=cfg, card=card, system=vit)
    images = [picture("red"), picture("blue")]
    seen = seer.embed_regions(images)
    assert [one.size for one in seen] == [image.size for image in images]
    assert seen[0].features.shape == (9, 14)
    np.testing.assert_allclose(seen[0].boxes.max(axis=0)[2:], images[0].size)
    reader = model("tiny_answers")
    assert reader.ask(seen, "what is this?") == [reader.ask(one, "what is this?") for one in seen]


def test_regions_of_a_mask_rcnn_are_read_phrases_are_boxed_in_them():
    detector = rebus.load("vild/scenes", device="cpu")
    s = scene(3, "test")
    seen = detector.embed_regions(s.image)
    assert seen.size == s.image.size
    width = seen.features.shape[1]
    reader = model("tiny_answers", region_width=width)
    assert reader.ask(seen, "what is this?") in ANSWERS
    (box,) = model("tiny_phrases", region_width=width + 6).detect(seen, ["cat"])
    assert min(np.abs(np.array(box.xyxy) - one).max() for one in seen.boxes) < 1e-2
    best = max(box_iou(tuple(box), s.boxes[0]) for box in seen.boxes.tolist())
    assert best > 0.5, "one of its regions is the first thing"
