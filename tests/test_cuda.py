"""What only a GPU can show: training, lower precision, compilation, capped attention, large batches, sharding.

`python -m benchmarks.gpu` runs them on a machine that has nothing but PyTorch and pytest.
"""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from rebus.core.outputs import Embeddings

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
CUDA = torch.device("cuda")


def losses(config, folder: Path) -> list[float]:
    from rebus.train import train

    train(config, folder)
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def on(config, device: str, **changed):
    return replace(config, devices=replace(config.devices, device=device, **changed))


def settings():
    from tests.train import settings

    return {"clip": settings.CLIP, "siglip": settings.SIGLIP, "paligemma": settings.PALIGEMMA}


@pytest.mark.parametrize("name", ["clip", "siglip", "paligemma"])
def test_training_on_a_gpu_follows_that_on_a_processor(name, tmp_path):
    config = settings()[name]
    torch.set_float32_matmul_precision("highest")
    expected = losses(on(config, "cpu"), tmp_path / "cpu")
    found = losses(on(config, "cuda"), tmp_path / "cuda")
    assert found == pytest.approx(expected, rel=1e-2)


def test_bfloat16_stays_near_float32(tmp_path):
    config = on(settings()["clip"], "cuda")
    exact = losses(config, tmp_path / "exact")
    half = losses(replace(config, bf16=True), tmp_path / "half")
    assert half == pytest.approx(exact, rel=0.05)
    assert half != exact


@pytest.mark.parametrize("name", ["clip", "paligemma"])
def test_compiled_training_equals_eager(name, tmp_path):
    torch._dynamo.reset()
    config = on(settings()[name], "cuda")
    eager = losses(config, tmp_path / "eager")
    compiled = losses(on(config, "cuda", compile=True), tmp_path / "compiled")
    assert compiled == pytest.approx(eager, rel=5e-3)


def test_recomputation_changes_nothing(tmp_path):
    config = on(settings()["paligemma"], "cuda")
    assert losses(on(config, "cuda", recompute=True), tmp_path / "again") == pytest.approx(
        losses(config, tmp_path / "kept"), rel=1e-5
    )


def writing_network(preset: str):
    from rebus.models.unified import paligemma

    torch.manual_seed(0)
    network = paligemma.PaliGemma(paligemma.PRESETS[preset]).eval()
    torch.nn.init.normal_(network.image_proj.weight)
    random = torch.Generator().manual_seed(1)
    tokens = torch.cat([torch.full((3, 9), 95), torch.randint(1, 90, (3, 5), generator=random)], dim=1)
    batch = {"pixels": torch.randn(3, 3, 24, 24, generator=random), "tokens": tokens}
    return network.to(CUDA), {name: value.to(CUDA) for name, value in batch.items()}


@pytest.mark.parametrize(
    ("preset", "options"),
    [("tiny", {}), ("tiny2", {"strategy": "beam", "num_beams": 2})],
    ids=["Gemma 1, greedy", "Gemma 2, beam"],
)
def test_a_compiled_step_in_a_graph_writes_what_the_eager_one_does(preset, options):
    from rebus.api import _compile
    from rebus.generation import generate

    torch._dynamo.reset()
    torch.set_float32_matmul_precision("highest")
    network, batch = writing_network(preset)
    common = {"eos_id": None, "pad_id": 0, "max_new_tokens": 12, **options}
    expected = generate(network, batch, **common)
    _compile(network)
    first, second = generate(network, batch, **common), generate(network, batch, **common)
    assert torch.equal(first, expected)
    assert torch.equal(second, expected)
    assert network.step._graphs, "no graph was recorded"


def test_a_graph_compiles_once_for_all_positions_and_prompts():
    from rebus.generation import generate
    from rebus.generation.cuda_graph import GraphedStep

    torch._dynamo.reset()
    network, batch = writing_network("tiny")
    network.step = GraphedStep(torch.compile(network.step, dynamic=False, fullgraph=True))
    torch._dynamo.utils.counters.clear()
    for length in (10, 12, 14):
        short = {**batch, "tokens": batch["tokens"][:, :length]}
        generate(network, short, eos_id=None, pad_id=0, max_new_tokens=8)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    assert len(network.step._graphs) == 1


