"""Detection, LVIS and referring expressions on scenes written to disk."""

import json

import numpy as np
import pytest

from rebus.core.answers import Box, Mask
from rebus.core.errors import RebusError, UsageError
from rebus.data.outlines import mask_of, outline_of
from rebus.data.record import Phrase, Record, Thing
from rebus.data.scenes import SHAPES, scene
from rebus.evaluate.detection import Detections, Truth, coco_scores, group_scores, lvis_scores
from rebus.evaluate.measure import measure
from rebus.evaluate.metrics import mask_iou
from tests.evaluate.benchmarks.samples import ByteLRU, Seeing, Told, coco, png, write_json


@pytest.fixture(scope="module")
def some():
    return [scene(n, "test") for n in range(40)]


@pytest.fixture(scope="module")
def folder(some, tmp_path_factory):
    return coco(tmp_path_factory.mktemp("coco"), some)


def truth(one):
    return Truth(
        labels=[thing.shape for thing in one.objects],
        boxes=np.array([thing.box for thing in one.objects]),
        masks=np.stack([thing.mask for thing in one.objects]),
        areas=np.array([float(thing.mask.sum()) for thing in one.objects]),
    )


def found(boxes):
    where = np.array([box.xyxy for box in boxes]).reshape(-1, 4)
    return Detections(labels=[box.label for box in boxes], scores=[box.score for box in boxes], boxes=where)


def same(document, scores, names):
    for name in names:
        value = getattr(scores, name)
        assert document[name] == (None if value != value else pytest.approx(value)), name


TWELVE = "ap ap50 ap75 ap_small ap_medium ap_large ar1 ar10 ar100 ar_small ar_medium ar_large".split()


def test_a_coco_folder_scores_as_the_metric_itself(some, folder):
    model = Seeing(some)
    result = measure(model, "detection", folder, batch_size=7)
    direct = coco_scores([(truth(one), found(model.boxes(one, SHAPES))) for one in some], SHAPES)
    same(result.document["scores"], direct, TWELVE)
    assert 0.1 < result.document["scores"]["ap"] < 0.9
    assert result.document["scores"]["class_ap"] == pytest.approx(direct.class_ap)
    assert result.outcome.worst[0].wanted


def test_labels_asked_for_a_few_at_a_time(some, folder):
    model = Told(detect=Seeing(some).detect)
    at_once = measure(model, "detection", folder).document["scores"]
    calls = len(model.calls)
    assert measure(model, "detection", folder, together=3).document["scores"] == at_once
    assert len(model.calls) == calls + 3 * calls


def test_masks(some, folder):
    model = Seeing(some)
    result = measure(model, "detection", folder, by="masks").document["scores"]
    pictures = []
    for one in some:
        labels = [s for s in SHAPES if s in {box.label for box in model.boxes(one, SHAPES)}]
        masks = [mask for masks in model.segment([one.image] * len(labels), labels) for mask in masks]
        seen = Detections(
            labels=[mask.label for mask in masks],
            scores=[mask.score for mask in masks],
            masks=np.stack([mask.mask for mask in masks]) if masks else None,
        )
        pictures.append((truth(one), seen))
    same(result, coco_scores(pictures, SHAPES, by="masks"), TWELVE)
    assert 0.1 < result["ap"] < 0.95


def test_a_bundled_detector(some, folder, paligemma):
    result = measure(paligemma, "detection", folder, number=2).document
    assert result["scores"]["ap50"] > 0.5
    assert result["data"]["used"] == 2


def thing(label, box, **more):
    return Thing(label=label, box=box, **more)


def test_labels_that_were_not_asked_for_do_not_count(tmp_path):
    reader = ByteLRU([Record(key="a", image=png(tmp_path, 0), things=(thing("cat", (0, 0, 10, 10)),))], ["cat"])
    model = Told(detect=lambda images, labels: [[Box((0, 0, 10, 10), "cat", 0.5), Box((0, 0, 9, 9), "cow", 0.9)]])
    document = measure(model, "detection", reader).document
    assert document["scores"]["ap"] == 1.0
    assert "1 answers had labels" in document["notes"][1]


def test_pictures_that_nobody_marked_are_passed_over(tmp_path):
    marked = Record(key="a", image=png(tmp_path, 0), things=(thing("cat", (0, 0, 10, 10)),))
    other = Record(key="b", image=png(tmp_path, 1), facts={"boxes": None})
    model = Told(detect=lambda images, labels: [[Box((0, 0, 10, 10), "cat", 0.5)] for _ in images])
    document = measure(model, "detection", ByteLRU([marked, other], ["cat"])).document
    assert document["scores"]["ap"] == 1.0
    assert "1 images without annotated objects" in document["notes"][1]
    empty = Record(key="b", image=png(tmp_path, 1))  # looked at, and nothing is there
    assert measure(model, "detection", ByteLRU([empty, marked], ["cat"])).document["scores"]["ap"] < 1


def test_boxes_of_a_picture_of_another_size(tmp_path):
    facts = {"width": 640, "height": 480}
    reader = ByteLRU([Record(key="a", image=png(tmp_path, 0), facts=facts)], ["cat"])
    with pytest.raises(RebusError, match="a: its boxes are for an image of 640 x 480, and this one has 96 x 96"):
        measure(Told(detect=lambda images, labels: [[]]), "detection", reader)


def test_masks_want_outlines(tmp_path):
    reader = ByteLRU([Record(key="a", image=png(tmp_path, 0), things=(thing("cat", (0, 0, 9, 9)),))], ["cat"])
    with pytest.raises(RebusError, match="thing cat has no outline"):
        measure(Told(segment=lambda images, phrases: [[]]), "detection", reader, by="masks")
    with pytest.raises(UsageError, match="counting masks needs a model that can segment"):
        measure(Told(detect=lambda images, labels: [[]]), "detection", reader, by="masks")


