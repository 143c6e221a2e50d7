"""A dual encoder on cut-out regions: what is cut out, how it is scored, and the starter on photos."""

from copy import deepcopy
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

import rebus
from rebus import catalog
from rebus.backbones import starter_networks
from rebus.backbones.vision.yolo import Candidates
from rebus.core import extras
from rebus.core.config import to_dict
from rebus.core.errors import BadCheckpoint, BadConfig, MissingExtra, UnsupportedTask
from rebus.models.distillation.crops import PRESETS, CropDetector

needs_packages = pytest.mark.skipif(not extras.installed("detector"), reason='the extra "detector" is not installed')


class Colours(nn.Module):
    """The mean colour of an image; texts are colours already."""

    def embed_image(self, pixels):
        return F.normalize(pixels.mean(dim=(2, 3)), dim=-1)

    def embed_text(self, tokens, mask=None):
        return F.normalize(tokens.float(), dim=-1)


class Wide(Colours):
    """The same without a space of unit vectors."""

    is_dense = False
    embed_text = None

    def image_vectors(self, pixels):
        return 3 * pixels.mean(dim=(2, 3))

    def text_vectors(self, tokens, mask=None):
        return 5.0 * tokens

    def score(self, image, text):
        return F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T


class Given(nn.Module):
    """A detector that always finds the same."""

    def __init__(self, boxes, objectness):
        super().__init__()
        self.found = Candidates(torch.tensor([boxes]), torch.tensor([objectness]), torch.zeros(1, len(boxes), 3))

    def forward(self, pixels):
        return self.found


def built(encoder, boxes, objectness, **settings):
    """A network whose detector always gives these boxes."""
    cfg = replace(PRESETS["tiny"], mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), detector_sizes=(64,), **settings)
    network = CropDetector(cfg, encoder=encoder)
    network.detector = Given(boxes, objectness)
    return network


RED, GREEN, BLUE = torch.eye(3, dtype=torch.int64)
IMAGE = torch.zeros(3, 80, 80)
IMAGE[0, :, :40], IMAGE[1, :, 40:] = 1, 1  # red on the left, green on the right
LEFT, RIGHT = [0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0]


def test_what_is_cut_out_is_the_box_and_its_surroundings_inside_the_image():
    network = built(Colours(), [LEFT], [0.9])
    columns = torch.arange(80.0).expand(3, 80, 80) / 80
    boxes = torch.tensor([[0.25, 0.5, 0.5, 0.75], [0.0, 0.0, 1.0, 1.0], [0.999, 0.999, 1.0, 1.0]])
    tight, wide = (network.cut_out(columns, boxes, scale) for scale in (1.0, 2.0))
    assert tight.shape == wide.shape == (3, 3, 16, 16)
    assert tight[0, 0, 0].tolist() == pytest.approx([(20 + 1.25 * i + 0.125) / 80 for i in range(16)], abs=0.01)
    assert (float(wide[0].min()), float(wide[0].max())) == pytest.approx((10.5 / 80, 49.5 / 80), abs=0.02)
    torch.testing.assert_close(tight[1], wide[1])  # there is nothing beyond the image
    assert tight[2].isfinite().all()  # a pixel at least


@pytest.mark.parametrize("encoder", [Colours(), Wide()], ids=["dense", "with a score of its own"])
def test_scores_are_those_of_a_plain_transcription(encoder):
    settings = {"temperature": 0.3, "background": 0.4, "context": 0.5, "size_power": 0.2, "labels_per_region": 3}
    network = built(encoder, [LEFT, RIGHT], [0.8, 0.6], scales=(1.0, 1.5), **settings)
    texts = torch.stack([RED, BLUE, RED + GREEN])
    read = network.embed_text if network.is_dense else network.text_vectors
    (found,) = network.find_regions(IMAGE[None], read(texts))

    expected = {}
    labels = F.normalize(texts.float(), dim=1)
    for number, (box, objectness) in enumerate([(LEFT, 0.8), (RIGHT, 0.6)]):
        own, other = ((RED.float(), GREEN.float()), (GREEN.float(), RED.float()))[number]
        wider = F.normalize(0.8 * own + 0.2 * other, dim=0)  # an eighth of the image more
        whole = F.normalize(own + other, dim=0)
        similarity = ((labels @ own + labels @ wider) / 2 + 0.5 * labels @ whole) / 1.5
        weights = torch.cat([similarity, torch.tensor([0.4])]).div(0.3).exp()
        for label, weight in enumerate(weights[:3]):
            expected[tuple(box), label] = objectness * 0.5**0.2 * float(weight / weights.sum())
    got = {(tuple(box), label): score for box, label, score in zip(*(part.tolist() for part in found[:3]), strict=True)}
    assert got.keys() == expected.keys()
    assert got == {key: pytest.approx(value, abs=0.01) for key, value in expected.items()}
    assert (found.scores.diff() <= 0).all()
    assert found.masks is None


def test_a_label_that_would_not_be_found_alone_is_not_found_among_others():
    network = built(
        Colours(), [LEFT], [0.9], temperature=0.1, background=0.5, context=0.0, min_score=0.05, scales=(1.0,)
    )
    alone, among = (network.find_regions(IMAGE[None], torch.stack(texts).float())[0] for texts in ([BLUE], [BLUE, RED]))
    assert len(alone.boxes) == 0
    assert among.labels.tolist() == [1]
    assert float(among.scores) > 0.8


