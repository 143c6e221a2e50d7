"""One-to-one pairs of the largest sum, against SciPy and against every permutation."""

from itertools import permutations

import numpy as np
import pytest

from rebus.data.reading.assignment import assign


@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (4, 6), (6, 4), (1, 5), (5, 1), (0, 3), (3, 0)])
def test_no_other_pairs_have_a_larger_sum(shape):
    rng = np.random.default_rng(0)
    for values in (rng.normal(size=shape), rng.integers(0, 3, size=shape), np.zeros(shape)):
        pairs = assign(values)
        assert len(pairs) == len({r for r, _ in pairs}) == len({c for _, c in pairs}) == min(shape)
        short = values if shape[0] <= shape[1] else values.T
        most = max(
            (sum(short[r, c] for r, c in enumerate(order)) for order in permutations(range(max(shape)), min(shape))),
            default=0,
        )
        assert sum(values[r, c] for r, c in pairs) == pytest.approx(most)


def test_the_pairs_of_a_long_page_are_scipys():
    scipy = pytest.importorskip("scipy.optimize")
    values = np.random.default_rng(1).normal(size=(30, 90))
    assert assign(values) == list(zip(*map(list, scipy.linear_sum_assignment(-values)), strict=True))
