import pytest
import torch
from torch.nn import functional as F

from rebus.nn.block import Block
from rebus.nn.embedding import TokenEmbedding
from rebus.nn.mlp import ACTIVATIONS, MLP, GatedMLP, quick_gelu


def test_quick_gelu_is_the_formula():
    x = torch.linspace(-6, 6, 101)
    torch.testing.assert_close(quick_gelu(x), x / (1 + torch.exp(-1.702 * x)))


@pytest.mark.parametrize("act", sorted(ACTIVATIONS))
def test_fusing_changes_nothing(act):
    torch.manual_seed(0)
    x = torch.randn(3, 8)
    layer, gated = MLP(8, 12, act), GatedMLP(8, 12, act)
    expected, expected_gated = layer(x), gated(x)
    layer.fuse()
    gated.join_products()
    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(gated(x), expected_gated)


def test_the_gate_multiplies():
    layer, x = GatedMLP(4, 6, "silu"), torch.randn(2, 4)
    gate, up, down = (part.weight for part in (layer.gate, layer.up, layer.down))
    torch.testing.assert_close(layer(x), (F.silu(x @ gate.T) * (x @ up.T)) @ down.T)


def test_a_block_adds_to_what_it_reads():
    block, x = Block(8, 2, 16), torch.randn(2, 3, 8)
    for layer in (block.attn.out, block.mlp.down):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    assert torch.equal(block(x), x)


def test_a_tied_embedding_reads_both_ways():
    table = TokenEmbedding(5, 3)
    torch.testing.assert_close(table.scores(table(torch.tensor([2]))), table.weight[2:3] @ table.weight.T)
