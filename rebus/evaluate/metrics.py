"""Scores of predictions against the ground truth."""

from collections.abc import Hashable, Sequence

import numpy as np

XYXY = tuple[float, float, float, float]


def recall_at_1(scores: np.ndarray, owners: Sequence[Hashable]) -> float:
    """Share of rows whose best column has the row's own owner. scores (n, n); equal owners are equally right."""
    best = np.asarray(scores).argmax(axis=1)
    return float(np.mean([owners[row] == owners[column] for row, column in enumerate(best)]))


def box_iou(a: XYXY, b: XYXY) -> float:
    """Intersection over union of two boxes."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def mask_iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two bool masks of one size; 1 for two empty ones."""
    union = np.logical_or(a, b).sum()
    return float(np.logical_and(a, b).sum() / union) if union else 1.0
