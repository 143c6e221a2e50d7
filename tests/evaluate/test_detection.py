"""Average precision as COCO and LVIS count it, on cases worked out by hand."""

import math
from dataclasses import asdict, replace

import numpy as np
import pytest

from rebus.core.errors import UnknownName, UsageError
from rebus.evaluate.detection import Detections, GroupScores, Truth, coco_scores, group_scores, lvis_scores

A, B, C = [0, 0, 10, 10], [20, 20, 30, 30], [50, 50, 60, 60]
BIG = [0, 0, 100, 100]


def truth(*boxes, labels=None, **more):
    return Truth(labels=labels or ["cat"] * len(boxes), boxes=np.array(boxes, dtype=float).reshape(-1, 4), **more)


def found(*pairs, labels=None):
    boxes = np.array([box for box, _ in pairs], dtype=float).reshape(-1, 4)
    return Detections(labels=labels or ["cat"] * len(pairs), scores=[score for _, score in pairs], boxes=boxes)


def masked(side):
    """The same regions as masks of an image of 100 by 100 pixels."""
    y, x = np.mgrid[:100, :100]
    masks = [(x >= left) & (x < right) & (y >= top) & (y < bottom) for left, top, right, bottom in side.boxes]
    return replace(side, boxes=None, masks=np.array(masks, dtype=bool).reshape(-1, 100, 100))


def random_pictures(count, num_found=8, classes=("cat", "dog", "eel")):
    random = np.random.default_rng(0)
    for _ in range(count):
        corners = random.uniform(0, 60, (6, 2))
        boxes = np.concatenate([corners, corners + random.uniform(5, 140, (6, 2))], axis=1)
        near = boxes[random.integers(0, 6, num_found)] + random.normal(0, 2, (num_found, 4))
        labels, found_labels = random.choice(classes, 6).tolist(), random.choice(classes, num_found).tolist()
        yield (
            truth(*boxes, labels=labels, absent=classes),
            Detections(labels=found_labels, scores=random.uniform(size=num_found), boxes=near),
        )


def test_all_found_is_one_and_nothing_found_is_zero():
    for by, same in (("boxes", lambda side: side), ("masks", masked)):
        scores = coco_scores([(same(truth(A, B)), same(found((A, 0.9), (B, 0.8))))], ["cat"], by=by)
        assert (scores.ap, scores.ap50, scores.ap75, scores.ap_small) == (1, 1, 1, 1)
        assert (scores.ar1, scores.ar10, scores.ar100, scores.ar_small) == (0.5, 1, 1, 1)
        assert scores.class_ap == scores.class_ap50 == {"cat": 1}
        nothing = coco_scores([(same(truth(A, B)), same(found()))], ["cat"], by=by)
        assert (nothing.ap, nothing.ar100) == (0, 0)


def test_what_has_no_truth_is_nan_and_left_out_of_means():
    scores = coco_scores([(truth(A), found((A, 0.9), (B, 0.8), labels=["cat", "dog"]))], ["cat", "dog"])
    assert math.isnan(scores.class_ap["dog"])
    assert math.isnan(scores.ap_large)
    assert scores.ap == 1
    assert all(math.isnan(score) for score in asdict(coco_scores([], [])).values() if score != {})


def test_iou_decides_at_which_thresholds_a_detection_is_right():
    scores = coco_scores([(truth(A), found(([0, 0, 10, 7.5], 0.9)))], ["cat"])
    assert (scores.ap50, scores.ap75) == (1, 1)
    assert scores.ap == pytest.approx(0.6)  # 0.50, 0.55 ... 0.75


def test_a_wrong_detection_costs_precision_after_it():
    scores = coco_scores([(truth(A, B), found((A, 0.9), (C, 0.8), (B, 0.7)))], ["cat"])
    assert scores.ap == pytest.approx((51 + 50 * 2 / 3) / 101)  # recalls 0 to 0.50, then 0.51 to 1
    twice = coco_scores([(truth(A, B), found((A, 0.9), (A, 0.8), (B, 0.7)))], ["cat"])
    assert twice.ap == scores.ap


def test_equal_scores_keep_their_order():
    first, second = (A, 0.5), (C, 0.5)
    assert coco_scores([(truth(A), found(first, second))], ["cat"]).ap == 1
    assert coco_scores([(truth(A), found(second, first))], ["cat"]).ap == 0.5
    right, wrong = (truth(A), found(first)), (truth(), found(second))
    assert coco_scores([right, wrong], ["cat"]).ap == 1
    assert coco_scores([wrong, right], ["cat"]).ap == 0.5


