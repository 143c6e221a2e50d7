"""What a detector learns from: of which labels, where it sees them, and what the teacher says beside it."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from rebus.codec.images import ImagePipeline
from rebus.codec.processor import Processor
from rebus.core.errors import UsageError
from rebus.core.labels import IGNORED
from rebus.core.specs import ImageSpec
from rebus.data.detection_batches import Detection, DetectionBatches, DetectionRecords
from rebus.data.layouts import open_layout
from rebus.data.outlines import mask_of
from rebus.data.region_embedding import EmbeddingSettings, RegionEmbedding
from rebus.data.scene_records import SceneReader
from rebus.data.scenes import LABELS, NOVEL_LABELS

SCENES = 12
SIDE = 96


class Numbered:
    """A teacher whose vectors are the boxes themselves, and label i is [i, 0, 0, 1]."""

    def embed(self, image, boxes):
        return boxes / 1000

    def embed_labels(self, labels):
        return np.array([[i, 0, 0, 1] for i in range(len(labels))], dtype=np.float32)


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    folder = tmp_path_factory.mktemp("taught") / "scenes"
    RegionEmbedding(SceneReader(SCENES), folder, {}, Numbered(), EmbeddingSettings(truth=True)).run()
    return str(folder)


def opened(data, side=SIDE):
    spec = ImageSpec(size=(side, side), resize="longer", pad="end")
    processor = Processor(ImagePipeline(spec, threads=1), None)
    return DetectionBatches(DetectionRecords(data, side, (124, 116, 104)), processor)


def scenes(taught, **fields):
    settings = {"most_objects": 6, "most_taught": 12, "mask_cells": 28, "novel": NOVEL_LABELS, "num_scenes": SCENES}
    return opened(Detection(path="scenes", taught=taught, **{**settings, **fields}))


def test_novel_labels_have_no_boxes_and_the_teacher_sees_their_objects_still(taught):
    batches = scenes(taught, scales=(1.0, 1.0), flip=False)
    batch = batches.batch(0, 0, SCENES)
    assert batches.records.labels == list(LABELS)
    assert batch["classes"][:, 0].tolist() == list(range(len(LABELS)))
    in_view = 0
    for row in range(SCENES):
        labels = batch["labels"][row]
        assert ((labels == IGNORED) | (labels < len(LABELS))).all()
        in_view += int((labels != IGNORED).sum())
        assert int((batch["taught_boxes"][row].sum(dim=1) > 0).sum()) >= 2 * int((labels != IGNORED).sum())
    things = [thing for row in range(SCENES) for thing in SceneReader(SCENES).read(0, row).things]
    novel = [thing for thing in things if thing.label in NOVEL_LABELS]
    assert novel
    assert in_view == len(things) - len(novel)
    assert int((batch["taught_boxes"].sum(dim=2) > 0).sum()) == 2 * len(things)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_image_boxes_masks_and_the_teacher_s_boxes_go_through_one_view(taught, index):
    """Everything that is labelled lies where the image has its colour, in its mask, and where the teacher saw it."""
    batch = scenes(taught, scales=(0.6, 1.6), novel=()).batch(3, index, 8)
    seen = 0
    for row in range(8):
        pixels = batch["pixels"][row].float()
        taught_boxes = batch["taught_boxes"][row]
        for box, label, mask in zip(batch["boxes"][row], batch["labels"][row], batch["masks"][row], strict=True):
            left, top, right, bottom = box.tolist()
            if label == IGNORED or min(right - left, bottom - top) < 12:
                continue
            assert (taught_boxes - box).abs().amax(dim=1).min() < 1e-3, "the teacher's box moved otherwise"
            grid = torch.nn.functional.interpolate(
                pixels[None, :, round(top) : round(bottom), round(left) : round(right)], (28, 28), mode="bilinear"
            )[0]
            if (mask < 5).sum() < 20:
                continue
            ground = grid[:, mask < 5].median(dim=1, keepdim=True).values
            inside, outside = ((grid[:, which] - ground).abs().amax(dim=0) for which in (mask > 250, mask < 5))
            assert inside.quantile(0.8) > 2 * outside.quantile(0.5), (row, box)  # some are outlines alone
            seen += 1
    assert seen > 5


def test_teacher_s_vectors_stay_with_their_boxes(taught):
    batches = scenes(taught, scales=(1.0, 1.0), flip=False)
    batch = batches.batch(0, 0, 4)
    real = batch["taught_boxes"].sum(dim=2) > 0
    torch.testing.assert_close(batch["taught"][real].float(), batch["taught_boxes"][real] / 1000, atol=1e-4, rtol=1e-3)
    fewer = scenes(taught, scales=(1.0, 1.0), flip=False, most_taught=2).batch(0, 0, 4)
    assert fewer["taught"].shape == (4, 2, 4)


def test_held_out_scenes_are_seen_whole_and_have_no_teacher(taught):
    batch = scenes(taught).batch(0, 0, 4, "val")
    assert not batch["taught_boxes"].any()
    again = scenes(taught, scales=(0.1, 0.2)).batch(0, 0, 4, "val")
    assert torch.equal(batch["boxes"], again["boxes"])


def test_a_batch_is_a_function_of_seed_and_number_and_ranks_share_it(taught):
    batches = scenes(taught)
    one, two = batches.batch(1, 2, 4), batches.batch(1, 2, 4)
    assert all(torch.equal(one[name], two[name]) for name in one)
    half = batches.batch(1, 2, 4, share=(1, 2))
    assert torch.equal(half["pixels"], one["pixels"][2:])
    assert torch.equal(half["classes"], one["classes"])
    assert not torch.equal(one["pixels"], batches.batch(2, 2, 4)["pixels"])


@pytest.fixture
def lvis(tmp_path):
    """Two images of LVIS: a cat with an outline and a dog; searched for birds; cows are not all marked."""
    often = {"cat": "f", "dog": "r", "bird": "c", "cow": "c"}
    categories = [{"id": i, "name": name, "frequency": f} for i, (name, f) in enumerate(often.items(), 1)]
    sides = {"width": 40, "height": 20}
    searched = {"neg_category_ids": [3], "not_exhaustive_category_ids": [4]}
    images = [{"id": n, "coco_url": f"http://x/train2017/{n}.png", **sides, **searched} for n in (1, 2)]
    objects = [  # image, category, box, outline
        (1, 1, [4, 4, 10, 10], [[4, 4, 14, 4, 14, 9, 4, 9]]),
        (1, 2, [20, 2, 10, 10], [[20, 2, 30, 2, 30, 12]]),
        (2, 4, [5, 5, 20, 10], []),
    ]
    names = ("image_id", "category_id", "bbox", "segmentation")
    annotations = [{"id": i, "area": 50, **dict(zip(names, one, strict=True))} for i, one in enumerate(objects)]
    (tmp_path / "train2017").mkdir()
    for n in (1, 2):
        Image.new("RGB", (40, 20), (10 * n, 0, 0)).save(tmp_path / "train2017" / f"{n}.png")
    file = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "lvis_v1_train.json").write_text(json.dumps(file))
    folder = tmp_path / "taught"
    RegionEmbedding(open_layout(tmp_path, "lvis", "train"), folder, {}, Numbered(), EmbeddingSettings(truth=True)).run()
    return Detection(
        path=str(tmp_path), layout="lvis", taught=str(folder), drop_rare=True, federated=True, val_split=None,
        scales=(1.0, 1.0), flip=False, most_objects=3, most_taught=6, mask_cells=10,
    )  # fmt: skip


def test_lvis_drops_rare_labels_and_says_what_is_known(lvis):
    records = DetectionRecords(lvis, 40, (0, 0, 0), measured=False)
    assert records.labels == ["cat", "bird", "cow"]
    assert records.classes[:, 0].tolist() == [0, 2, 3]
    images = ImagePipeline(ImageSpec(size=(40, 40), resize="longer", pad="end"))
    batch = DetectionBatches(records, Processor(images, None)).batch(0, 0, 2)
    rows = batch["labels"][:, 0].tolist()
    cat, cow = rows.index(0), rows.index(2)
    assert batch["labels"].tolist()[cat] == [0, IGNORED, IGNORED], "the rare dog has no box"
    assert batch["known"][cat].tolist() == [True, True, False]
    assert batch["known"][cow].tolist() == [False, True, False], "cows are there and not all marked"
    assert batch["boxes"][cat, 0].tolist() == [4, 4, 14, 14]
    assert batch["masks"][cat, 0].tolist() == [[255] * 10] * 5 + [[0] * 10] * 5
    assert batch["outlined"].tolist()[cat] == [True, False, False]
    assert not batch["outlined"][cow].any(), "without an outline nothing is learned of masks"


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"path": ""}, "data.path, the data set, is missing"),
        ({"taught": ""}, "data.taught is the folder .* reads the labels itself"),
        ({"scales": (0.0, 1.0)}, "data.scales"),
        ({"scales": (2.0, 1.0)}, "data.scales"),
        ({"most_objects": 0}, "above 0"),
        ({"drop_rare": True}, "only LVIS"),
        ({"novel": (*LABELS, *NOVEL_LABELS)}, "no labels are left"),
    ],
)
def test_what_cannot_be_learned_is_said(taught, fields, message):
    with pytest.raises(UsageError, match=message):
        DetectionRecords(Detection(**{"path": "scenes", "taught": taught, **fields}), SIDE, (0, 0, 0))


def test_scenes_as_a_data_set_have_outlines_that_are_their_masks():
    reader = SceneReader(4)
    for row in range(4):
        record = reader.read(0, row)
        for thing, mask in zip(record.things, record.facts["scene"].masks, strict=True):
            assert np.array_equal(mask_of(thing.outline, 96, 96), mask)
        assert any(thing.label in NOVEL_LABELS for thing in record.things) == bool(row % 2)
