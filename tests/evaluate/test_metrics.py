"""Metrics on cases worked out by hand."""

import numpy as np
import pytest

from rebus.core.box_overlap import box_iou
from rebus.evaluate.metrics import mask_iou, recall_at_1

A, B = (0.0, 0.0, 10.0, 10.0), (20.0, 20.0, 30.0, 30.0)


def test_recall_counts_equal_owners_as_right() -> None:
    scores = np.array([[0.1, 0.9, 0.0], [0.2, 0.8, 0.1], [0.9, 0.0, 0.1]])
    assert recall_at_1(scores, ["a", "b", "c"]) == pytest.approx(1 / 3)
    assert recall_at_1(scores, ["a", "a", "c"]) == pytest.approx(2 / 3)


def test_box_iou() -> None:
    assert box_iou(A, A) == 1
    assert box_iou(A, B) == 0
    assert box_iou(A, (0.0, 0.0, 10.0, 5.0)) == pytest.approx(0.5)
    assert box_iou(A, (10.0, 0.0, 20.0, 10.0)) == 0


def test_mask_iou() -> None:
    a = np.zeros((4, 4), dtype=bool)
    b = a.copy()
    assert mask_iou(a, b) == 1
    a[:2], b[1:3] = True, True
    assert mask_iou(a, b) == pytest.approx(1 / 3)