def test_crowds_take_any_number_of_detections_and_count_neither_way():
    crowd = truth(A, BIG, crowd=[False, True])
    boxes = [(A, 0.5), (B, 0.9), (C, 0.8)]
    for by, same in (("boxes", lambda side: side), ("masks", masked)):
        scores = coco_scores([(same(crowd), same(found(*boxes)))], ["cat"], by=by)
        assert scores.ap == scores.ar100 == 1
    assert math.isnan(coco_scores([(truth(BIG, crowd=[True]), found(*boxes))], ["cat"]).ap)


def test_sizes_are_judged_apart_and_both_ends_belong_to_a_range():
    edge = [0, 0, 32, 32]
    scores = coco_scores([(truth(edge, BIG), found((edge, 0.9), (BIG, 0.8), ([0, 0, 50, 2], 0.95)))], ["cat"])
    assert (scores.ap_small, scores.ap_medium, scores.ap_large) == (0.5, 1, 1)
    given = coco_scores([(truth(BIG, areas=[10]), found((BIG, 0.9)))], ["cat"])
    assert (given.ap_small, given.ar_small) == (1, 1)
    assert math.isnan(given.ap_large)


def test_coco_counts_a_hundred_of_each_class_and_lvis_three_hundred_of_all():
    late = [(C, 1 - i / 1000) for i in range(100)] + [(A, 0.1)]
    assert coco_scores([(truth(A), found(*late[1:]))], ["cat"]).ar100 == 1
    assert coco_scores([(truth(A), found(*late))], ["cat"]).ar100 == 0
    mixed = [(C, 1 - i / 1000) for i in range(300)] + [(A, 0.1)]
    labels = ["dog"] * 300 + ["cat"]
    assert coco_scores([(truth(A), found(*mixed, labels=labels))], ["cat", "dog"]).ar100 == 1
    frequency = {"cat": "r", "dog": "f"}
    assert lvis_scores([(truth(A), found(*mixed[1:], labels=labels[1:]))], frequency, by="boxes").ar == 1
    assert lvis_scores([(truth(A), found(*mixed, labels=labels))], frequency, by="boxes").ar == 0


def test_lvis_judges_only_classes_known_to_be_there_or_absent():
    frequency = {"cat": "r", "dog": "c"}
    pictures = [(truth(A), found((A, 0.5))), (truth(), found((A, 0.9)))]
    assert lvis_scores(pictures, frequency, by="boxes").ap == 1
    pictures[1] = (truth(absent=["dog"]), found((A, 0.9)))
    assert lvis_scores(pictures, frequency, by="boxes").ap == 1
    pictures[1] = (truth(absent=["cat"]), found((A, 0.9)))
    assert lvis_scores(pictures, frequency, by="boxes").ap == 0.5


def test_lvis_forgives_unmatched_detections_where_marking_is_incomplete():
    boxes = found((B, 0.9), (A, 0.8))
    assert lvis_scores([(truth(A), boxes)], {"cat": "r"}, by="boxes").ap == 0.5
    assert lvis_scores([(truth(A, incomplete=["cat"]), boxes)], {"cat": "r"}, by="boxes").ap == 1


def test_groups_are_means_over_their_classes():
    frequency = {"cat": "r", "dog": "c", "eel": "f", "fox": "f"}
    picture = truth(A, B, C, labels=["cat", "dog", "eel"]), found((A, 0.9), ([0, 0, 2, 2], 0.9), labels=["cat", "dog"])
    scores = lvis_scores([picture], frequency, by="boxes")
    assert (scores.ap_rare, scores.ap_common, scores.ap_frequent) == (1, 0, 0)
    groups = group_scores(scores, {"base": ["cat", "dog", "fox"], "novel": ["eel"], "none": ["fox"]})
    assert groups["base"] == GroupScores(ap=0.5, ap50=0.5)
    assert groups["novel"] == GroupScores(ap=0, ap50=0)
    assert math.isnan(groups["none"].ap)
    with pytest.raises(UnknownName, match='no class "cats"; did you mean "cat"'):
        group_scores(scores, {"base": ["cats"]})


def test_without_equal_scores_the_order_of_pictures_and_detections_does_not_matter():
    pictures = list(random_pictures(12))
    turned = [
        (one, replace(two, labels=two.labels[::-1], scores=two.scores[::-1], boxes=two.boxes[::-1]))
        for one, two in reversed(pictures)
    ]
    classes = ["cat", "dog", "eel"]
    first, second = asdict(coco_scores(pictures, classes)), asdict(coco_scores(turned, classes[::-1]))
    assert first.pop("class_ap") == pytest.approx(second.pop("class_ap"))
    assert first.pop("class_ap50") == pytest.approx(second.pop("class_ap50"))
    assert first == pytest.approx(second)
    assert 0 < first["ap"] < 1


