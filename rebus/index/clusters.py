"""Images that belong together, without any labels: spherical k-means over the vectors of an index.

Dhillon & Modha, "Concept Decompositions for Large Sparse Text Data Using Clustering", 2001; begun as Arthur &
Vassilvitskii, "k-means++", 2007.
"""

from typing import NamedTuple

import numpy as np

from rebus.core.errors import UsageError
from rebus.index.snapshot import Snapshot

_LEARNED = 50_000  # rows that centres are learned from
_ROUNDS = 30
_BLOCK = 65_536


class Cluster(NamedTuple):
    """Rows, the nearest to the centre first, and their cosines with it."""

    rows: np.ndarray
    cosines: np.ndarray


def clusters(snapshot: Snapshot, number: int, seed: int = 0) -> list[Cluster]:
    """At most `number` clusters, the largest first; the same for the same seed. Raises `UsageError`."""
    rows = np.flatnonzero(~snapshot.missing)
    if not 1 <= number <= max(len(rows), 1):
        raise UsageError(f"{number} clusters of {len(rows):,} images: expected a number from 1 to that of the images")
    random = np.random.default_rng(seed)
    some = rows if len(rows) <= _LEARNED else np.sort(random.choice(rows, _LEARNED, replace=False))
    centres = _learn(np.array(snapshot.vectors[some]), number, random)
    of, cosines = np.empty(len(rows), np.int64), np.empty(len(rows), np.float32)
    for first in range(0, len(rows), _BLOCK):
        product = np.array(snapshot.vectors[rows[first : first + _BLOCK]]) @ centres.T
        of[first : first + _BLOCK], cosines[first : first + _BLOCK] = product.argmax(axis=1), product.max(axis=1)
    found = []
    for cluster in range(number):
        inside = np.flatnonzero(of == cluster)
        inside = inside[np.argsort(-cosines[inside], kind="stable")]
        if len(inside):
            found.append(Cluster(rows[inside], cosines[inside]))
    return sorted(found, key=lambda one: -len(one.rows))


def _learn(vectors: np.ndarray, number: int, random: np.random.Generator) -> np.ndarray:
    """(number, E) unit vectors."""
    centres = _spread(vectors, number, random)
    before = None
    for _ in range(_ROUNDS):
        of = (vectors @ centres.T).argmax(axis=1)
        if before is not None and np.array_equal(of, before):
            break
        before = of
        sums = np.zeros_like(centres)
        np.add.at(sums, of, vectors)
        norms = np.linalg.norm(sums, axis=1, keepdims=True)
        centres = np.where(norms > 0, sums / np.maximum(norms, 1e-12), centres)
    return centres


def _spread(vectors: np.ndarray, number: int, random: np.random.Generator) -> np.ndarray:
    """First centres: of a few that are drawn by how far they are from those before, the one that brings most near."""
    chosen = [int(random.integers(len(vectors)))]
    nearest = vectors @ vectors[chosen[0]]
    drawn = 2 + int(np.log(number))
    for _ in range(number - 1):
        far = np.maximum(1 - nearest.astype(np.float64), 0)
        total = far.sum()
        candidates = random.choice(len(vectors), drawn, p=far / total if total > 0 else None)
        reached = np.maximum(nearest[:, None], vectors @ vectors[candidates].T)
        best = int(reached.sum(axis=0).argmax())
        chosen.append(int(candidates[best]))
        nearest = reached[:, best]
    return vectors[chosen].copy()
