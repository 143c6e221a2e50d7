"""Detection scores against pycocotools and the official LVIS code, on random images.

The package `lvis` wants OpenCV and Matplotlib only to draw, so it is no dependency of ours. `LVIS_TABLE` is what
github.com/lvis-dataset/lvis-api at 7d7f07d printed for the same images; where that is installed, it is run again.
"""

import contextlib
import io
import logging

import numpy as np
import pytest

from rebus.evaluate.detection import Detections, Truth, coco_scores, lvis_scores

pytestmark = pytest.mark.parity
cocotools = pytest.importorskip("pycocotools.coco")
cocoeval = pytest.importorskip("pycocotools.cocoeval")
rle = pytest.importorskip("pycocotools.mask")

# The last is found but never true.
CLASSES = ["bird", "cat", "dog", "eel", "fox", "gnu"]
FREQUENCY = dict(zip(CLASSES, "rccffr"))
SIDE = 180
COCO_FIELDS = "ap ap50 ap75 ap_small ap_medium ap_large ar1 ar10 ar100 ar_small ar_medium ar_large".split()
LVIS_FIELDS = {
    "AP": "ap",
    "AP50": "ap50",
    "AP75": "ap75",
    "APs": "ap_small",
    "APm": "ap_medium",
    "APl": "ap_large",
    "APr": "ap_rare",
    "APc": "ap_common",
    "APf": "ap_frequent",
    "AR@300": "ar",
    "ARs@300": "ar_small",
    "ARm@300": "ar_medium",
    "ARl@300": "ar_large",
}
LVIS_TABLE = """
              boxes_0      boxes_1      boxes_2   boxes_many      masks_0      masks_1      masks_2
AP        0.333784128  0.182125098  0.327600588  0.580089262  0.314869837  0.315363830  0.318676370
AP50      0.383304699  0.237666624  0.400105043  0.653571826  0.431801037  0.433875366  0.412217902
AP75      0.352661497  0.163436058  0.320896855  0.594882167  0.366737388  0.365161571  0.339058664
APs       0.343830526  0.142785479  0.244552255  0.597215858  0.313010372  0.304554455  0.373664309
APm       0.379709571  0.397234323  0.466691812  0.679784139  0.355005501  0.326396040  0.248180910
APl       0.000000000  0.000000000  0.336633663  1.000000000 -1.000000000  0.300000000  0.201980198
APr       0.481188119  0.303055163  0.415262955  0.487803490  0.396614735  0.190540746  0.310684818
APc       0.248346142  0.110034289  0.342746701  0.657504680  0.330884553  0.252622955  0.358258326
APf       0.345520119  0.193750875  0.268623291  0.548816730  0.257982673  0.440516248  0.283090190
AR@300    0.418589744  0.273210145  0.429238095  0.997500000  0.392215686  0.391785714  0.418672161
ARs@300   0.381404762  0.197762238  0.314523810  0.997142857  0.364923077  0.374000000  0.449907648
ARm@300   0.474857143  0.422142857  0.573650794  1.000000000  0.421000000  0.350000000  0.351714286
ARl@300   0.000000000  0.000000000  0.333333333  1.000000000 -1.000000000  0.300000000  0.200000000
"""
CASES, *ROWS = (line.split() for line in LVIS_TABLE.strip().splitlines())


def random_boxes(random, count):
    """Small to large, on quarters of a pixel, so that xyxy and xywh are both exact."""
    size = np.exp(random.uniform(np.log(6), np.log(178), (count, 2)))
    corner = random.uniform(0, 1, (count, 2)) * (SIDE - size)
    return np.round(np.concatenate([corner, corner + size], axis=1) * 4) / 4


def random_masks(random, boxes):
    """An ellipse in each box, with some pixels missing."""
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    left, top, right, bottom = boxes.T[:, :, None, None]
    across, down = (2 * x - left - right) / (right - left + 1e-9), (2 * y - top - bottom) / (bottom - top + 1e-9)
    return (across**2 + down**2 <= 1) & (random.uniform(size=(len(boxes), SIDE, SIDE)) < 0.97)


def random_pictures(seed, num_pictures, *, by, crowds=False, most_true=12, most_found=14):
    """Truth and detections near it or anywhere, with equal scores, equal shapes, empty images, regions of no area."""
    random = np.random.RandomState(seed)  # the generator of NumPy whose numbers never change
    pictures = []
    for _ in range(num_pictures):
        num_true, num_found = random.randint(0, most_true + 1), random.randint(0, most_found + 1)
        labels = [CLASSES[i] for i in random.randint(0, 5, num_true)]
        boxes = random_boxes(random, num_true)
        for row in range(1, num_true):
            if random.uniform() < 0.1:
                labels[row], boxes[row] = labels[row - 1], boxes[row - 1]
        found_labels = [CLASSES[i] for i in random.randint(0, 6, num_found)]
        found_boxes = random_boxes(random, num_found)
        for row in range(num_found if num_true else 0):
            if random.uniform() < 0.8:
                like = random.randint(num_true)
                found_labels[row] = labels[like]
                shift = np.round(random.normal(0, random.choice([0, 1, 3]), 4) * 4) / 4
                left, top, right, bottom = (boxes[like] + shift).clip(0, SIDE)
                found_boxes[row] = min(left, right), min(top, bottom), max(left, right), max(top, bottom)
        if num_found and random.uniform() < 0.2:
            found_boxes[0, 2] = found_boxes[0, 0]
        scores = np.round(random.uniform(size=num_found), 1)
        crowd = (random.uniform(size=num_true) < 0.2) & crowds
        absent = [c for c in CLASSES if c not in labels and random.uniform() < 0.5]
        incomplete = [c for c in CLASSES if random.uniform() < 0.3]
        true, found = {"boxes": boxes}, {"boxes": found_boxes}
        if by == "masks":
            true, found = ({"masks": random_masks(random, each)} for each in (boxes, found_boxes))
            areas = true["masks"].sum(axis=(1, 2))
        else:
            areas = 0.75 * (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)  # those of a mask, as in the files of COCO
        true |= {"crowd": crowd, "areas": areas, "absent": absent, "incomplete": incomplete}
        pictures.append((Truth(labels=labels, **true), Detections(labels=found_labels, scores=scores, **found)))
    return pictures


