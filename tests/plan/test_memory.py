"""Memory of a GPU: its parts add up, sharding divides them, and a real step takes what was foreseen."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from rebus import catalog
from rebus.backbones.text.encoder import TextConfig
from rebus.core.config import to_dict
from rebus.models.contrastive.clip_config import CLIPConfig, clip_vit
from rebus.plan.memory import Division, loss_bytes, memory, most_at_a_time, usable
from rebus.plan.step import Contrast, Learning, Step
from rebus.plan.trace_cache import trace_by_name, trace_of

MEDIUM = CLIPConfig(
    image=clip_vit(width=384, num_layers=2, num_heads=6, mlp_width=1536),
    text=TextConfig(width=384, num_layers=2, num_heads=6, mlp_width=1536, vocab_size=20_000),
    embed=256,
)
# Gradients stay between steps, as under accumulation: the second step holds all kinds at once.
STEPS = """
import json, re, sys
import torch
from rebus.core.config import from_dict
from rebus.models.contrastive.clip import CLIP
from rebus.models.contrastive.clip_config import CLIPConfig
from rebus.nn.blocks import blocks_of
from rebus.nn.recompute import recomputed
from rebus.objectives import SoftmaxLoss
torch.set_num_threads(1)
rows, recompute = int(sys.argv[1]), sys.argv[2] == "again"
def peak():  # not ru_maxrss, which begins at that of the process that started this one
    return 1024 * int(re.search("VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
def train(network, batch, steps):
    for block in blocks_of(network) if recompute else ():
        block.forward = recomputed(block.forward)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-6, fused=True)
    for _ in range(steps):
        SoftmaxLoss()(network, batch).total.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=False)
def batch(cfg, rows):
    size = cfg.image.image_size
    return {"pixels": torch.ones(rows, 3, size, size), "tokens": torch.ones(rows, cfg.text.context, dtype=torch.long)}
from rebus.models.contrastive.clip import PRESETS
train(CLIP(PRESETS["tiny"]), batch(PRESETS["tiny"], 2), 1)  # what PyTorch takes for itself
before = peak()
cfg = from_dict(CLIPConfig, json.loads(sys.stdin.read()))
train(CLIP(cfg), batch(cfg, rows), 2)
print(peak() - before)
"""


def held(name, division, *, batch=1024, at_a_time=64, **changed):
    """Of a catalogue name, in float32 unless another step is asked for."""
    trace = trace_by_name(name, None, Step(**{"bf16": False, "ranks": division.within, **changed}))
    return memory(trace, division, batch=batch, at_a_time=at_a_time)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and tells glibc to give back what is freed")
@pytest.mark.parametrize("checkpointing", [False, True], ids=["once", "again"])
def test_a_real_step_takes_what_was_foreseen(checkpointing):
    """The peak of a process."""
    rows = 16
    done = subprocess.run(
        [sys.executable, "-c", STEPS, str(rows), "again" if checkpointing else "once"],
        input=json.dumps(to_dict(MEDIUM)),
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "262144"},
    )
    trace = trace_of(catalog.system("clip"), MEDIUM, Step(bf16=False, checkpointing=checkpointing))
    foreseen = memory(trace, Division(sharding="ddp", shards=1), batch=rows, at_a_time=rows).total
    assert foreseen == pytest.approx(float(done.stdout), rel=0.06)


def test_full_sharding_divides_what_is_kept_between_steps():
    whole = held("clip/b32", Division(sharding="ddp", shards=8))
    dealt = held("clip/b32", Division(sharding="fsdp", shards=8))
    for name in ("weights", "gradients", "optimiser"):
        assert getattr(dealt, name) == pytest.approx(getattr(whole, name) / 8, rel=1e-6)
    assert dealt.activations == whole.activations
    assert dealt.copies == whole.copies  # of a block at a time, gathered in the precision of its products
    assert whole.weights == 4 * 151_277_313
    assert whole.optimiser == 2 * whole.gradients == 2 * whole.weights


def test_tensor_parallelism_divides_the_decoder_alone():
    alone = held("paligemma/3b-pt-224", Division(sharding="fsdp+tp", shards=4))
    shared = held("paligemma/3b-pt-224", Division(sharding="fsdp+tp", shards=4, within=4))
    assert 0.3 < shared.weights / alone.weights < 0.5  # image encoder, words and one head of keys are on each GPU
    assert 0.3 < shared.an_example / alone.an_example < 0.9


def test_frozen_parts_need_neither_gradients_nor_moments():
    one = Division(sharding="ddp", shards=1)
    everything = held("clip/b32", one)
    text = held("clip/b32", one, learning=Learning(frozen=("image", "image_proj")))
    assert text.gradients == 4 * (63_428_096 + 1)
    assert text.weights == everything.weights
    assert text.an_example < 0.6 * everything.an_example


def test_lora_of_paligemma_3b_fits_a_gpu_of_16_gb():
    step = {"bf16": True, "checkpointing": True, "learning": Learning(rank=16, lora=("text",))}
    found = held("paligemma/3b-pt-224", Division(sharding="ddp", shards=1), batch=8, at_a_time=1, **step)
    assert found.total < usable(16)
    assert found.weights < 2.5 * 2_923_335_408  # halves, but for the table of words


def test_softmax_keeps_all_pairs_and_the_sigmoid_a_chunk():
    clip, siglip = Contrast(kind="softmax", width=512), Contrast(kind="sigmoid", width=768, chunk=1024)
    pairs = loss_bytes(clip, 32_768, 64)
    assert pairs > 16 * 512 * 32_768
    assert loss_bytes(clip, 65_536, 64) > 2.5 * pairs
    assert loss_bytes(siglip, 32_768, 64) < pairs / 10
    assert loss_bytes(siglip, 65_536, 64) < 4 * loss_bytes(siglip, 32_768, 64)
    assert loss_bytes(None, 65_536, 64) == 0


def test_the_most_that_fits_is_the_most():
    one, room = Division(sharding="ddp", shards=1), usable(24)
    trace = trace_by_name("clip/b32", None, Step(bf16=False))
    first = memory(trace, one, batch=1024, at_a_time=1)
    most = most_at_a_time(trace, first, room)
    totals = [memory(trace, one, batch=1024, at_a_time=rows).total for rows in (most, most + 1)]
    assert totals[0] <= room < totals[1]
    assert most_at_a_time(trace, replace(first, weights=10**12), room) == 0