SQUARE = [10, 10, 30, 10, 30, 30, 10, 30]


def test_a_thing_whose_only_polygon_is_a_line_has_no_mask(tmp_path):
    """It is no empty mask that nobody could find; a line beside a polygon is passed over."""
    outlines = [[SQUARE, [10, 10, 30, 30]]] * 10 + [[[10, 10, 30, 30]]]
    records = [
        Record(key=str(n), image=png(tmp_path, n), things=(thing("cat", (10, 10, 30, 30), outline=outline),))
        for n, outline in enumerate(outlines)
    ]
    mask = mask_of([SQUARE], 96, 96)
    model = Told(segment=lambda images, phrases: [[Mask(mask, (10, 10, 30, 30), "cat", 1.0)] for _ in images])
    result = measure(model, "detection", ByteLRU(records, ["cat"]), by="masks").document
    assert (result["scores"]["ap"], result["scores"]["ar100"]) == (1.0, 1.0)
    assert "10: thing cat has no outline of three corners or more" in str(result)


@pytest.mark.parametrize("outline, means", [([[1, 1, 9, 9]], None), ([["x"] * 6], "a polygon should be")])
def test_referring_to_a_thing_without_a_mask(tmp_path, outline, means):
    """Its box counts alone; a damaged outline is a damaged record, whatever was asked to be counted."""
    good, bad = (thing("cat", (10, 10, 30, 30), outline=mine) for mine in ([SQUARE], outline))
    records = [
        Record(key=str(n), image=png(tmp_path, n), phrases=(Phrase(text="p", thing=bad if n == 10 else good),))
        for n in range(11)
    ]
    mask = mask_of([SQUARE], 96, 96)
    model = Told(
        segment=lambda images, phrases: [[Mask(mask, (10, 10, 30, 30), "cat", 1.0)] for _ in images],
        detect=lambda image, phrases: [Box((10, 10, 30, 30), "cat", 1.0)],
    )
    result = measure(model, "referring", ByteLRU(records)).document
    assert (result["scores"]["accuracy"], result["scores"]["miou"]) == (1.0, 1.0)
    assert means is None or f"10: {means}" in str(result)


def test_lvis_with_base_and_novel(some, folder, tmp_path):
    content = json.loads((folder / "annotations" / "instances_val2017.json").read_text())
    often = dict(zip(SHAPES, "rrccfff", strict=True))
    for item in content["categories"]:
        item["frequency"] = often[item["name"]]
    for one, item in zip(some, content["images"], strict=True):
        item["neg_category_ids"] = [n for n, s in enumerate(SHAPES, 1) if s not in {o.shape for o in one.objects}][:2]
        item["not_exhaustive_category_ids"] = []
        item["coco_url"] = f"http://images.cocodataset.org/val2017/{item['file_name']}"
    file = write_json(tmp_path / "lvis_v1_val.json", content)
    (tmp_path / "val2017").symlink_to(folder / "val2017")
    model = Seeing(some)
    result = measure(model, "lvis", file).document["scores"]
    pictures = []
    for one, item in zip(some, content["images"], strict=True):
        true = truth(one)
        absent = [SHAPES[n - 1] for n in item["neg_category_ids"]]
        true = Truth(labels=true.labels, boxes=true.boxes, areas=true.areas, absent=absent)
        pictures.append((true, found(model.boxes(one, SHAPES))))
    direct = lvis_scores(pictures, often, by="boxes")
    same(result, direct, ["ap", "ap50", "ap75", "ap_rare", "ap_common", "ap_frequent", "ar"])
    groups = group_scores(direct, {"base": SHAPES[2:], "novel": SHAPES[:2]})
    assert result["base"]["ap"] == pytest.approx(groups["base"].ap)
    assert result["novel"]["ap"] == pytest.approx(result["ap_rare"])
    with pytest.raises(UsageError, match="does not say which labels are rare"):
        measure(model, "lvis", folder)


def referring(folder):
    one, two = scene(3, "test"), scene(4, "test")
    rows = []
    for each in (one, two):
        own = each.objects[0]
        item = thing(own.shape, own.box, outline=outline_of(own.mask))
        phrases = (Phrase(text=f"p{each.seed}", thing=item),)
        rows.append(Record(key=str(each.seed), image=png(folder, each.seed), things=(item,), phrases=phrases))
    return ByteLRU(rows), one.objects[0], two.objects[0]


def test_referring_by_boxes_and_masks(tmp_path):
    reader, first, second = referring(tmp_path)
    shifted = np.roll(second.mask, 3, axis=0)

    def detect(image, phrases):
        wrong = Box((0, 0, 5, 5), "x", 0.2)
        return [wrong, Box(first.box, "x", 0.9)] if phrases == ["p3"] else [Box((0, 0, 3, 3), "x", 0.8)]

    def segment(images, phrases):
        answers = {"p3": [], "p4": [Mask(shifted, second.box, "x", 0.5)]}
        return [answers[phrase] for phrase in phrases]

    result = measure(Told(detect=detect, segment=segment), "referring", reader)
    scores = result.document["scores"]
    assert scores["accuracy"] == 0.5
    overlap = mask_iou(shifted, second.mask)
    assert scores["miou"] == pytest.approx(overlap / 2)
    shared = (shifted & second.mask).sum()
    assert scores["ciou"] == pytest.approx(shared / ((shifted | second.mask).sum() + first.mask.sum()))
    assert [mistake.key for mistake in result.outcome.worst] == ["4"]
    boxes = measure(Told(detect=detect, segment=segment), "referring", reader, by="boxes").document["scores"]
    assert set(boxes) == {"accuracy", "box_iou"}