def test_boxes_of_one_thing_become_one_and_specks_none():
    twice = [[0.2, 0.2, 0.6, 0.6], [0.2, 0.2, 0.64, 0.6], [0.2, 0.2, 0.205, 0.9]]
    boxes, objectness = built(Colours(), twice, [0.6, 0.5, 0.9]).propose(IMAGE)
    overlap = 0.4 / 0.44
    across = (0.6 * 0.6 + 0.5 * overlap * 0.64) / (0.6 + 0.5 * overlap)
    torch.testing.assert_close(boxes, torch.tensor([[0.2, 0.2, across, 0.6]]), atol=1e-4, rtol=0)
    assert objectness.tolist() == pytest.approx([0.6 * 0.16**0.1], abs=1e-4)
    nothing = built(Colours(), [twice[2]], [0.9]).find_regions(IMAGE[None], torch.eye(3))[0]
    assert [len(part) for part in nothing[:3]] == [0, 0, 0]


def test_the_encoder_is_a_dual_encoder_with_known_fields():
    read = catalog.system("crops").layouts["transformers"].read_config
    data = to_dict(PRESETS["tiny"])
    assert read(data) == PRESETS["tiny"]
    with pytest.raises(BadConfig, match="encoder is a dual encoder; paligemma is none"):
        read({**data, "encoder": {"system": "paligemma", "config": {}}})
    with pytest.raises(BadConfig, match="multiples of 32"):
        read({**data, "detector_sizes": [100]})
    with pytest.raises(BadConfig, match="temperature and std need numbers above 0"):
        read({**data, "temperature": 0.0})


def test_missing_packages_name_the_extra_and_segmentation_what_can(monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r'vild/starter needs the extra "detector"'):
        rebus.load("vild/starter")
    assert rebus.info("vild/starter").tasks == {"detect", "embed_texts"}
    assert "vild/starter" in {card.name for card in rebus.list_models(task="detect")}


@needs_packages
def test_a_damaged_detector_is_named(monkeypatch, tmp_path):
    package = find_spec("object_detector")
    (tmp_path / "data").mkdir()
    for name in ("yolov2-tiny.cfg", "yolov2-tiny.weights"):
        whole = (Path(package.origin).parent / "data" / name).read_bytes()
        (tmp_path / "data" / name).write_bytes(whole[:10_000])
    damaged = SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    found = {"object_detector": damaged}
    monkeypatch.setattr(starter_networks, "find_spec", lambda name: found.get(name) or find_spec(name))
    with pytest.raises(BadCheckpoint, match=r"yolov2-tiny\.weights: .* got 10,000"):
        rebus.load("vild/starter", device="cpu")


@pytest.fixture(scope="module")
def model():
    if not extras.installed("detector"):
        pytest.skip('the extra "detector" is not installed')
    return rebus.load("vild/starter", device="cpu")


def overlap(one, other):
    sides = [max(0.0, min(one[i + 2], other[i + 2]) - max(one[i], other[i])) for i in (0, 1)]
    area = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return sides[0] * sides[1] / (area - sides[0] * sides[1])


def test_it_finds_a_cat_and_no_train(model, shared, tmp_path):
    photo = Image.open(shared / "photos_permissive" / "images" / "chelsea.jpg")
    found = model.detect(photo, ["a cat", "a locomotive"])
    assert found[0].label == "a cat"
    assert overlap(found[0].xyxy, (10, 5, 400, 300)) > 0.7
    assert found[0].score > 0.5
    assert max((box.score for box in found if box.label == "a locomotive"), default=0.0) < 0.1
    absent = model.detect(photo, "a locomotive")
    assert len(absent) <= 3
    assert all(box.score < 0.15 for box in absent)


@pytest.fixture
def quick(model, monkeypatch):
    """The same with few regions and small sizes."""
    monkeypatch.setattr(model.network, "cfg", replace(model.network.cfg, num_regions=2, detector_sizes=(160,)))
    return model


def test_a_photo_that_lies_on_its_side_in_the_file_is_turned(quick, shared, tmp_path):
    photo = Image.open(shared / "photos_permissive" / "images" / "chelsea.jpg")
    turned = photo.rotate(90, expand=True)
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.png", exif=exif)
    upright, read = quick.detect(photo, "a cat"), quick.detect(tmp_path / "turned.png", "a cat")
    assert upright
    assert [box.xyxy for box in read] == [pytest.approx(box.xyxy, abs=0.1) for box in upright]


def test_half_precision_finds_the_same(quick, shared):
    photo = shared / "photos_permissive" / "images" / "chelsea.jpg"
    whole = quick.detect(photo, "a cat")
    half = deepcopy(quick).to(torch.bfloat16).detect(photo, "a cat")
    assert overlap(half[0].xyxy, whole[0].xyxy) > 0.9
    assert half[0].score == pytest.approx(whole[0].score, abs=0.05)


@pytest.mark.parametrize("size, mode", [((1, 1), "RGB"), ((3, 400), "L"), ((60, 40), "LA")])
def test_any_image_has_an_answer(quick, monkeypatch, size, mode):
    monkeypatch.setattr(quick.network, "cfg", replace(quick.network.cfg, min_score=0.0))
    boxes = quick.detect(Image.new(mode, size), ["a cat", "a wall"])
    assert boxes
    for box in boxes:
        assert 0 <= box.xyxy[0] < box.xyxy[2] <= size[0]
        assert 0 <= box.xyxy[1] < box.xyxy[3] <= size[1]


def test_it_draws_no_masks_and_says_who_does(model):
    with pytest.raises(UnsupportedTask, match="vild/starter cannot segment; models that can: "):
        model.segment(Image.new("RGB", (8, 8)), "a cat")
