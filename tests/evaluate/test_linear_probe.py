"""Linear classifiers against scikit-learn's, which are the published protocol's."""

import numpy as np
import pytest
import torch

from rebus.evaluate.linear_probe import average_precision, best_costs, softmax_regression, svms

linear_model = pytest.importorskip("sklearn.linear_model")
metrics = pytest.importorskip("sklearn.metrics")
svm = pytest.importorskip("sklearn.svm")


def data(number=120, width=6, labels=3, seed=0):
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((number, width))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    wanted = features @ rng.standard_normal((width, labels)) + 0.4 * rng.standard_normal((number, labels)) > 0.5
    return torch.from_numpy(features), torch.from_numpy(wanted)


@pytest.mark.parametrize("cost", [0.01, 0.1, 1.0, 10.0])
def test_svms_are_those_of_liblinear(cost):
    features, wanted = data()
    found = svms(features, wanted, cost)
    for label in range(wanted.shape[1]):
        reference = svm.LinearSVC(C=cost, class_weight={1: 2, 0: 1}, tol=1e-8, max_iter=20_000)
        reference.fit(features.numpy(), wanted[:, label].numpy().astype(int))
        np.testing.assert_allclose(found.weight[:, label], reference.coef_[0], atol=2e-3)
        np.testing.assert_allclose(found.bias[label], reference.intercept_[0], atol=2e-3)


def test_each_label_learns_from_its_own_images():
    features, wanted = data()
    used = torch.rand(wanted.shape, generator=torch.Generator().manual_seed(0)) < 0.6
    found = svms(features, wanted, torch.tensor([0.1, 1.0, 10.0]), used=used)
    for label, cost in enumerate((0.1, 1.0, 10.0)):
        rows = used[:, label]
        alone = svms(features[rows], wanted[rows, label : label + 1], cost)
        torch.testing.assert_close(found.weight[:, label], alone.weight[:, 0], atol=2e-3, rtol=0)


def test_softmax_regression_is_scikit_learns():
    features, wanted = data(labels=4)
    labels = wanted.long().argmax(dim=1)
    found = softmax_regression(features, labels, 4, strength=31.6)
    reference = linear_model.LogisticRegression(C=31.6, tol=1e-8, max_iter=5000).fit(features.numpy(), labels.numpy())
    ours, theirs = found(features).softmax(dim=1), reference.predict_proba(features.numpy())
    np.testing.assert_allclose(ours, theirs, atol=2e-3)


@pytest.mark.parametrize("levels", [3, 1000], ids=["ties", "no ties"])
def test_average_precision_is_the_exact_one(levels):
    rng = np.random.default_rng(levels)
    scores, wanted = rng.integers(levels, size=60) / 7, rng.random(60) < 0.3
    found = average_precision(torch.from_numpy(scores), torch.from_numpy(wanted))
    assert found == pytest.approx(metrics.average_precision_score(wanted, scores), abs=1e-12)
    assert average_precision(torch.ones(3), torch.zeros(3, dtype=torch.bool)) == 0.0


def test_costs_are_chosen_for_images_that_were_not_learned_from():
    """Little can be learned from few images: whoever errs on none of them has learned the noise."""
    generator = torch.Generator().manual_seed(0)
    wanted = torch.rand(60, 1, generator=generator) < 0.5
    features = torch.randn(60, 40, generator=generator)
    features[:, :4] += wanted
    assert best_costs(features, wanted, costs=(10.0, 1e-4)).tolist() == [pytest.approx(1e-4)]
    assert best_costs(features, torch.cat([wanted, ~wanted], dim=1), costs=(0.1, 0.01)).shape == (2,)
