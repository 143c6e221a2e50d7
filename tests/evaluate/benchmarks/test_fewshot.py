import pytest
import torch

from rebus.core.errors import UnsupportedTask
from rebus.evaluate.benchmarks.fewshot import _means
from rebus.evaluate.linear_probe import softmax_regression
from rebus.evaluate.measure import measure
from tests.evaluate.benchmarks.samples import Told, coloured


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("coloured")
    coloured(root / "train", "train", 3)
    coloured(root / "test", "test", 4)
    return root


def test_curves_on_frozen_embeddings(folder, clip):
    result = measure(clip, "fewshot", folder, split="test", shots=(0, 1, 2, 16), draws=2)
    scores = result.document["scores"]
    assert set(scores["linear probe"]) == set(scores["nearest mean"]) == {"1", "2"}
    assert scores["linear probe"]["2"] > 0.8
    assert scores["nearest mean"]["2"] > 0.8
    assert scores["zero-shot"] == 1.0  # as zeroshot finds
    assert "too few images of some label for 16 shots" in result.document["notes"][1]
    (plot,) = result.outcome.plots
    assert plot.series["linear probe"][0] == [1, 2]


def test_batches_change_nothing(folder, clip):
    def run(**options):
        return measure(clip, "fewshot", folder, split="test", shots=(1,), draws=1, **options).document

    first, again = run(), run(batch_size=4)
    assert first["scores"] == again["scores"]
    assert first["data"]["fingerprint"] == again["data"]["fingerprint"]
    assert len(first["data"]["fingerprint"]) == 2


def test_the_probe_is_at_its_minimum():
    g = torch.Generator().manual_seed(0)
    centres = torch.nn.functional.normalize(torch.randn(3, 8, generator=g), dim=-1)
    own = torch.arange(3).repeat(5)
    seen = torch.nn.functional.normalize(centres[own] + 0.2 * torch.randn(15, 8, generator=g), dim=-1)
    probe = softmax_regression(seen, own, 3, 31.6)
    assert torch.equal(probe(centres).argmax(1), torch.arange(3))
    assert torch.equal((centres @ _means(seen, own, 3).T).argmax(1), torch.arange(3))
    twice = softmax_regression(seen.repeat(2, 1), own.repeat(2), 3, 31.6)
    assert not torch.allclose(twice.weight, probe.weight)  # more data weigh more against the penalty


def test_models_that_do_not_embed(folder):
    with pytest.raises(UnsupportedTask, match="fewshot needs a model that can embed_images"):
        measure(Told(ask=lambda images, questions: []), "fewshot", folder)
