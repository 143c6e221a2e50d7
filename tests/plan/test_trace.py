"""The trace against real steps: products counted by PyTorch, bytes saved by autograd, ranks as the trainer splits."""

from dataclasses import replace

import pytest
import torch
from torch import distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from rebus import catalog
from rebus.core.errors import UsageError
from rebus.nn import linear as linear_module
from rebus.nn.blocks import blocks_of
from rebus.plan.step import Learning, Memory, Step, Trace
from rebus.plan.trace import _highest, _lengths, trace
from rebus.train.distributed import _split
from tests.plan.networks import ANSWER, PROMPT, counted, narrow, saved

FLOAT, HALF = Step(bf16=False), Step()
LORA = Learning(rank=4, lora=("text",))
CASES = [
    ("clip", "b32", FLOAT),
    ("clip", "b32", HALF),
    ("clip", "b32", Step(bf16=False, learning=Learning(frozen=("image", "image_proj")))),
    ("clip", "b16_plus_240", Step(learning=Learning(frozen=("text.tokens", "text.blocks")))),
    ("clip", "b32", Step(bf16=False, checkpointing=True)),
    ("clip", "b32", Step(checkpointing=True)),
    ("clip", "rn50", FLOAT),
    ("clip", "rn50", HALF),
    ("siglip", "so400m14_224", HALF),
    ("siglip", "so400m16_256_i18n", FLOAT),
    ("siglip", "v2_g16_256", Step(bf16=False, learning=Learning(frozen=("image", "pool")))),
    ("siglip", "v2_b16_naflex", FLOAT),
    ("siglip", "v2_b16_naflex", HALF),
    ("paligemma", "3b_224", FLOAT),
    ("paligemma", "3b_224", HALF),
    ("paligemma", "3b_224", Step(learning=Learning(frozen=("text",)))),
    ("paligemma", "3b_224", Step(bf16=False, learning=LORA)),
    ("paligemma", "3b_224", Step(learning=LORA)),
    ("paligemma", "3b_224", Step(checkpointing=True)),
    ("paligemma", "3b_224", Step(checkpointing=True, learning=LORA)),
    ("paligemma", "v2_28b_224", Step(bf16=False, learning=Learning(frozen=("image",)))),
    ("paligemma", "v2_28b_224", FLOAT),
    ("lit", "starter", FLOAT),
    ("lit", "starter", HALF),
    ("visualbert", "vqa", FLOAT),
    ("visualbert", "vqa_pre", HALF),
]


@pytest.mark.parametrize(
    ("name", "preset", "step", "lengths"),
    [
        ("virtex", "tiny", FLOAT, (1, 23)),
        ("virtex", "tiny", Step(bf16=False, prompt=4), (4, 20)),
        ("virtex", "tiny", Step(bf16=False, prompt=4, answer=9), (4, 9)),
        ("paligemma", "3b_224", FLOAT, (16, 112)),
    ],
)
def test_texts_are_as_long_as_the_model_reads_them(name, preset, step, lengths):
    system = catalog.system(name)
    assert _lengths(system, system.presets[preset], step, (224, 224)) == lengths


def test_no_step_is_planned_on_longer_texts_than_the_model_reads():
    system = catalog.system("virtex")
    with pytest.raises(UsageError, match="9 tokens of prompt and 16 of answer: virtex reads 24 together"):
        trace(system, system.presets["tiny"], Step(prompt=9, answer=16))


def traced(system: str, cfg, step: Step) -> Trace:
    return trace(catalog.system(system), cfg, with_lengths(step))


def with_lengths(step: Step, **changed) -> Step:
    return Step(**{**vars(step), "prompt": PROMPT, "answer": ANSWER, **changed})


@pytest.fixture(autouse=True)
def _as_on_a_gpu(monkeypatch):
    """Bfloat16 products stay bfloat16, whatever this processor is quick at."""
    monkeypatch.setattr(linear_module, "rows_for_float32", lambda: float("inf"))


@pytest.mark.parametrize("system, preset, step", CASES)
def test_a_trace_is_what_a_real_step_does(system, preset, step):
    cfg = narrow(system, preset)
    found = traced(system, cfg, step)
    forward, backward = counted(system, cfg, step)
    assert found.forward == pytest.approx(forward, rel=0.01)
    assert found.backward + found.again == pytest.approx(backward, rel=0.01)
    kept = found.copies + 2 * sum(part.kept for part in found.parts)
    if getattr(cfg.text, "score_cap", None) is None:
        assert kept == pytest.approx(saved(system, cfg, step, rows=2), rel=0.02)


def test_capped_scores_are_not_kept():
    """A processor writes them, the GPU's fused kernel does not: the trace is that of the network without the cap, whose
    mask is kept as numbers instead."""
    cfg = narrow("paligemma", "v2_28b_224")
    plain = replace(cfg, text=replace(cfg.text, score_cap=None))
    capped, without = (traced("paligemma", one, FLOAT) for one in (cfg, plain))
    length = cfg.num_image_tokens + PROMPT + ANSWER - 1
    masks = 4 * cfg.text.num_layers * length**2
    assert saved("paligemma", plain, FLOAT, rows=2) < saved("paligemma", cfg, FLOAT, rows=2)
    assert (capped.forward, capped.backward) == (without.forward, without.backward)
    assert sum(p.kept for p in capped.parts) == sum(p.kept for p in without.parts) - masks


