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
from rebus.models.contrastive.clip import PRESETS
from rebus.models.contrastive.clip_config import CLIPConfig, clip_vit
from rebus.plan.anatomy import anatomy
from rebus.plan.cost import Learning, costs
from rebus.plan.memory import Division, loss_bytes, memory, most_at_a_time, usable

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
from rebus.objectives import SoftmaxLoss
torch.set_num_threads(1)
rows = int(sys.argv[1])
def peak():  # not ru_maxrss, which begins at that of the process that started this one
    return 1024 * int(re.search("VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
def train(network, batch, steps):
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
data = batch(cfg, rows)
train(CLIP(cfg), data, 2)
print(peak() - before - sum(t.numel() * t.element_size() for t in data.values()))
"""


def held(cfg, division, *, batch=1024, at_a_time=64, bf16=False, **learning):
    body = anatomy(cfg, prompt=8, answer=8, bf16=bf16)
    parts = costs(body, Learning(**learning), checkpointing=False)
    return memory(body, parts, division, bf16=bf16, batch=batch, at_a_time=at_a_time)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and tells glibc to give back what is freed")
def test_a_real_step_takes_what_was_foreseen():
    """The peak of a process: within a tenth."""
    rows = 16
    done = subprocess.run(
        [sys.executable, "-c", STEPS, str(rows)],
        input=json.dumps(to_dict(MEDIUM)),
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "262144"},
    )
    foreseen = held(MEDIUM, Division(sharding="ddp", shards=1), batch=rows, at_a_time=rows).total
    assert foreseen == pytest.approx(float(done.stdout), rel=0.1)


def test_full_sharding_divides_what_is_kept_between_steps():
    cfg = PRESETS["l14"]
    whole = held(cfg, Division(sharding="ddp", shards=8))
    dealt = held(cfg, Division(sharding="fsdp", shards=8))
    for name in ("weights", "gradients", "optimiser"):
        assert getattr(dealt, name) == pytest.approx(getattr(whole, name) / 8, rel=1e-6)
    assert dealt.activations == whole.activations
    assert dealt.copies > whole.copies
    assert whole.weights == 4 * 427_616_513
    assert whole.optimiser == 2 * whole.gradients == 2 * whole.weights


def test_tensor_parallelism_divides_the_decoder_alone():
    cfg = catalog.system("paligemma").presets["3b_224"]
    alone = held(cfg, Division(sharding="fsdp+tp", shards=4))
    shared = held(cfg, Division(sharding="fsdp+tp", shards=4, within=4))
    assert 0.3 < shared.weights / alone.weights < 0.5  # image tower, words and one head of keys are on each GPU
    assert 0.3 < shared.an_example / alone.an_example < 0.9


def test_frozen_parts_need_neither_gradients_nor_moments():
    cfg = PRESETS["b32"]
    one = Division(sharding="ddp", shards=1)
    everything, text = held(cfg, one), held(cfg, one, frozen=("image", "image_proj"))
    assert text.gradients == 4 * (63_428_096 + 1)
    assert text.weights == everything.weights
    assert text.an_example < 0.6 * everything.an_example


def test_softmax_keeps_all_pairs_and_the_sigmoid_a_chunk():
    clip = anatomy(PRESETS["b32"], prompt=1, answer=1, bf16=True)
    siglip = anatomy(catalog.system("siglip").presets["b16_224"], prompt=1, answer=1, bf16=True)
    pairs = loss_bytes(clip, 32_768, 64)
    assert pairs > 16 * 512 * 32_768
    assert loss_bytes(clip, 65_536, 64) > 2.5 * pairs
    assert loss_bytes(siglip, 32_768, 64) < pairs / 10
    assert loss_bytes(siglip, 65_536, 64) < 4 * loss_bytes(siglip, 32_768, 64)


def test_the_most_that_fits_is_the_most():
    cfg, one = PRESETS["b32"], Division(sharding="ddp", shards=1)
    room = usable(24)
    most = most_at_a_time(held(cfg, one, at_a_time=1), room)
    assert held(cfg, one, at_a_time=most).total <= room < held(cfg, one, at_a_time=most + 1).total
    huge = replace(held(cfg, one, at_a_time=1), weights=10**12)
    assert most_at_a_time(huge, room) == 0
