"""Scores of predictions against the ground truth."""

from collections.abc import Hashable, Sequence

import numpy as np


def recall_at_1(scores: np.ndarray, owners: Sequence[Hashable]) -> float:
    """Share of rows whose best column has the row's own owner. scores (n, n); equal owners are equally right."""
    best = np.asarray(scores).argmax(axis=1)
    return float(np.mean([owners[row] == owners[column] for row, column in enumerate(best)]))


def mask_iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two bool masks of one size; 1 for two empty ones."""
    union = np.logical_or(a, b).sum()
    return float(np.logical_and(a, b).sum() / union) if union else 1.0
