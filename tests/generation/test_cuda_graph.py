"""Graphed steps, without a GPU: what is recorded is run anew into the same places, as a replay would do."""

import pytest
import torch

from rebus.generation import Guidance, cuda_graph, generate
from rebus.generation.cuda_graph import GraphedStep
from rebus.models.unified import paligemma


def rerun(run):
    """Stands in for a CUDA graph: results always land in the places of the first run."""
    out = run()

    def places(step):
        cache = step.cache
        return [step.logits, step.hidden, cache.real, cache.positions, cache.slot, cache.next_position]

    def replay():
        for place, value in zip(places(out), places(run()), strict=True):
            place.copy_(value)

    return replay, out


@pytest.fixture
def recorded(monkeypatch):
    monkeypatch.setattr(cuda_graph, "_record", rerun)
    monkeypatch.setattr(GraphedStep, "_can_record", lambda self, token, cache: True)


def network():
    torch.manual_seed(0)
    network = paligemma.PaliGemma(paligemma.PRESETS["tiny2"]).eval()
    torch.nn.init.normal_(network.image_proj.weight)
    return network


def batch(rows=2, words=4, seed=1):
    random = torch.Generator().manual_seed(seed)
    tokens = torch.cat(
        [torch.full((rows, 9), 95), torch.randint(1, 90, (rows, words), generator=random)],
        dim=1,
    )
    return {"pixels": torch.randn(rows, 3, 24, 24, generator=random), "tokens": tokens}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"strategy": "beam", "num_beams": 3},
        {"strategy": "contrastive", "k": 3, "alpha": 0.5},
        {"guidance": Guidance(scale=1.5, batch={"tokens": torch.full((1, 3), 5)})},
    ],
    ids=["greedy", "beam", "contrastive", "guidance"],
)
def test_every_strategy_writes_the_same(recorded, options):
    plain, graphed = network(), network()
    graphed.step = GraphedStep(graphed.step)
    common = {"eos_id": None, "pad_id": 0, "max_new_tokens": 8}
    expected = generate(plain, batch(), **common, **options)
    assert torch.equal(generate(graphed, batch(), **common, **options), expected)
    assert 1 <= len(graphed.step._graphs) <= cuda_graph.MOST


@torch.no_grad()
def test_sequences_that_take_turns_do_not_disturb_each_other(recorded):
    plain, graphed = network(), network()
    graphed.step = GraphedStep(graphed.step)
    steps = {}
    for name, net in (("plain", plain), ("graphed", graphed)):
        going = [net.start(room=6, **batch(seed=seed)) for seed in range(cuda_graph.MOST + 2)]
        for _ in range(5):
            going = [net.step(step.logits.argmax(dim=1), step.cache) for step in going]
        steps[name] = torch.stack([step.logits for step in going])
    torch.testing.assert_close(steps["graphed"], steps["plain"], rtol=1e-4, atol=1e-5)
    assert len(graphed.step._graphs) == cuda_graph.MOST


@torch.no_grad()
def test_results_stay_and_a_cache_can_be_continued_twice(recorded):
    net = network()
    net.step = GraphedStep(net.step)
    first = net.start(room=4, **batch())
    second = net.step(torch.tensor([5, 6]), first.cache)
    kept = second.logits.clone()
    third = net.step(torch.tensor([7, 8]), second.cache)
    assert torch.equal(second.logits, kept)
    assert torch.equal(net.step(torch.tensor([7, 8]), second.cache).logits, third.logits)
    assert int(third.cache.slot) == int(second.cache.slot) + 1


@torch.no_grad()
def test_prompts_of_other_lengths_share_a_graph(recorded):
    net = network()
    net.step = GraphedStep(net.step)
    for words in (3, 5, 9):
        generate(net, batch(words=words), eos_id=None, pad_id=0, max_new_tokens=3)
    assert len(net.step._graphs) == 1


def test_without_a_gpu_the_step_runs_as_it_is():
    net = network()
    net.step = GraphedStep(net.step)
    assert generate(net, batch(), eos_id=None, pad_id=0, max_new_tokens=3).shape == (2, 3)
    assert net.step._graphs == []