def annotations(side, number, by):
    """The regions of one image as the official files write them."""
    rows = []
    for i, label in enumerate(side.labels):
        row = {"image_id": number, "category_id": CLASSES.index(label) + 1}
        if by == "boxes":
            left, top, right, bottom = side.boxes[i].tolist()
            row["bbox"] = [left, top, right - left, bottom - top]
        else:
            row["segmentation"] = rle.encode(np.asfortranarray(side.masks[i], dtype=np.uint8))
        if isinstance(side, Truth):
            row |= {"area": float(side.areas[i]), "iscrowd": int(side.crowd[i])}
        else:
            row |= {"score": float(side.scores[i])}
        rows.append(row)
    return rows


def official_files(pictures, by):
    truth = [row for number, (side, _) in enumerate(pictures) for row in annotations(side, number, by)]
    found = [row for number, (_, side) in enumerate(pictures) for row in annotations(side, number, by)]
    images = [
        {
            "id": number,
            "height": SIDE,
            "width": SIDE,
            "neg_category_ids": [CLASSES.index(c) + 1 for c in side.absent],
            "not_exhaustive_category_ids": [CLASSES.index(c) + 1 for c in side.incomplete],
        }
        for number, (side, _) in enumerate(pictures)
    ]
    categories = [{"id": i, "name": c, "frequency": FREQUENCY[c]} for i, c in enumerate(CLASSES, 1)]
    truth = [{"id": i, **row} for i, row in enumerate(truth, 1)]
    return {"images": images, "annotations": truth, "categories": categories}, found


def official_coco(pictures, by):
    """The twelve numbers, and AP (classes,) and AP50 (classes,); -1 without truth."""
    dataset, found = official_files(pictures, by)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = cocotools.COCO()
        truth.dataset = dataset
        truth.createIndex()
        judge = cocoeval.COCOeval(truth, truth.loadRes(found), "bbox" if by == "boxes" else "segm")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    precision = judge.eval["precision"][:, :, :, 0, 2]
    return judge.stats, precision.mean(axis=(0, 1)), precision[0].mean(axis=0)


def official_lvis(pictures, by):
    lvis = pytest.importorskip("lvis")
    dataset, found = official_files(pictures, by)
    truth = lvis.LVIS.__new__(lvis.LVIS)
    truth.logger, truth.dataset = logging.getLogger("lvis"), dataset
    truth._create_index()
    judge = lvis.LVISEval(truth, lvis.LVISResults(truth, found), "bbox" if by == "boxes" else "segm")
    judge.run()
    return judge.get_results()


def minus_one(values):
    """Our NaN as their -1."""
    return np.nan_to_num(np.asarray(values, dtype=float), nan=-1)


MANY = {"most_true": 30, "most_found": 900}


@pytest.mark.parametrize("by", ["boxes", "masks"])
@pytest.mark.parametrize("seed", range(4))
def test_coco_scores_equal_pycocotools(by, seed):
    check_coco(random_pictures(seed, 12, by=by, crowds=seed > 0), by)


def test_coco_scores_equal_pycocotools_beyond_a_hundred_detections():
    pictures = random_pictures(5, 3, by="boxes", crowds=True, **MANY)
    assert max(found.labels.count(name) for _, found in pictures for name in CLASSES) > 100
    check_coco(pictures, "boxes")


def check_coco(pictures, by):
    numbers, ap, ap50 = official_coco(pictures, by)
    ours = coco_scores(pictures, CLASSES, by=by)
    assert minus_one([getattr(ours, name) for name in COCO_FIELDS]) == pytest.approx(numbers, abs=1e-9)
    assert minus_one(list(ours.class_ap.values())) == pytest.approx(ap, abs=1e-9)
    assert minus_one(list(ours.class_ap50.values())) == pytest.approx(ap50, abs=1e-9)
    assert ours.class_ap.keys() == set(CLASSES)
    assert numbers[0] > 0.05


def lvis_case(case):
    """Boxes or masks, and the images."""
    by, seed = case.split("_")
    if seed != "many":
        return by, random_pictures(int(seed), 12, by=by)
    pictures = random_pictures(7, 3, by=by, **MANY)
    assert max(len(found.labels) for _, found in pictures) > 300
    return by, pictures


def lvis_gold(case):
    return {row[0]: float(row[1 + CASES.index(case)]) for row in ROWS}


@pytest.mark.parametrize("case", CASES)
def test_lvis_scores_equal_the_official_numbers(case):
    by, pictures = lvis_case(case)
    ours = lvis_scores(pictures, FREQUENCY, by=by)
    assert {name: minus_one(getattr(ours, LVIS_FIELDS[name])) for name in LVIS_FIELDS} == pytest.approx(
        lvis_gold(case), abs=1e-8
    )


@pytest.mark.filterwarnings("ignore:The 'warn' method is deprecated:DeprecationWarning")
@pytest.mark.parametrize("case", CASES)
def test_the_official_lvis_code_still_gives_these_numbers(case):
    by, pictures = lvis_case(case)
    assert dict(official_lvis(pictures, by)) == pytest.approx(lvis_gold(case), abs=1e-8)
