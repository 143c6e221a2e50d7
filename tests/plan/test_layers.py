"""The formulas against the networks: parameters counted, products counted by PyTorch, bytes saved by autograd."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from rebus import catalog
from rebus.nn import linear as linear_module
from rebus.nn.lora import add_lora
from rebus.objectives import NextTokenLoss
from rebus.plan.anatomy import anatomy
from rebus.plan.cost import Learning, costs
from tests.plan.networks import ANSWER, PROMPT, Saved, batch, freeze, narrow, shallow

SIZED = [card for card in catalog.ROWS.values() if card.parameters]
COUNTED = [
    ("clip", "b32", ()),
    ("clip", "b32", ("image", "image_proj")),
    ("clip", "b32", ("text.tokens", "text.positions", "text.blocks")),
    ("clip", "rn50", ()),
    ("clip", "h14", ()),
    ("siglip", "so400m14_224", ()),
    ("siglip", "so400m16_256_i18n", ()),
    ("siglip", "v2_g16_256", ("image", "pool")),
    ("paligemma", "3b_224", ()),
    ("paligemma", "3b_224", ("image",)),
    ("paligemma", "v2_3b_224", ("text",)),
    ("paligemma", "v2_28b_224", ()),
]
SAVED = [
    ("clip", "b32", ()),
    ("clip", "b32", ("image", "image_proj")),
    ("clip", "b16_plus_240", ("text.tokens", "text.blocks")),
    ("clip", "rn50", ()),
    ("siglip", "b16_224", ()),
    ("siglip", "so400m14_224", ()),
    ("paligemma", "3b_224", ()),
    ("paligemma", "3b_224", ("text",)),
]


def planned(cfg, *, bf16=False, **learning):
    body = anatomy(cfg, prompt=PROMPT, answer=ANSWER, bf16=bf16)
    return body, costs(body, Learning(**learning), checkpointing=False)


@pytest.mark.parametrize("card", SIZED, ids=lambda card: card.name)
def test_parameters_are_those_of_the_catalogue(card):
    _, parts = planned(catalog.system(card.system).presets[card.preset])
    assert sum(part.params for part in parts) == sum(part.trained for part in parts) == card.parameters


@pytest.mark.parametrize("system, preset, frozen", COUNTED)
def test_flops_agree_with_the_counter(system, preset, frozen, monkeypatch):
    cfg = shallow(system, preset)
    with torch.device("meta"):
        network = catalog.system(system).network(cfg).train()
        freeze(network, frozen)
        inputs = batch(cfg, rows=2)
    # without the check that needs to see the tokens, of which "meta" has none
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    with FlopCounterMode(display=False) as counter:
        out = network(**inputs)
        forward = counter.get_total_flops()
        loss = out.logits.sum() if system == "paligemma" else out.image.sum() + out.text.sum()
        loss.backward()
    backward = counter.get_total_flops() - forward
    _, parts = planned(cfg, frozen=frozen)
    assert 2 * sum(part.forward for part in parts) == pytest.approx(forward, rel=0.001)
    assert 2 * sum(part.backward for part in parts) == pytest.approx(backward, rel=0.01)


@pytest.mark.parametrize("bf16", [False, True], ids=["float32", "autocast"])
@pytest.mark.parametrize("system, preset, frozen", SAVED)
def test_saved_bytes_agree_with_autograd(system, preset, frozen, bf16, monkeypatch):
    monkeypatch.setattr(linear_module, "rows_for_float32", lambda: float("inf"))  # as on a GPU
    cfg = narrow(system, preset)
    network = catalog.system(system).network(cfg).train()
    freeze(network, frozen)
    inputs = batch(cfg, rows=1)
    with Saved(network) as saved, torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        kept = NextTokenLoss()(network, inputs) if system == "paligemma" else network(**inputs)
    assert kept
    _, parts = planned(cfg, bf16=bf16, frozen=frozen)
    ours = sum(part.kept for part in parts) + (2 * sum(part.copied for part in parts) if bf16 else 0)
    assert ours == pytest.approx(saved.bytes, rel=0.03)


def test_naflex_saves_as_much_as_square_pictures():
    cfg = narrow("siglip", "v2_b16_naflex")
    network = catalog.system("siglip").network(cfg).train()
    inputs = batch(cfg, rows=1)
    with Saved(network) as saved:
        kept = network(**inputs)
    assert kept
    _, parts = planned(cfg)
    assert sum(part.kept for part in parts) == pytest.approx(saved.bytes, rel=0.03)


def test_lora_learns_what_the_formula_says():
    cfg = narrow("paligemma", "3b_224")
    network = catalog.system("paligemma").network(cfg).train()
    add_lora(network, ("text",), rank=4, alpha=8.0)
    _, parts = planned(cfg, rank=4, lora=("text",))
    learning = sum(p.numel() for p in network.parameters() if p.requires_grad)
    assert sum(part.trained for part in parts) == learning
    with Saved(network) as saved:
        kept = NextTokenLoss()(network, batch(cfg, rows=1))
    assert kept
    assert sum(part.kept for part in parts) == pytest.approx(saved.bytes, rel=0.05)


def test_checkpointing_keeps_the_inputs_of_blocks_and_computes_them_twice():
    cfg = catalog.system("clip").presets["b32"]
    body = anatomy(cfg, prompt=1, answer=1, bf16=False)
    plain, again = (costs(body, Learning(), checkpointing=on) for on in (False, True))
    blocks = next(layer for layer in body.parts[0].layers if layer.name == "image.blocks")
    assert plain[0].kept - again[0].kept == 12 * (blocks.kept - 4 * 50 * 768)
    assert again[0].kept_once == blocks.kept
    assert again[0].again == 12 * (blocks.linear + blocks.attention)
    assert plain[0].again == plain[0].kept_once == 0
    assert again[0].forward == plain[0].forward
