"""What learns and what is only read: frozen matrices in bfloat16 change no product under autocast."""

import copy

import pytest
import torch
from torch import nn

from rebus import catalog
from rebus.core.errors import UnknownName
from rebus.nn.frozen import round_frozen, set_trained, unrounded
from rebus.nn.lora import LoRALinear, add_lora
from rebus.objectives import NextTokenLoss

SYSTEM = catalog.system("paligemma")
TINY = SYSTEM.presets["tiny"]


def with_lora() -> nn.Module:
    torch.manual_seed(0)
    network = SYSTEM.network(TINY)
    add_lora(network, ("text",), rank=2, alpha=4.0)
    for module in network.modules():
        if isinstance(module, LoRALinear):
            nn.init.normal_(module.lora_b)
    return network


def test_rounded_weights_give_the_same_loss_and_gradients():
    exact, rounded = with_lora(), with_lora()
    round_frozen(rounded)
    batch = SYSTEM.example(TINY, 2, prompt=4, answer=5)
    losses = []
    for network in (exact, rounded):
        with torch.autocast("cpu", torch.bfloat16):
            loss = NextTokenLoss()(network, batch).total
        loss.backward()
        losses.append(loss)
    assert torch.equal(*losses)
    theirs = dict(rounded.named_parameters())
    learned = {name: p for name, p in exact.named_parameters() if p.requires_grad}
    assert learned
    for name, parameter in learned.items():
        assert torch.equal(parameter.grad, theirs[name].grad), name


def test_only_frozen_matrices_are_rounded_and_come_back():
    before = with_lora()
    network = copy.deepcopy(before)
    round_frozen(network)
    kinds = {name: p.dtype for name, p in network.named_parameters()}
    assert kinds["text.blocks.0.attn.q.weight"] == kinds["image.patch.weight"] == torch.bfloat16
    for name in ("text.blocks.0.attn.q.lora_a", "text.tokens.weight", "image.positions", "image.norm.weight"):
        assert kinds[name] == torch.float32
    back = unrounded(network.state_dict(), before.state_dict())
    assert all(torch.equal(value, back[name]) for name, value in before.state_dict().items())
    other = {name: value + 1 for name, value in before.state_dict().items()}  # not what was rounded
    name = "image.patch.weight"
    assert torch.equal(unrounded(network.state_dict(), other)[name], network.get_parameter(name).float())


def test_a_matrix_that_is_also_a_table_of_words_stays():
    table, head = nn.Embedding(4, 3), nn.Linear(3, 4, bias=False)
    head.weight = table.weight
    network = nn.ModuleDict({"table": table, "head": head}).requires_grad_(False)
    round_frozen(network)
    assert head.weight.dtype == torch.float32


def test_parts_by_name():
    network = SYSTEM.network(TINY)
    set_trained(network, ("image", "text.tokens"), False)
    frozen = {name.split(".")[0] for name, p in network.named_parameters() if not p.requires_grad}
    assert frozen == {"image", "text"}
    assert network.image_proj.weight.requires_grad
    assert network.get_parameter("text.blocks.0.attn.q.weight").requires_grad
    with pytest.raises(UnknownName, match='"image"'):
        set_trained(network, ("imag",), False)