@pytest.mark.parametrize("preset", ["tiny", "tiny2"])
def test_a_compiled_step_attends_by_products(preset):
    network, batch = writing_network(preset)
    called = []

    def look(graph, inputs):
        called.extend(str(node.target) for node in graph.graph.nodes)
        return graph.forward

    torch._dynamo.reset()
    with torch.inference_mode():
        begun = network.start(room=2, **batch)
        expected = network.step(begun.logits.argmax(1), begun.cache)
        found = torch.compile(network.step, backend=look, fullgraph=True)(begun.logits.argmax(1), begun.cache)
    torch.testing.assert_close(found.logits, expected.logits)
    assert any("matmul" in name for name in called)
    assert not any("scaled_dot_product" in name or "flex" in name for name in called)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("softcap", [None, 5.0])
def test_one_query_equals_the_last_of_many(dtype, softcap):
    from rebus.nn.attention import attend

    torch.set_float32_matmul_precision("highest")
    random = torch.Generator(CUDA).manual_seed(0)
    q = torch.randn(2, 4, 48, 32, generator=random, device=CUDA, dtype=dtype)
    k, v = (torch.randn(2, 2, 48, 32, generator=random, device=CUDA, dtype=dtype) for _ in range(2))
    mask = torch.rand(2, 1, 1, 48, generator=random, device=CUDA) > 0.3
    many = attend(q, k, v, mask.expand(2, 1, 48, 48), softcap=softcap)
    one = attend(q[:, :, -1:], k, v, mask, softcap=softcap)
    tolerance = 2e-2 if dtype == torch.bfloat16 else 5e-3 if softcap else 1e-4  # flex attention may round to TF32
    torch.testing.assert_close(one, many[:, :, -1:], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("causal", [False, True])
def test_capped_attention_by_flex_attention_equals_the_plain_computation(causal):
    from rebus.nn.attention import _attend_plain, attend

    num_queries = 48
    random = torch.Generator(CUDA).manual_seed(0)
    q = torch.randn(2, 4, num_queries, 32, generator=random, device=CUDA)
    k, v = (torch.randn(2, 2, 48, 32, generator=random, device=CUDA) for _ in range(2))
    mask = None if causal else torch.rand(2, 1, num_queries, 48, generator=random, device=CUDA) > 0.3
    q, k, v = (x.requires_grad_() for x in (q, k, v))
    expected = _attend_plain(q, k, v, mask, causal, None, 5.0)
    found = attend(q, k, v, mask, causal=causal, softcap=5.0)
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=5e-3)
    weights = torch.randn(expected.shape, generator=random, device=CUDA)
    for ours, theirs in zip(
        torch.autograd.grad(found, (q, k, v), weights), torch.autograd.grad(expected, (q, k, v), weights), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=2e-2, atol=2e-2)


def features(rows: int, width: int) -> Embeddings:
    random = torch.Generator(CUDA).manual_seed(0)
    image, text = (
        F.normalize(torch.randn(rows, width, generator=random, device=CUDA), dim=1).requires_grad_() for _ in range(2)
    )
    scale, bias = (torch.tensor(value, device=CUDA, requires_grad=True) for value in (10.0, -10.0))
    return Embeddings(image, text, scale, bias)


