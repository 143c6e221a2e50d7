"""Paired tests and intervals: equal to scipy's, and right as often as they say."""

import numpy as np
import pytest
from scipy.stats import binomtest

from rebus.evaluate.paired import (
    compare_pairs,
    holm,
    interval,
    intervals,
    mcnemar,
    pareto,
    score_interval,
    sign_flips,
    smallest_mean,
    smallest_share,
    tie_groups,
)


@pytest.mark.parametrize("gains, losses", [(0, 0), (1, 0), (5, 0), (6, 0), (3, 9), (40, 61), (700, 612), (2500, 2400)])
def test_mcnemar_is_scipys_binomial_test(gains, losses):
    wanted = binomtest(gains, gains + losses).pvalue if gains + losses else 1.0
    assert mcnemar(gains, losses) == pytest.approx(wanted, rel=1e-12, abs=1e-300)
    assert mcnemar(losses, gains) == mcnemar(gains, losses)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def graded(rng, images, columns):
    """Differences of scores between 0 and 1: skewed, with many zeros."""
    return rng.beta(2, 5, (images, columns)) * rng.integers(0, 2, (images, columns)) - 0.1


def share(rng, images, columns):
    """Differences of right and wrong: 25% gains, 15% losses."""
    return rng.choice([-1.0, 0.0, 1.0], (images, columns), p=[0.15, 0.60, 0.25])


@pytest.mark.parametrize("draw, truth", [(share, 0.10), (graded, 2 / 7 / 2 - 0.1)])
@pytest.mark.parametrize("images", [100, 300])
def test_intervals_cover_as_often_as_they_say(draw, truth, images):
    values = draw(np.random.default_rng(1), images, 2000)
    low, high = intervals(values, resamples=2000)
    covered = ((low <= truth) & (truth <= high)).mean()
    assert 0.93 <= covered <= 0.97
    assert interval(values[:, 0]) == pytest.approx((low[0], high[0]), abs=0.02)


def test_the_interval_of_a_score_is_wilsons_for_right_and_wrong():
    wanted = binomtest(33, 40).proportion_ci(method="wilson")
    assert score_interval(np.array([1.0] * 33 + [0.0] * 7)) == pytest.approx((wanted.low, wanted.high), rel=1e-9)
    low, high = score_interval(np.ones(40))
    assert 0.9 < low < high == pytest.approx(1.0)
    part = np.array([0.5, 0.25, 1.0, 0.75, 0.5])
    assert score_interval(part) == interval(part)


def test_equal_models_are_seldom_called_better():
    rng = np.random.default_rng(2)
    hard = rng.uniform(0.2, 0.9, (1000, 120, 1))  # some images are hard for all models
    right = rng.random((1000, 120, 4)) < hard
    false = 0
    for run in right:
        gains = {(a, b): (run[:, b] & ~run[:, a]).sum() for a in range(4) for b in range(4)}
        ps = [mcnemar(int(gains[a, b]), int(gains[b, a])) for a in range(4) for b in range(a)]
        false += min(holm(ps)) <= 0.05
    assert false / 1000 <= 0.05
    assert false, "a test that never says better sees nothing"


def test_sign_flips_are_as_cautious_and_see_a_difference():
    rng = np.random.default_rng(3)
    false = sum(sign_flips(rng.normal(0, 0.2, 40), seed) <= 0.05 for seed in range(200))
    assert 1 <= false <= 20  # 10 expected, standard deviation 3
    assert sign_flips(rng.normal(0.2, 0.2, 40)) < 0.001
    assert sign_flips(np.array([0.5, 0.4, 0.6])) == 0.25  # two of all eight signs
    assert sign_flips(np.zeros(9)) == 1.0


def test_pairs_say_who_is_better_and_what_would_have_shown():
    rng = np.random.default_rng(4)
    base = rng.random(200) < 0.6
    scores = {"a": base, "b": base | (rng.random(200) < 0.4), "c": base ^ (rng.random(200) < 0.05)}
    pairs = {(p.first, p.second): p for p in compare_pairs({name: row.astype(float) for name, row in scores.items()})}
    assert pairs["a", "b"].better == "b"
    assert pairs["a", "c"].better is None
    assert pairs["a", "b"].low <= pairs["a", "b"].difference <= pairs["a", "b"].high
    assert all(p.test == "McNemar, exact" for p in pairs.values())
    graded = compare_pairs({"a": [0.5, 0.25, 1.0, 0.0], "b": [0.5, 0.5, 1.0, 0.25]})[0]
    assert graded.test == "sign flips"
    assert graded.better is None
    means = {name: row.mean() for name, row in scores.items()}
    assert tie_groups(means, list(pairs.values())) == [["b"], sorted("ac", key=lambda n: -means[n])]


def test_smallest_difference_is_the_edge_of_the_test():
    least = smallest_share(100, 20, 0.05)
    gains = round((20 + least * 100) / 2)
    assert mcnemar(gains, 20 - gains) <= 0.05 < mcnemar(gains - 1, 21 - gains)
    assert smallest_share(100, 0, 0.05) == 0.06  # six images that only one model gets right
    assert smallest_share(4, 2, 0.05) > 1  # four images show nothing
    values = np.random.default_rng(5).normal(0, 1, 400)
    assert smallest_mean(values, 0.05) == pytest.approx(1.96 / 20, rel=0.1)


def test_groups_overlap_where_the_middle_differs_from_neither_end():
    def pair(first, second, apart):
        from rebus.evaluate.paired import Pair

        q = 0.01 if apart else 0.5
        return Pair(first=first, second=second, difference=-0.1, low=0, high=0, p=q, adjusted=q, test="", smallest=0)

    pairs = [pair("a", "b", False), pair("b", "c", False), pair("a", "c", True)]
    assert tie_groups({"c": 0.1, "a": 0.3, "b": 0.2}, pairs) == [["a", "b"], ["b", "c"]]


def test_pareto():
    costs = {"good": (0.1, 9.0), "quick": (0.5, 1.0), "neither": (0.6, 2.0), "same": (0.1, 9.0)}
    assert pareto(costs) == {"good", "quick", "same"}
