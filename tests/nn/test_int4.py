import pytest
import torch
from torch import nn
from torch.nn import functional as F

from rebus.nn.int4 import GROUP, int4_product, quantize_groups
from rebus.nn.quantized import QuantizedLinear, is_quantized, quantize_linears


def test_codes_scales_and_zero_points_give_back_what_is_on_the_grid():
    torch.manual_seed(0)
    codes = torch.randint(0, 16, (6, 2 * GROUP))
    codes[:, ::GROUP], codes[:, 1::GROUP] = 0, 15
    weight = (codes - 3) * 0.5  # the range of each group holds zero
    found, scales, zeros = quantize_groups(weight)
    assert torch.equal(found, codes.int())
    back = (found.unflatten(1, (-1, GROUP)) - 8) * scales[..., None] + zeros[..., None]
    assert torch.equal(back.flatten(1), weight)


@pytest.mark.parametrize("sides", [(1, 1), (7, 5), (130, 70), (256, 96)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer_is_close_to_its_float_original(sides, bias, dtype):
    torch.manual_seed(0)
    layer = nn.Linear(*sides, bias)
    x = torch.randn(3, 2, sides[0]).to(dtype)
    with torch.no_grad():
        y, wanted = QuantizedLinear(int4_product, layer.weight, layer.bias)(x), layer(x.float())
    assert (y.dtype, y.shape) == (dtype, (3, 2, sides[1]))
    if sides != (1, 1):  # one number is one number
        assert float(F.cosine_similarity(y.float().flatten(), wanted.flatten(), dim=0)) > 0.99


def test_the_product_is_that_of_the_rounded_weights():
    torch.manual_seed(0)
    weight, x = torch.randn(64, 128), torch.randn(5, 128).bfloat16()
    codes, scales, zeros = quantize_groups(weight)
    rounded = ((codes.unflatten(1, (-1, GROUP)) - 8) * scales[..., None] + zeros[..., None]).flatten(1)
    y, _ = int4_product(weight)(x)
    torch.testing.assert_close(y.float(), x.float() @ rounded.T, rtol=0.01, atol=0.05)


def test_a_row_does_not_depend_on_the_batch():
    torch.manual_seed(0)
    layer = QuantizedLinear(int4_product, torch.randn(40, 128))
    x = torch.randn(70, 128)
    whole = layer(x)
    for row in (0, 33, 69):
        assert torch.equal(layer(x[row : row + 1]), whole[row : row + 1])
    assert layer(x[:0]).shape == (0, 40)


def test_image_encoders_keep_eight_bits():
    network = nn.ModuleDict({"image": nn.Sequential(nn.Linear(64, 64)), "text": nn.Sequential(nn.Linear(64, 64))})
    quantize_linears(network, "int4")
    assert is_quantized(network)
    assert type(network["text"][0].product).__name__ == "Int4Product"
    assert type(network["image"][0].product).__name__ != "Int4Product"
