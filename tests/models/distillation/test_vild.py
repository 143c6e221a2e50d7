"""ViLD: the published sizes, detection as the reference does it, words handed to it at run time."""

import math
from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from torchvision.ops import nms

import rebus
from rebus.codec.text import TextPipeline
from rebus.codec.tokenizers import word_level_tokenizer
from rebus.core.config import to_dict
from rebus.core.errors import BadConfig, BadText, LimitExceeded, MissingFile, NotFinite, UsageError
from rebus.models.contrastive.clip import PRESETS as CLIP
from rebus.models.distillation.vild import PRESETS, ViLD, take_text_encoder, text_spec
from tests import tiny as tiny_models


def network(preset, seed=0, **changes):
    torch.manual_seed(seed)
    made = ViLD(replace(PRESETS[preset], **changes)).eval()
    torch.nn.init.normal_(made.image.deltas.weight, std=0.3)
    torch.nn.init.normal_(made.image.rpn.logits.weight, std=0.3)
    return made


def unit(number, width=16):
    return F.normalize(torch.randn(number, width), dim=-1)


@pytest.mark.parametrize(
    ("preset", "number"),
    [
        ("resnet50", 48_051_284),
        ("resnet152", 82_687_060),
        ("resnet50_ensemble", 64_838_228),
        ("resnet152_ensemble", 99_474_004),
    ],
)
def test_the_published_sizes(preset, number):
    with torch.device("meta"):
        made = ViLD(PRESETS[preset])
    assert sum(p.numel() for p in made.parameters()) == number
    assert sum(p.numel() for p in made.project.parameters()) == 524_800


@torch.no_grad()
def test_probabilities_with_a_background():
    made, embeddings, labels = network("tiny"), unit(5), unit(3)
    background = made.background[0] / made.background[0].norm()
    for row, found in zip(embeddings, made.probabilities(embeddings, labels), strict=True):
        logits = [100 * float(row @ one) for one in (background, *labels)]
        total = sum(math.exp(x - max(logits)) for x in logits)
        assert found.tolist() == pytest.approx([math.exp(x - max(logits)) / total for x in logits[1:]], abs=1e-5)


def test_the_ensemble_is_a_geometric_mean_that_leans_on_what_was_learnt_from_boxes():
    made, labels = network("tiny_ensemble"), unit(4)
    embeddings, copied = unit(6), unit(6)
    base = torch.tensor([True, False, True, False])
    found = made.probabilities(embeddings, labels, copied, base)
    text = made.class_logits(embeddings, labels).softmax(-1)[:, 1:]
    image = (100 * copied @ labels.T).softmax(-1)
    for column, known in enumerate(base.tolist()):
        factors = (text, text, image) if known else (text, image, image)  # the reference's cube root of three
        wanted = (factors[0] * factors[1] * factors[2])[:, column] ** (1 / 3)
        torch.testing.assert_close(found[:, column], wanted, atol=1e-6, rtol=1e-4)
    novel = made.probabilities(embeddings, labels, copied, torch.zeros(4, dtype=torch.bool))
    assert torch.equal(made.probabilities(embeddings, labels, copied), novel)


@pytest.mark.parametrize("preset", ["tiny", "tiny_ensemble"])
def test_detection_equals_the_reference_s_steps(preset):
    made, labels = network(preset), unit(5)
    pixels, base = torch.randn(1, 3, 64, 64), torch.tensor([True, False, False, True, True])
    (found,) = made.find_regions(pixels, labels, base=base)
    with torch.no_grad():
        maps = made.features(pixels)
        boxes = made.image.proposals(made.image.rpn_outputs(maps), (64, 64)).boxes
        embeddings, deltas = made.region_embeddings(maps, boxes)
        copied = made.image_embeddings(maps, boxes) if preset == "tiny_ensemble" else None
        scores = made.probabilities(embeddings, labels, copied, base)
        moved = []
        for (x1, y1, x2, y2), (dy, dx, dh, dw) in zip(boxes[0].tolist(), deltas.tolist(), strict=True):
            h, w = y2 - y1 + 1, x2 - x1 + 1
            yc, xc = y1 + h / 2 + dy / 10 * h, x1 + w / 2 + dx / 10 * w
            h, w = (n * math.exp(min(d / 5, math.log(1000 / 16))) for n, d in ((h, dh), (w, dw)))
            corners = xc - w / 2, yc - h / 2, xc + w / 2 - 1, yc + h / 2 - 1
            moved.append([min(max(corner, 0), 63) for corner in corners])
        moved = torch.tensor(moved)
        wanted = []
        for label in range(5):
            for i in nms(moved, scores[:, label], 0.5).tolist():
                wanted.append((float(scores[i, label]), i, label))
        wanted = sorted(wanted, reverse=True)[: made.cfg.num_detections]
        kept = moved[[i for _, i, _ in wanted]]
        masks = made.image.mask_logits(maps, [kept]).sigmoid()
    assert found.labels.tolist() == [label for _, _, label in wanted]
    torch.testing.assert_close(found.scores, torch.tensor([score for score, _, _ in wanted]))
    torch.testing.assert_close(found.boxes * 64, kept, atol=1e-3, rtol=0)
    torch.testing.assert_close(found.masks, masks, atol=1e-3, rtol=0)


