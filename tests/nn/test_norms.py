import pytest
import torch
from torch import nn

from rebus.nn.norms import RMSNorm


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rms_norm_is_the_formula_in_float32(dtype):
    norm = RMSNorm(12, eps=1e-3).to(dtype)
    nn.init.normal_(norm.weight)
    x = torch.randn(3, 4, 12).to(dtype)
    wide = x.double()
    expected = wide / (wide.square().mean(-1, keepdim=True) + 1e-3).sqrt() * (1 + norm.weight.double())
    y = norm(x)
    assert y.dtype == dtype
    torch.testing.assert_close(y, expected.to(dtype))