def test_only_the_order_of_scores_matters():
    pictures = list(random_pictures(8))
    squared = [(one, replace(two, scores=two.scores**2 - 3)) for one, two in pictures]
    assert coco_scores(pictures, ["cat", "dog", "eel"]) == coco_scores(squared, ["cat", "dog", "eel"])


def test_pictures_are_read_one_by_one_and_lvis_equals_coco_where_all_is_known():
    frequency = {"cat": "r", "dog": "c", "eel": "f"}
    coco, lvis = (
        coco_scores(random_pictures(8), list(frequency)),
        lvis_scores(random_pictures(8), frequency, by="boxes"),
    )
    assert coco.class_ap == lvis.class_ap
    assert coco.ar100 == lvis.ar


def test_truth_and_detections_of_the_wrong_shape_are_refused():
    box, mask = np.zeros((1, 4)), np.zeros((1, 5, 5), dtype=bool)
    with pytest.raises(UsageError, match=r"boxes must have shape \(2, 4\), one for each label; got \(1, 4\)"):
        Truth(labels=["cat", "dog"], boxes=box)
    with pytest.raises(
        UsageError, match=r"masks expects bool \(1, H, W\), one for each label; got float64 \(1, 5, 5\)"
    ):
        Truth(labels=["cat"], masks=mask.astype(float))
    with pytest.raises(UsageError, match=r"masks expects bool .* got bool \(5, 5\)"):
        Detections(labels=["cat"], scores=[1], masks=mask[0])
    with pytest.raises(UsageError, match=r"scores must have shape \(1,\), one for each label; got \(2,\)"):
        Detections(labels=["cat"], scores=[1, 2], boxes=box)
    with pytest.raises(UsageError, match="scores expects finite numbers; got"):
        Detections(labels=["cat"], scores=[math.nan], boxes=box)
    with pytest.raises(UsageError, match=r"crowd must have shape \(1,\)"):
        Truth(labels=["cat"], boxes=box, crowd=[True, False])
    with pytest.raises(UsageError, match="areas expects finite numbers of at least 0"):
        Truth(labels=["cat"], boxes=box, areas=[-1])
    with pytest.raises(UsageError, match=r"left <= right and top <= bottom, as xyxy; got \[5.0, 0.0, 1.0, 1.0\]"):
        Truth(labels=["cat"], boxes=np.array([[5, 0, 1, 1]]))
    with pytest.raises(UsageError, match='labels expects a list of names; got the one text "cat"'):
        Truth(labels="cat", boxes=np.zeros((3, 4)))
    with pytest.raises(UsageError, match='absent expects a list of names; got the one text "cat"'):
        Truth(labels=[], absent="cat")


def test_calls_that_cannot_mean_anything_are_refused():
    picture = truth(A), found((A, 0.5))
    with pytest.raises(UnknownName, match='no class "cat"; did you mean "cats"'):
        coco_scores([picture], ["cats"])
    with pytest.raises(UnknownName, match='no class "dog"'):
        lvis_scores([(truth(A, absent=["dog"]), found())], {"cat": "r"}, by="boxes")
    with pytest.raises(UsageError, match="classes expects each name once"):
        coco_scores([picture], ["cat", "cat"])
    with pytest.raises(UsageError, match='by expects "boxes" or "masks"; got "keypoints"'):
        coco_scores([picture], ["cat"], by="keypoints")
    with pytest.raises(UsageError, match="scores by masks need masks in all images; Truth 0 has none"):
        coco_scores([picture], ["cat"], by="masks")
    half = masked(picture[1])
    with pytest.raises(UsageError, match=r"must have the shape \(100, 100\) of the true ones; got \(50, 100\)"):
        coco_scores([(masked(picture[0]), replace(half, masks=half.masks[:, :50]))], ["cat"], by="masks")
    with pytest.raises(UsageError, match="LVIS has no crowd regions"):
        lvis_scores([(truth(A, crowd=[True]), found())], {"cat": "r"}, by="boxes")
    with pytest.raises(UsageError, match='frequency expects "r", "c" or "f"; got "rare" for "cat"'):
        lvis_scores([picture], {"cat": "rare"}, by="boxes")