def test_boxes_alone_are_the_same_boxes():
    made, labels, pixels = network("tiny"), unit(5), torch.randn(2, 3, 64, 64)
    for one, other in zip(
        made.find_regions(pixels, labels), made.find_regions(pixels, labels, masks=False), strict=True
    ):
        assert torch.equal(one.boxes, other.boxes)
        assert other.masks is None


def test_other_labels_move_no_box_and_change_no_embedding():
    """What an image holds is worked out without words: a vocabulary may change from call to call."""
    made, pixels = network("tiny", num_detections=1000), torch.randn(1, 3, 64, 64)
    boxes = [{tuple(box) for box in made.find_regions(pixels, unit(n))[0].boxes.tolist()} for n in (1, 3)]
    assert boxes[0] <= boxes[1] | boxes[0]
    assert boxes[0] & boxes[1]


@pytest.mark.parametrize(
    "change",
    [{"temperature": 0.0}, {"temperature": math.nan}, {"text_share": 1.5}, {"num_detections": 0}, {"embed": 0}],
)
def test_fault_39_impossible_settings_are_refused(change):
    with pytest.raises(BadConfig, match=f"{next(iter(change))}: expected a number"):
        replace(PRESETS["tiny"], **change)


@pytest.mark.parametrize("change", [{"image_size": 0}, {"anchor_scale": -1.0}, {"num_proposals": 0}, {"width": 0}])
def test_fault_39_impossible_sizes_of_the_detector_are_refused(change):
    with pytest.raises(BadConfig, match=f"{next(iter(change))}: expected a number above 0"):
        replace(PRESETS["tiny"].image, **change)
    with pytest.raises(LimitExceeded, match="MAX_INPUT_SIDE"):
        replace(PRESETS["tiny"].image, image_size=1_000_000)


@pytest.mark.parametrize(
    "part", ["image.backbone.net.conv1.weight", "image.rpn.deltas.weight", "image.deltas.bias", "project.weight"]
)
def test_fault_39_what_is_not_a_number_is_no_answer(part):
    made = model()
    with torch.no_grad():
        made.network.get_parameter(part).fill_(torch.nan)
    with pytest.raises(NotFinite, match="NaN or infinite"):
        made.detect(photo(40, 40), "cat")


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (400, 1), (65, 64)])
def test_fault_5_pictures_of_odd_shapes(size):
    made = model()
    for box in made.detect(photo(*size), ["cat", "dog"]):
        assert 0 <= box.xyxy[0] < box.xyxy[2] <= size[0]
        assert 0 <= box.xyxy[1] < box.xyxy[3] <= size[1]
    for mask in made.segment(photo(*size), "cat"):
        assert mask.mask.shape == size[::-1]


def test_fault_18_labels_that_are_none_are_refused_and_doubles_merged(caplog):
    made = model()
    with pytest.raises(UsageError, match="labels is empty"):
        made.detect(photo(40, 40), [])
    with pytest.raises(BadText, match="not empty"):
        made.detect(photo(40, 40), ["cat", " "])
    with pytest.raises(UsageError, match="labels is empty"):
        made.detect(photo(40, 40), ["cat", []])
    assert made.detect(photo(40, 40), ["cat", "cat"]) == made.detect(photo(40, 40), "cat")
    assert "given more than once" in caplog.text


_SAID = "a an the this is there in scene of photo my one many itap red blue circle cat dog ."
WORDS = [*_SAID.split(), *(f"word{i}" for i in range(60 - len(_SAID.split())))]  # with four special tokens, 64


def model(preset="tiny", **changes):
    """A whole model with a tokenizer of a few words."""
    torch.manual_seed(0)
    made = rebus.create("vild/resnet50", **to_dict(replace(PRESETS[preset], end_id=1, **changes)))
    made.network = network(preset, end_id=1, **changes)
    spec = replace(text_spec(made.config), bos_id=2, eos_id=1, read_at=1)
    made.processor.text = TextPipeline(word_level_tokenizer(WORDS), spec)
    return made


