"""Scores of answers against the truth."""

from collections.abc import Hashable, Mapping, Sequence

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


def average_precision(
    found: Sequence[Sequence[tuple[XYXY, float]]], truth: Sequence[Sequence[XYXY]], least_iou: float = 0.5
) -> float:
    """Area under the precision envelope of one class (PASCAL VOC 2010).

    For each picture: (box, score) as found, and the true boxes. Best scores choose first; a true box counts once.
    """
    total = sum(map(len, truth))
    ranked = sorted(((s, i, box) for i, row in enumerate(found) for box, s in row), key=lambda f: -f[0])
    taken: list[set[int]] = [set() for _ in truth]
    right = np.zeros(len(ranked))
    for rank, (_, picture, box) in enumerate(ranked):
        overlaps = [box_iou(box, other) for other in truth[picture]]
        best = int(np.argmax(overlaps)) if overlaps else -1
        if best >= 0 and overlaps[best] >= least_iou and best not in taken[picture]:
            taken[picture].add(best)
            right[rank] = 1
    if not total:
        return 0.0 if ranked else 1.0
    hits = np.cumsum(right)
    recall = np.concatenate([[0.0], hits / total])
    precision = hits / np.arange(1, len(ranked) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall) * envelope)) if len(ranked) else 0.0


def mean_average_precision(
    found: Sequence[Sequence[tuple[XYXY, str, float]]],
    truth: Sequence[Sequence[tuple[XYXY, str]]],
    labels: Sequence[str],
    least_iou: float = 0.5,
) -> float:
    """Mean of `average_precision` over the labels that occur in the truth."""
    each: Mapping[str, float] = {
        label: average_precision(
            [[(box, score) for box, name, score in row if name == label] for row in found],
            [[box for box, name in row if name == label] for row in truth],
            least_iou,
        )
        for label in labels
        if any(name == label for row in truth for _, name in row)
    }
    return float(np.mean(list(each.values()))) if each else 0.0
