import pytest
import torch

from rebus.core.errors import BadText
from rebus.nn.pooling import ProbePool, first_id, largest_id, masked_mean


def test_the_two_conventions_for_the_end_of_a_text():
    x = torch.arange(8.0).view(2, 4, 1)
    tokens = torch.tensor([[9, 3, 7, 7], [9, 1, 2, 3]])
    assert first_id(x[:1], tokens[:1], 7)[:, 0].tolist() == [2]
    with pytest.raises(BadText, match="text 1 has no token 7"):  # position 0 would look like an answer
        first_id(x, tokens, 7)
    assert largest_id(x, tokens)[:, 0].tolist() == [0, 4]
    assert largest_id(x, torch.tensor([[1, 5, 5, 0], [0, 0, 2, 5]]))[:, 0].tolist() == [1, 7]


def test_the_mean_is_over_real_tokens():
    x = torch.randn(2, 3, 4)
    mask = torch.tensor([[True, False, True], [False, False, False]])
    torch.testing.assert_close(masked_mean(x, mask)[0], x[0, [0, 2]].mean(0))
    assert masked_mean(x, mask)[1].eq(0).all()
    torch.testing.assert_close(masked_mean(x, None), x.mean(1))


def test_a_probe_sees_only_what_is_allowed():
    pool = ProbePool(8, 2, 16)
    torch.nn.init.normal_(pool.probe)
    x = torch.randn(2, 5, 8)
    mask = torch.ones(2, 1, 1, 5, dtype=torch.bool)
    mask[1, ..., 3:] = False
    pooled = pool(x, mask)
    torch.testing.assert_close(pooled[0], pool(x[:1])[0])
    torch.testing.assert_close(pooled[1], pool(x[1:, :3])[0])


def test_a_probe_is_projected_once_whatever_the_batch():
    """Its projection may be rounded otherwise as one row of a product than as one of many: 0.008 in bfloat16."""
    pool, rows = ProbePool(128, 2, 256).bfloat16(), []
    torch.nn.init.normal_(pool.probe)
    pool.attn.q.register_forward_hook(lambda module, given, out: rows.append(len(out)))
    x = torch.randn(64, 36, 128).bfloat16()
    many = pool(x)
    assert many.shape == (64, 128)
    torch.testing.assert_close(pool(x[:1]), many[:1])
    assert rows == [1, 1]
