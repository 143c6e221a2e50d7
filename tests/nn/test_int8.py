import pytest
import torch
from torch import nn
from torch.nn import functional as F

from rebus.core.errors import UsageError
from rebus.core.machine import has_integer_dot_products
from rebus.nn import int8
from rebus.nn.attention import Attention
from rebus.nn.block import Block
from rebus.nn.embedding import TokenEmbedding
from rebus.nn.int8 import int8_product, quantize_rows
from rebus.nn.mlp import GatedMLP
from rebus.nn.patches import PatchProjection
from rebus.nn.quantized import QuantizedLinear, is_quantized, quantize_linears


@pytest.fixture(params=["_OneDNN", "_FBGEMM", "_Plain"])
def product(request, monkeypatch):
    """Every way to multiply that works here; the last is what runs on a GPU."""
    if request.param == "_OneDNN" and not has_integer_dot_products():
        pytest.skip("oneDNN's sums overflow on this processor: it has no VNNI")
    if request.param == "_FBGEMM" and "fbgemm" not in torch.backends.quantized.supported_engines:
        pytest.skip("this PyTorch has no FBGEMM")
    kind = getattr(int8, request.param)
    monkeypatch.setattr(int8, "_product", lambda codes, scales, many: kind(codes, scales))
    return request.param


def cosine(a, b):
    return F.cosine_similarity(a.float().flatten(), b.float().flatten(), dim=0).item()


@pytest.mark.parametrize("sides", [(1, 1), (7, 5), (33, 2), (64, 48)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer_is_close_to_its_float_original(product, sides, bias, dtype):
    torch.manual_seed(0)
    layer = nn.Linear(*sides, bias)
    quantised = QuantizedLinear(int8_product, layer.weight, layer.bias)
    x = torch.randn(3, 4, sides[0]).to(dtype)
    y = quantised(x)
    assert y.dtype == dtype
    assert y.shape == (3, 4, sides[1])
    assert cosine(y, layer(x.float())) > 0.999


def test_the_sum_is_exact(product):
    """Whole numbers that reach the largest code in each row and column lose nothing, however large their sum."""
    torch.manual_seed(0)
    top = 63 if product == "_FBGEMM" and not has_integer_dot_products(wide=True) else 127
    weight, x = torch.randint(-127, 128, (5, 40)).float(), torch.randint(-top, top + 1, (6, 40)).float()
    weight[:, 0], x[:, 0] = 127, top
    weight[0], x[0] = 127, top
    torch.testing.assert_close(QuantizedLinear(int8_product, weight)(x), x @ weight.T, rtol=1e-6, atol=0)


def test_a_row_does_not_depend_on_the_batch(product):
    torch.manual_seed(0)
    layer = QuantizedLinear(int8_product, torch.randn(20, 24), torch.randn(20))
    x = torch.randn(600, 24) * torch.logspace(-3, 3, 600)[:, None]
    whole = layer(x)
    for row in (0, 299, 599):
        alone, there = layer(x[row : row + 1]), whole[row : row + 1]
        if product == "_FBGEMM":  # the same integers; one row has its scale multiplied in another order
            torch.testing.assert_close(alone, there, rtol=1e-6, atol=1e-6 * float(there.abs().max()))
        else:
            assert torch.equal(alone, there)


def test_empty_batches_and_rows_of_zeros(product):
    layer = QuantizedLinear(int8_product, torch.randn(4, 6), torch.arange(4.0))
    assert layer(torch.zeros(0, 6)).shape == (0, 4)
    assert torch.equal(layer(torch.zeros(2, 6)), torch.arange(4.0).expand(2, 4))


@pytest.mark.parametrize("zero", [0, 128])
def test_rows_come_back_within_half_a_step(zero):
    x = torch.randn(300, 17) * 5
    codes, scales = quantize_rows(x, zero)
    back = (codes.float() - zero) * scales
    assert ((back - x).abs() <= scales * 0.501).all()
    assert codes.float().sub(zero).abs().max() <= 127


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch = PatchProjection(3, 16, 4, bias=True)
        self.block = Block(16, 2, 40, act="quick_gelu")
        self.gated = GatedMLP(16, 24)
        self.cross = Attention(16, 4)
        self.tokens = TokenEmbedding(11, 16)
        self.last = nn.Linear(16, 3)

    def forward(self, pixels):
        x = self.block(self.patch(pixels))
        x = x + self.gated(x)
        x = x + self.cross(x[:, :2].mean(1, keepdim=True), x)
        return self.last(x), self.tokens.scores(x) + self.tokens(torch.arange(11)).sum()


def test_a_network_is_quantised_whole(product):
    torch.manual_seed(0)
    network = Small().eval()
    pixels = torch.randn(2, 3, 9, 8)
    with torch.no_grad():
        expected = network(pixels)
        assert not is_quantized(network)
        quantize_linears(network, skip=["last"])
        found = network(pixels)
        alone = network(pixels[1:])
    assert is_quantized(network)
    assert isinstance(network.last, nn.Linear)
    assert not any(isinstance(m, nn.Linear) for name, m in network.named_modules() if name != "last")
    for ours, theirs, one in zip(found, expected, alone, strict=True):
        assert cosine(ours, theirs) > 0.99
        torch.testing.assert_close(ours[1:], one)


def test_a_quantised_network_changes_its_type_but_not_its_device():
    torch.manual_seed(0)
    network = quantize_linears(Small().eval())
    pixels = torch.randn(2, 3, 9, 8)
    with torch.no_grad():
        before = network(pixels)
        after = network.bfloat16()(pixels.bfloat16())
    assert all(part.dtype == torch.bfloat16 for part in after)
    assert all(cosine(a, b) > 0.99 for a, b in zip(before, after, strict=True))
    with pytest.raises(UsageError, match="stay on cpu"):
        network.to("meta")


def test_other_devices_are_refused():
    with pytest.raises(UsageError, match="cpu and cuda"):
        quantize_linears(nn.Linear(2, 2, device="meta"))
