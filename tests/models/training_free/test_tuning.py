"""Overlap and the choice of k and p."""

import logging

import pytest
import torch

from rebus.core.errors import UsageError
from rebus.models.training_free.pairs import Pairs
from rebus.models.training_free.tuning import overlap, tune
from tests.models.training_free.test_pairs import world


def test_overlap_counts_shared_pairs_and_warns_when_there_are_few(caplog):
    image, text, *_ = world()
    queries_i, queries_t, *_ = world(15, seed=1)
    pairs = Pairs.of(image, text, k=5)
    kept = [d.dense() > 0 for d in (pairs.describe_images(queries_i), pairs.describe_texts(queries_t))]
    shared = kept[0].float() @ kept[1].float().T
    with caplog.at_level(logging.WARNING, "rebus"):
        found = overlap(pairs, queries_i, queries_t)
    assert found.mean_shared == pytest.approx(float(shared.mean()), abs=1e-5)
    assert found.zero_scores == pytest.approx(float((shared == 0).float().mean()), abs=1e-6)
    assert "larger k than 5" in caplog.text
    caplog.clear()
    assert overlap(pairs.with_settings(k=150), queries_i, queries_t).mean_shared > 10
    assert not caplog.text


def test_the_best_setting_comes_first_and_is_what_the_pairs_then_do():
    image, text, *_ = world()
    queries_i, queries_t, *_ = world(60, seed=1)
    pairs = Pairs.of(image, text)
    trials = tune(pairs, queries_i, queries_t, ks=(1, 20, 9999), ps=(1, 4))
    assert {(t.k, t.p) for t in trials} == {(k, p) for k in (1, 20, 400) for p in (1.0, 4.0)}
    best = trials[0]
    assert best.k > 1
    scores = pairs.with_settings(k=best.k, p=best.p)(queries_i, queries_t)
    right = (scores >= scores.diagonal()[:, None]).sum(1) == 1
    assert float(right.float().mean()) == pytest.approx(best.image_to_text)
    with pytest.raises(UsageError, match="row by row"):
        tune(pairs, queries_i, queries_t[:3])


def test_a_table_without_rows_is_answered():
    pairs = Pairs.of(torch.empty(0, 3), torch.empty(0, 4))
    assert pairs(torch.ones(2, 3), torch.ones(1, 4)).tolist() == [[0.0], [0.0]]
