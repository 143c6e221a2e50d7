import pytest
import torch
from torch import nn
from torch.nn import functional as F

from rebus.nn import linear as module
from rebus.nn.block import Block
from rebus.nn.linear import Linear, join, join_products, scaled
from rebus.nn.mlp import GatedMLP
from rebus.nn.patches import PatchProjection, cut


@pytest.mark.parametrize("rows", [100, 201])  # 200 come
def test_bfloat16_gives_the_same_numbers_on_either_path(monkeypatch, rows):
    monkeypatch.setattr(module, "rows_for_float32", lambda: rows)
    torch.manual_seed(0)
    layer = Linear(24, 12).bfloat16()
    x = torch.randn(2, 100, 24).bfloat16()
    exact = F.linear(x.double(), layer.weight.double(), layer.bias.double())
    y = layer(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.double(), exact, rtol=2**-8, atol=2**-7)


def test_joined_layers_stand_side_by_side():
    layers = [nn.Linear(6, n) for n in (4, 1, 3)]
    x = torch.randn(5, 6)
    torch.testing.assert_close(join(*layers)(x), torch.cat([layer(x) for layer in layers], dim=-1))
    assert join(nn.Linear(2, 3, bias=False), nn.Linear(2, 1, bias=False)).bias is None


def test_joined_products_keep_the_state_dict_and_hold_no_weight_twice():
    network = nn.Sequential(Block(8, 2, 12, act="quick_gelu"), GatedMLP(8, 12))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    x = torch.randn(2, 3, 8)
    expected = network(x)
    for _ in range(2):  # a second time changes nothing
        join_products(network)
    torch.testing.assert_close(network(x), expected)
    for after in (network.state_dict(), network.double().state_dict()):
        assert set(after) == set(before)
        assert all(torch.equal(after[name].float(), value) for name, value in before.items())
    assert sum(p.numel() for p in network.parameters()) == sum(value.numel() for value in before.values())
    q, k = (network.state_dict()[f"0.attn.{name}.weight"] for name in "qk")
    assert q.untyped_storage().data_ptr() == k.untyped_storage().data_ptr()


def test_a_scaled_layer_scales_its_bias_on_demand():
    layer, x = nn.Linear(3, 4), torch.randn(2, 3)
    torch.testing.assert_close(scaled(layer, 2.0, bias=True)(x), 2 * layer(x))
    torch.testing.assert_close(scaled(layer, 2.0, bias=False)(x), 2 * layer(x) - layer.bias)


@pytest.mark.parametrize("sides", [(8, 12), (9, 14)])
def test_patches_are_the_strided_convolution(sides):
    patch = PatchProjection(3, 5, 4, bias=True)
    pixels = torch.randn(2, 3, *sides)
    expected = F.conv2d(pixels, patch.weight, patch.bias, stride=4).flatten(2).mT
    torch.testing.assert_close(patch(pixels), expected)
    assert torch.equal(cut(pixels, 4)[1, 0], pixels[1, :, :4, :4].flatten())


@pytest.mark.parametrize("shape", [(5,), (1, 5), (2, 3, 5), (0, 5)])
@pytest.mark.parametrize("has_bias", [True, False])
def test_either_library_gives_the_same_float32_numbers(monkeypatch, shape, has_bias):
    torch.manual_seed(0)
    x, weight, bias = torch.randn(shape), torch.randn(7, 5), torch.randn(7) if has_bias else None
    wanted = torch.nn.functional.linear(x, weight, bias)
    for amd in (True, False):
        monkeypatch.setattr(module, "is_amd", lambda amd=amd: amd)
        with torch.no_grad():
            torch.testing.assert_close(module.linear(x, weight, bias), wanted)
            torch.testing.assert_close(module.linear(x, weight.T.contiguous().T, bias), wanted)
    weight.requires_grad_()
    module.linear(x, weight, bias).sum().backward()
    assert weight.grad is not None


@pytest.mark.filterwarnings("ignore")  # tracing is deprecated, and still what converters use
def test_a_traced_network_keeps_its_numbers(monkeypatch):
    monkeypatch.setattr(module, "is_amd", lambda: True)
    layer, x = module.Linear(5, 7), torch.randn(2, 5)
    with torch.no_grad():
        traced = torch.jit.trace(layer, x)
        torch.testing.assert_close(traced(x), layer(x))


def test_autocast_decides_what_is_multiplied(monkeypatch):
    x, weight = torch.randn(3, 5), torch.randn(7, 5)
    found = []
    for amd in (True, False):
        monkeypatch.setattr(module, "is_amd", lambda amd=amd: amd)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            found.append(module.linear(x, weight))
    assert found[0].dtype == torch.bfloat16
    assert torch.equal(*found)