def test_sigmoid_loss_in_chunks_equals_that_at_once():
    from rebus.objectives import sigmoid_contrastive

    e = features(2000, 64)
    found = sigmoid_contrastive(e, chunk=256).loss
    signs = 2 * torch.eye(2000, device=CUDA) - 1
    expected = -F.logsigmoid(signs * e.logits).sum() / 2000
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    inputs = (e.image, e.text, e.scale, e.bias)
    for ours, theirs in zip(torch.autograd.grad(found, inputs), torch.autograd.grad(expected, inputs), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("rows", [32_768, 262_144])
def test_sigmoid_loss_needs_memory_for_its_chunks_only(rows):
    """All scores of 262,144 pairs at once would be 275 GB."""
    from rebus.objectives import sigmoid_contrastive

    width, chunk = 64, 1024
    e = features(rows, width)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    loss = sigmoid_contrastive(e, chunk=chunk).loss
    loss.backward()
    assert torch.isfinite(loss)
    tables = 8 * rows * width * 4  # features, gradients and their products
    assert torch.cuda.max_memory_allocated() - before < tables + 10 * chunk * rows * 4


def test_a_step_of_lora_moves_the_thin_matrices_only():
    from rebus.models.unified import paligemma
    from rebus.nn.lora import add_lora
    from rebus.objectives import Learner, NextTokenLoss, backward
    from rebus.train import Optim
    from rebus.train.optim import make_optimisers

    cfg = paligemma.PRESETS["tiny"]
    torch.manual_seed(0)
    network = paligemma.PaliGemma(cfg).to(CUDA)
    add_lora(network, ("text",), 4, 8.0)
    batch = {n: t.to(CUDA) for n, t in paligemma.SYSTEM.example(cfg, 2, prompt=4, answer=4).items()}
    before = {name: value.clone() for name, value in network.state_dict().items()}
    learner = Learner(NextTokenLoss(), network)
    optimisers = make_optimisers(network, Optim(lr=1e-2))
    found = []
    for _ in range(3):
        learner.zero_grad(set_to_none=True)
        found.append(float(backward(learner, [batch], lambda: torch.autocast("cuda", torch.bfloat16)).total))
        for optimiser in optimisers:
            optimiser.step()
    moved = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert moved
    assert all("lora_" in name for name in moved)
    assert found[-1] < found[0]


def test_sharding_over_one_rank_gives_the_same_losses(tmp_path, monkeypatch):
    from torch import distributed as dist
    from torch.distributed.device_mesh import init_device_mesh

    from rebus.models.contrastive import clip
    from rebus.objectives import Learner, SoftmaxLoss, backward
    from rebus.train.distributed import Ranks, distribute

    cfg = clip.PRESETS["tiny"]
    batch = {name: value.to(CUDA) for name, value in clip.SYSTEM.example(cfg, 8).items()}

    def three_steps(place: Ranks) -> list[float]:
        torch.manual_seed(0)
        learner = Learner(SoftmaxLoss(), clip.CLIP(cfg))
        distribute(learner, place)
        optimiser = torch.optim.SGD(learner.parameters(), lr=0.1, foreach=False)  # sharded ones and scalars
        found = []
        for _ in range(3):
            optimiser.zero_grad(set_to_none=True)
            found.append(float(backward(learner, [batch]).total))
            optimiser.step()
        return found

    expected = three_steps(Ranks(CUDA))
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}.items():
        monkeypatch.setitem(os.environ, name, value)
    device = torch.device("cuda", 0)
    torch.cuda.set_device(device)
    store = f"file://{tmp_path / 'store'}"
    dist.init_process_group("cpu:gloo,cuda:nccl", init_method=store, rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cuda", (1, 1, 1), mesh_dim_names=("replicate", "shard", "split"))
        found = three_steps(Ranks(device, mesh=mesh))
    finally:
        dist.destroy_process_group()
    assert found == pytest.approx(expected, rel=1e-4)


def test_int8_stays_near_float32():
    from rebus.models.contrastive import clip
    from rebus.nn.quantized import quantize_linears

    torch.manual_seed(0)
    network = clip.CLIP(clip.PRESETS["tiny"]).eval().to(CUDA)
    pixels = torch.randn(4, 3, 24, 24, device=CUDA)
    with torch.no_grad():
        exact = network.embed_image(pixels)
        found = quantize_linears(network).embed_image(pixels)
    assert F.cosine_similarity(exact, found.float()).min() > 0.99


def test_int4_multiplies_by_the_same_rounded_weights_as_a_processor():
    from rebus.nn.int4 import int4_product

    torch.manual_seed(0)
    weight, rows = torch.randn(100, 200), torch.randn(5, 200)
    here, _ = int4_product(weight)(rows)
    there, _ = int4_product(weight.to(CUDA))(rows.to(CUDA))
    torch.testing.assert_close(there.float().cpu(), here.float(), rtol=0.02, atol=0.1)
