"""`compile=True`: the towers, and the decoding step over its static cache, are whole graphs and give the same numbers.

In a process of its own, since the shape checks of the other tests would break the graphs.
"""

import os
import subprocess
import sys

import pytest

TOWERS = """
import torch
from rebus.models.contrastive import clip
torch.manual_seed(0)
network = clip.CLIP(clip.PRESETS["tiny"]).eval()
pixels, tokens = torch.randn(2, 3, 24, 24), torch.randint(0, 64, (2, 12))
with torch.no_grad():
    for run, batch in ((network.embed_image, pixels), (network.embed_text, tokens)):
        compiled = torch.compile(run, fullgraph=True, backend={backend!r})
        torch.testing.assert_close(compiled(batch), run(batch), rtol=1e-4, atol=1e-5)
"""
DECODING = """
import torch
from rebus.generation import generate
from rebus.models.unified import paligemma
torch.manual_seed(0)
network = paligemma.PaliGemma(paligemma.PRESETS["tiny2"]).eval()
torch.nn.init.normal_(network.image_proj.weight)
batch = {{
    "pixels": torch.randn(2, 3, 24, 24),
    "tokens": torch.cat([torch.full((2, 9), 95), torch.randint(1, 90, (2, 4))], dim=1),
}}
options = {{"eos_id": None, "pad_id": 0, "max_new_tokens": 8}}
expected = generate(network, batch, **options)
for name in ("see", "start"):
    setattr(network, name, torch.compile(getattr(network, name), backend={backend!r}))
network.step = torch.compile(network.step, fullgraph=True, dynamic=False, backend={backend!r})
torch._dynamo.utils.counters.clear()
assert torch.equal(generate(network, batch, **options), expected)
assert not torch._dynamo.utils.counters["graph_break"]
assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 3  # one step serves every position of the cache
"""
ENCODING = """
import torch
from rebus.generation import generate
from rebus.models.unified import florence2
torch.manual_seed(0)
config = florence2.PRESETS["tiny"]
network = florence2.Florence2(config).eval()
batch = {{
    "pixels": torch.randn(2, 3, 32, 32),
    "tokens": torch.cat(
        [torch.full((2, config.num_image_tokens), config.image_id), torch.randint(3, 90, (2, 4))], dim=1
    ),
}}
options = {{"eos_id": None, "pad_id": 1, "max_new_tokens": 8, "strategy": "beam", "num_beams": 3}}
expected, seen = generate(network, batch, **options), network.see(batch["pixels"])
network.see = torch.compile(network.see, fullgraph=True, backend={backend!r})
network.text.encode = torch.compile(network.text.encode, fullgraph=True, backend={backend!r})
network.step = torch.compile(network.step, fullgraph=True, dynamic=False, backend={backend!r})
torch.testing.assert_close(network.see(batch["pixels"]), seen, rtol=1e-4, atol=1e-5)
assert torch.equal(generate(network, batch, **options), expected)
assert not torch._dynamo.utils.counters["graph_break"]
"""
EVERY_SYSTEM = """
import torch
from rebus import catalog
from rebus.core.capabilities import EmbedsImages, EmbedsText, PicksAnswers, WritesText
seen = set()
for name in catalog.SYSTEMS:
    system = catalog.system(name)
    for preset, config in system.presets.items():
        if "tiny" not in preset:
            continue
        torch.manual_seed(0)
        torch._dynamo.reset()
        network = system.build(config).eval()
        whole = system.objective is not None  # what is put together without training searches its tables in Python
        # and positions of NaFlex are resized to the numbers in `grid`
        batch = system.example(config, 2, prompt=4, answer=4)
        text = batch.pop("tokens", torch.randint(3, 60, (2, 6)))  # detectors are trained on embedded texts
        with torch.no_grad():
            if isinstance(network, EmbedsImages):
                run = torch.compile(network.embed_image, fullgraph=whole and "grid" not in batch, backend={backend!r})
                torch.testing.assert_close(run(**batch), network.embed_image(**batch), rtol=1e-4, atol=1e-5)
                seen.add(name)
            if isinstance(network, EmbedsText):
                run = torch.compile(network.embed_text, fullgraph=whole, backend={backend!r})
                torch.testing.assert_close(run(text), network.embed_text(text), rtol=1e-4, atol=1e-5)
                seen.add(name)
            if isinstance(network, PicksAnswers):
                run = torch.compile(network.forward, fullgraph=True, backend={backend!r})
                found, wanted = run(tokens=text, **batch), network(tokens=text, **batch)
                torch.testing.assert_close(found[0], wanted[0], rtol=1e-4, atol=1e-5)
                seen.add(name)
            if isinstance(network, WritesText):
                targets = batch.pop("targets")
                first, again = (network.start(room=3, tokens=text, **batch) for _ in range(2))
                run = torch.compile(network.step, fullgraph=True, dynamic=False, backend={backend!r})
                found, wanted = run(targets[:, 0], first.cache), network.step(targets[:, 0], again.cache)
                torch.testing.assert_close(found.logits, wanted.logits, rtol=1e-4, atol=1e-5)
                seen.add(name)
assert seen == set(catalog.SYSTEMS), seen
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager", "inductor"])
@pytest.mark.parametrize("code", [TOWERS, DECODING, ENCODING], ids=["towers", "decoding", "encoding"])
def test_compiled_equals_eager(code, backend):
    _run(code.format(backend=backend))


@pytest.mark.slow
def test_every_system_compiles_as_a_whole():
    _run(EVERY_SYSTEM.format(backend="eager"))


def _run(code):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "REBUS_NO_SHAPE_CHECKS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