def test_parts_add_up_and_are_called_as_in_the_network():
    cfg = narrow("paligemma", "3b_224")
    found = traced("paligemma", cfg, FLOAT)
    assert [part.title for part in found.parts] == ["image", "image_proj", "text", "loss"]
    _, project, text, loss = found.parts
    network = catalog.system("paligemma").network(cfg)
    assert found.params == sum(p.numel() for p in network.parameters())
    assert project.forward == 2 * cfg.num_image_tokens * network.image_proj.weight.numel()
    assert project.backward == 2 * project.forward
    # the scores of tokens are the text's, though they are worked out in a method of no module's forward
    length = cfg.num_image_tokens + PROMPT + ANSWER - 1
    block = sum(p.numel() for p in network.text.blocks[0].parameters() if p.ndim == 2)
    attention = 4 * length**2 * cfg.text.num_heads * cfg.text.head_width
    scores = 2 * ANSWER * network.text.tokens.weight.numel()
    assert text.forward == cfg.text.num_layers * (2 * length * block + attention) + scores
    assert text.backward == 2 * text.forward
    assert (loss.params, loss.forward, loss.backward) == (0, 0, 0)
    assert loss.kept >= 4 * ANSWER * cfg.text.vocab_size


def test_what_is_computed_again_is_all_but_the_last_product_of_a_block():
    cfg = narrow("clip", "b32")
    plain, again = (traced("clip", cfg, Step(checkpointing=on)) for on in (False, True))
    block = blocks_of(catalog.system("clip").network(cfg))[0]
    tokens = cfg.image.grid[0] ** 2 + 1
    products = sum(2 * tokens * layer.weight.numel() for layer in block.modules() if isinstance(layer, torch.nn.Linear))
    last = 2 * tokens * block.mlp.down.weight.numel()
    attention = 4 * tokens**2 * cfg.image.width
    assert again.parts[0].again == cfg.image.num_layers * (products - last + attention)
    assert plain.again == 0
    assert (again.forward, again.backward) == (plain.forward, plain.backward)
    assert again.activations(100) < plain.activations(100)


def test_a_rank_has_the_share_that_the_trainer_gives_it():
    cfg = narrow("paligemma", "3b_224")
    dist.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
    try:
        network = catalog.system("paligemma").network(cfg)
        _split(blocks_of(network), init_device_mesh("cpu", (2,)))
        numbers = sum(p.to_local().numel() if isinstance(p, DTensor) else p.numel() for p in network.parameters())
    finally:
        dist.destroy_process_group()
    whole = traced("paligemma", cfg, FLOAT)
    here = traced("paligemma", cfg, with_lengths(FLOAT, ranks=2))
    assert here.held == 4 * numbers
    assert here.trained == numbers
    patches = 2 * cfg.num_image_tokens * 3 * cfg.image.patch_size**2 * cfg.image.width
    outside, shared_keys = patches + whole.parts[1].forward, 2 * cfg.text.width * cfg.text.head_width
    length = cfg.num_image_tokens + PROMPT + ANSWER - 1
    repeated = (
        outside + 2 * length * cfg.text.num_layers * shared_keys + 2 * ANSWER * cfg.text.width * cfg.text.vocab_size
    )
    assert here.forward == (whole.forward + repeated) // 2


def test_frozen_matrices_are_halves_under_autocast():
    cfg = narrow("paligemma", "3b_224")
    full, half = (traced("paligemma", cfg, Step(bf16=on, learning=LORA)) for on in (False, True))
    network = catalog.system("paligemma").network(cfg)
    matrices = sum(m.weight.numel() for m in network.modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv2d))
    assert full.held - half.held == 2 * matrices
    assert half.copies < 2 * matrices / 10  # nothing beside them


def test_the_highest_moments_are_kept():
    lines = [(100, 1), (0, 10), (60, 2), (50, 5), (40, 6), (0, 0)]
    kept = _highest(lines)
    assert Memory(fixed=0, each=0) not in kept
    for examples in range(100):
        assert max(m.fixed + m.each * examples for m in kept) == max(f + e * examples for f, e in lines)
    assert len(kept) < len(lines)


@pytest.mark.parametrize(
    "system, step, said",
    [
        ("clip", Step(learning=Learning(frozen=("imag",))), '"image"'),
        ("clip", Step(learning=Learning(only=("txt",))), '"text"'),
        ("clip", Step(learning=Learning(rank=4, lora=("txt",))), '"text"'),
        ("clip", Step(learning=Learning(frozen=("image", "image_proj", "text", "text_proj", "log_scale"))), "nothing"),
        ("clip", Step(ranks=5), "do not divide"),
        ("paligemma", Step(ranks=3), "heads"),
        ("asif", Step(), "nothing to train"),
    ],
)
def test_what_cannot_be_traced_says_why(system, step, said):
    described = catalog.system(system)
    with pytest.raises(UsageError, match=said):
        trace(described, described.presets.get("tiny"), step)