def photo(width, height, seed=0):
    values = torch.randint(0, 256, (height, width, 3), generator=torch.Generator().manual_seed(seed))
    return Image.fromarray(values.to(torch.uint8).numpy())


def test_words_are_given_with_the_question():
    made = model()
    assert made.tasks == {"embed_regions", "embed_texts", "detect", "segment"}
    image = photo(90, 60)
    boxes = made.detect(image, ["red circle", "cat"])
    assert {box.label for box in boxes} <= {"red circle", "cat"}
    assert all(0 <= box.xyxy[0] < box.xyxy[2] <= 90 and 0 <= box.xyxy[1] < box.xyxy[3] <= 60 for box in boxes)
    find = made.detector(["red circle", "cat"])
    assert find(image) == boxes
    together = find([image, photo(30, 80)])[0]
    assert [box.label for box in together] == [box.label for box in boxes]
    assert [box.score for box in together] == pytest.approx([box.score for box in boxes], abs=1e-5)
    (mask, *_) = made.segment(image, "red circle")
    assert mask.mask.shape == (60, 90)


def test_half_precision_places_boxes_in_float32():
    made = model()
    after = made.to(torch.bfloat16).detect(photo(60, 40), ["cat", "dog", "red circle"])
    assert len(after) > 1
    assert any(x != torch.tensor(x).bfloat16().item() for box in after for x in box.xyxy), "not rounded to bfloat16"
    assert made.segment(photo(60, 40), "cat")[0].mask.shape == (40, 60)


def test_other_words_cost_the_text_encoder_alone():
    made = model()
    find, image = made.detector(["red circle", "cat"]), photo(60, 40)
    first, other = find(image), photo(40, 60)
    wanted = made.detect(image, ["dog"])
    look, looked = made.network.look, []
    made.network.look = lambda pixels: looked.append(len(pixels)) or look(pixels)
    again = find.asking("dog")
    assert again(image) == wanted
    assert find(image) == first
    assert not looked
    assert again(other) == made.detect(other, "dog")
    assert looked == [1, 1]
    made.segment(image, ["dog", "cat", "red circle"])
    assert looked == [1, 1, 1], "three phrases about one image"


def test_base_labels_are_told_by_their_names():
    """One label, which the text head alone knows from boxes, in any spelling."""
    known, other = (model("tiny_ensemble", base=base) for base in (("Red_Circle",), ()))
    asked = []
    for made in (known, other):
        real = made.network.name_regions
        made.network.name_regions = lambda *a, real=real, **k: asked.append(k.get("base")) or real(*a, **k)
        made.detect(photo(40, 40), ["a cat", "red circle", ["dog", "red_circle"]])
    assert asked[0].tolist() == [False, True, True]
    assert asked[1] is None
    assert known.detect(photo(40, 40), "red circle") != other.detect(photo(40, 40), "red circle")
    assert known.detect(photo(40, 40), "dog") == other.detect(photo(40, 40), "dog")


def test_a_detector_takes_the_text_encoder_of_its_teacher(tmp_path):
    made, teacher = model(text=None), rebus.create("clip/b32", **to_dict(replace(CLIP["tiny"], end_id=1)))
    with pytest.raises(MissingFile, match="has no text encoder"):
        made.detect(photo(40, 40), "cat")
    made.processor.image = made.processor.text = None
    text = replace(teacher.system.text_spec(teacher.config), bos_id=2, eos_id=1)
    teacher.processor.text = TextPipeline(word_level_tokenizer(WORDS), text)
    assert take_text_encoder(made, teacher) is made
    assert torch.equal(made.embed_texts("a cat"), teacher.embed_texts("a cat"))
    assert not any(p.requires_grad for p in made.network.text.parameters())
    boxes = made.detect(photo(40, 40), "cat")
    again = rebus.load(made.save(tmp_path / "saved"), device="cpu")
    assert again.config == made.config == made.network.cfg
    assert [box.label for box in again.detect(photo(40, 40), "cat")] == ["cat"] * len(boxes)


def test_a_text_encoder_of_another_space_is_refused():
    made = model(text=None, embed=17)
    with pytest.raises(UsageError, match=r"regions have 17 numbers, texts of .* 16"):
        take_text_encoder(made, tiny_models.clip())
    with pytest.raises(UsageError, match="no text encoder of CLIP's kind"):
        take_text_encoder(made, made)


def test_weights_that_cannot_be_fetched_are_told_where_they_are():
    with pytest.raises(MissingFile, match=r"resnet152_vild_ensemble\.tar\.gz"):
        rebus.load("vild/resnet152-ensemble")
