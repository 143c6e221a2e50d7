import pytest
import torch

from rebus.nn import attention as module
from rebus.nn.attention import Attention, attend
from rebus.nn.masks import attention_mask, causal_blocks


def by_hand(q, k, v, mask=None, scale=None, softcap=None):
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    scores = q @ k.mT * (q.shape[-1] ** -0.5 if scale is None else scale)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return scores.softmax(-1) @ v


@pytest.mark.parametrize("kv_heads", [1, 2, 6])
@pytest.mark.parametrize("queries", [1, 5])
@pytest.mark.parametrize("softcap", [None, 2.0])
def test_attend_is_the_formula(kv_heads, queries, softcap):
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 6, queries, 8), torch.randn(2, kv_heads, 5, 8), torch.randn(2, kv_heads, 5, 8)
    mask = torch.rand(2, 1, queries, 5) > 0.4
    mask[..., 0] = True
    out = attend(q, k, v, mask, scale=0.3, softcap=softcap)
    torch.testing.assert_close(out, by_hand(q, k, v, mask, 0.3, softcap))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kv_heads", [1, 2, 8])
@pytest.mark.parametrize("softcap", [None, 5.0])
@pytest.mark.parametrize("masked", ["no", "rows alike", "rows apart", "window"])
def test_a_lone_query_on_a_gpu_gives_the_same(monkeypatch, dtype, kv_heads, softcap, masked):
    torch.manual_seed(0)
    q = torch.randn(3, 8, 1, 16, dtype=dtype)
    k, v = (torch.randn(3, kv_heads, 40, 16, dtype=dtype) for _ in range(2))
    mask = {
        "no": None,
        "rows alike": torch.rand(1, 1, 1, 40) > 0.5,
        "rows apart": torch.rand(3, 1, 1, 40) > 0.5,
        "window": (torch.arange(40) > 30)[None, None, None],
    }[masked]
    exact = by_hand(q.double(), k.double(), v.double(), mask, 0.3, softcap)
    monkeypatch.setattr(module, "_is_lone_query", lambda queries, on_gpu: queries == 1)
    monkeypatch.setattr(module.F, "scaled_dot_product_attention", None)  # not the way on a GPU
    out = attend(q, k, v, mask, scale=0.3, softcap=softcap)
    assert out.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(out.double(), exact, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("queries", "on_gpu", "lone"), [(1, True, True), (1, False, False), (2, True, False), (2, False, False)]
)
def test_only_a_lone_query_on_a_gpu_goes_without_a_fused_kernel(queries, on_gpu, lone):
    assert module._is_lone_query(queries, on_gpu) is lone


@pytest.mark.parametrize("softcap", [None, 2.0])
def test_causal_is_the_causal_mask(softcap):
    q, k, v = torch.randn(3, 1, 4, 7, 8).unbind()
    mask = attention_mask(causal_blocks(0, 7))
    torch.testing.assert_close(attend(q, k, v, causal=True, softcap=softcap), attend(q, k, v, mask, softcap=softcap))


@pytest.mark.parametrize("kv_heads", [1, 4])
def test_joined_projections_change_nothing(kv_heads):
    layer = Attention(16, 4, num_kv_heads=kv_heads, head_width=6)
    x = torch.randn(2, 5, 16)
    expected = layer(x)
    layer.join_qkv()
    torch.testing.assert_close(layer(x), expected)


def test_cross_attention_reads_keys_and_values_from_the_context():
    layer = Attention(8, 2)
    x, context = torch.randn(1, 3, 8), torch.randn(1, 5, 8)
    out = layer(x, context)
    assert out.shape == x.shape
    order = torch.randperm(5)
    torch.testing.assert_close(layer(x, context[:, order]), out)  # a set without positions


def test_qk_norm_is_put_on_each_head():
    layer = Attention(8, 2, qk_norm=lambda width: torch.nn.LayerNorm(width, elementwise_affine=False))
    x = torch.randn(1, 3, 8)
    q, k = (layer._heads(part(x), 2) for part in (layer.q, layer.k))
    q, k = (torch.nn.functional.layer_norm(part, (4,)) for part in (q, k))
    expected = layer.out(by_hand(q, k, layer._heads(layer.v(x), 2)).transpose(1, 2).flatten(2))
    torch.testing.assert_close(layer(x), expected)
