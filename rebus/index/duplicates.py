"""Files that are one image several times: the same bytes, the same image, or images of the same thing.

"exact" compares hashes of the content; "same" what images look like (`rebus.index.look`), which re-encoded, resized and
turned copies keep; "similar" vectors of the model, which images of one burst share.
"""

from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np

from rebus.core.errors import UsageError
from rebus.index.look import turned, unit_looks
from rebus.index.snapshot import Snapshot

Kind = Literal["exact", "same", "similar"]
KINDS: tuple[Kind, ...] = ("exact", "same", "similar")
SAME = 0.97  # cosine of two looks, at least
SIMILAR = 0.95  # cosine of two vectors
_RATIO = 0.03  # in which the logarithms of width / height differ at most: sizes are rounded
_BLOCK = 2_048


def duplicates(
    snapshot: Snapshot,
    kind: Kind,
    least: float | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[list[int]]:
    """Groups of rows, the largest groups first; in a group the image of most pixels first, then of most bytes. Files
    that are missing are left out. `least`: the cosine of "same" or "similar". `progress`: blocks that are compared, and
    how many there are. Raises `UsageError`."""
    if kind not in KINDS:
        raise UsageError(f"duplicates are {', '.join(KINDS)}; got {kind!r}")
    if least is not None and (kind == "exact" or not 0 < least <= 1):
        raise UsageError(
            f"{kind} duplicates with a cosine of {least:g}: expected a number in (0, 1], and same or similar"
        )
    rows = np.flatnonzero(~snapshot.missing)
    if kind == "exact":
        pairs = _same_hash(snapshot, rows)
    elif kind == "same":
        pairs = _same_look(snapshot, rows, SAME if least is None else least, progress)
    else:
        vectors = snapshot.vectors
        pairs = _close(vectors, vectors, rows, SIMILAR if least is None else least, progress, (0, 1))
    return _groups(snapshot, pairs)


def _same_hash(snapshot: Snapshot, rows: np.ndarray) -> Iterator[tuple[int, int]]:
    first: dict[bytes, int] = {}
    hashes = snapshot.rows["hash"].to_pylist()
    for row in rows.tolist():
        other = first.setdefault(hashes[row], row)
        if other != row:
            yield other, row


def _same_look(
    snapshot: Snapshot, rows: np.ndarray, least: float, progress: Callable[[int, int], None]
) -> Iterator[tuple[int, int]]:
    looks = unit_looks(snapshot.looks())
    rows = rows[np.abs(looks[rows]).any(axis=1)]
    ratio = np.log(snapshot.column("width") / np.maximum(snapshot.column("height"), 1))
    for number, (degrees, others) in enumerate(turned(looks)):
        across = -1 if degrees in (90, 270) else 1
        for one, other in _close(looks, others, rows, least, progress, (number, 4)):
            if abs(ratio[one] - across * ratio[other]) < _RATIO:
                yield one, other


def _close(
    ones: np.ndarray,
    others: np.ndarray,
    rows: np.ndarray,
    least: float,
    progress: Callable[[int, int], None],
    turn: tuple[int, int],
) -> Iterator[tuple[int, int]]:
    """Pairs of different rows of which `ones[i] · others[j]` reaches `least`, a block at a time."""
    (number, turns), blocks = turn, -(-len(rows) // _BLOCK)
    columns = np.ascontiguousarray(others[rows])
    for first in range(0, len(rows), _BLOCK):
        product = np.asarray(ones[rows[first : first + _BLOCK]]) @ columns[first:].T
        for i, j in zip(*np.nonzero(product >= least), strict=True):
            if i != j:
                yield int(rows[first + i]), int(rows[first + j])
        progress(number * blocks + first // _BLOCK + 1, turns * blocks)


def _groups(snapshot: Snapshot, pairs: Iterator[tuple[int, int]]) -> list[list[int]]:
    """What pairs connect."""
    parent: dict[int, int] = {}

    def root(row: int) -> int:
        while (above := parent.setdefault(row, row)) != row:
            parent[row] = row = parent[above]
        return row

    for one, other in pairs:
        parent[root(other)] = root(one)
    members: dict[int, list[int]] = {}
    for row in list(parent):
        members.setdefault(root(row), []).append(row)
    pixels = snapshot.column("width").astype(np.int64) * snapshot.column("height")
    sizes = snapshot.column("size")
    groups = [sorted(group, key=lambda row: (-pixels[row], -sizes[row], row)) for group in members.values()]
    return sorted(groups, key=lambda group: (-len(group), group[0]))
