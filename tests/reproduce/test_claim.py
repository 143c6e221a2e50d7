"""The rule by which a statement holds, on made-up numbers."""

import pytest

from rebus.reproduce.claim import Read, Statement, judge, together

OURS, THEIRS = Read("ours", "score"), Read("theirs", "score")


def judged(ours, theirs, **fields):
    seeds = range(len(ours))
    measured = {
        "ours": {seed: {"score": ours[seed]} for seed in seeds},
        "theirs": {seed: {"score": theirs[seed]} for seed in seeds},
    }
    return judge(Statement("ours is better", OURS, THEIRS, **fields), measured, list(seeds))


@pytest.mark.parametrize(
    "ours, theirs, outcome",
    [
        ([0.60, 0.62, 0.61], [0.50, 0.50, 0.50], "holds"),
        ([0.50, 0.50, 0.50], [0.60, 0.62, 0.61], "does not hold"),
        ([0.50, 0.50, 0.50], [0.50, 0.50, 0.50], "does not hold"),  # no difference is not a gain
        ([0.90, 0.90, 0.49], [0.50, 0.50, 0.50], "unclear"),  # the seeds disagree
        ([0.51, 0.51, 0.99], [0.50, 0.50, 0.50], "unclear"),  # all above, but the spread is larger than the mean
    ],
)
def test_outcomes(ours, theirs, outcome):
    assert judged(ours, theirs).outcome == outcome


def test_numbers_are_differences_of_the_same_seed():
    verdict = judged([0.9, 0.5, 0.7], [0.8, 0.3, 0.4])
    assert verdict.values == pytest.approx((0.1, 0.2, 0.3))
    assert verdict.mean == pytest.approx(0.2)
    assert verdict.spread == pytest.approx(0.1)
    assert verdict.outcome == "holds"


def test_bounds_and_ratios():
    assert judged([0.49, 0.49], [0.5, 0.5], least=-0.02).outcome == "holds"
    assert judged([0.47, 0.47], [0.5, 0.5], least=-0.02).outcome == "does not hold"
    assert judged([30.0, 33.0], [10.0, 11.0], by="times", least=2.0).values == pytest.approx((3.0, 3.0))
    assert judged([30.0, 33.0], [10.0, 11.0], by="times", least=3.5).outcome == "does not hold"
    against_chance = Statement("above chance", OURS, 0.25, by="times", least=2.0)
    assert judge(against_chance, {"ours": {7: {"score": 0.75}}}, [7]).outcome == "holds"


def test_rules_in_words():
    assert Statement("", OURS, THEIRS).rule == "score of ours − score of theirs > 0"
    assert Statement("", OURS, 0.25, by="times", least=2.0).rule == "score of ours / 0.25 > 2"


def test_the_claim_as_a_whole():
    good, bad = judged([1.0, 1.0], [0.0, 0.0]), judged([0.0, 0.0], [1.0, 1.0])
    assert together([good, good]) == "holds"
    assert together([good, bad, bad]) == "holds in part (1 of 3)"
    assert together([bad]) == "does not hold"
