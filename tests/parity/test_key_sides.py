"""Attention of GPT-NeoX and of Meta's Llama, its weights converted by the key table, against the reference library."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from rebus.weights.key_sides import interleaved_qkv, rotary_pairs
from rebus.weights.keymap import KeyMap

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.parity

WIDTH, HEADS, KV_HEADS, HEAD_WIDTH, LENGTH = 24, 4, 2, 6, 7


def llama(kv_heads: int, bias: bool):
    """transformers' attention with halves of a head turned together, and its rotary tables."""
    from transformers.models.llama.modeling_llama import LlamaAttention, LlamaRotaryEmbedding

    config = transformers.LlamaConfig(
        hidden_size=WIDTH,
        num_attention_heads=HEADS,
        num_key_value_heads=kv_heads,
        head_dim=HEAD_WIDTH,
        attention_bias=bias,
        attn_implementation="eager",
    )
    return LlamaAttention(config, layer_idx=0).eval(), LlamaRotaryEmbedding(config)


def causal() -> Tensor:
    return torch.full((LENGTH, LENGTH), float("-inf")).triu(1)[None, None]


def test_neox_attention_is_llama_attention_with_its_rows_sorted():
    from transformers.models.gpt_neox.modeling_gpt_neox import GPTNeoXAttention

    torch.manual_seed(0)
    config = transformers.GPTNeoXConfig(
        hidden_size=WIDTH,
        num_attention_heads=HEADS,
        rope_parameters={"rope_theta": 10_000.0, "partial_rotary_factor": 1.0, "rope_type": "default"},
        attn_implementation="eager",
    )
    reference = GPTNeoXAttention(config, layer_idx=0).eval()
    keys = KeyMap(
        [
            (interleaved_qkv("query_key_value.{p}", HEADS), ("q_proj.{p}", "k_proj.{p}", "v_proj.{p}")),
            ("dense.{p}", "o_proj.{p}"),
        ]
    )
    theirs = {name: torch.randn_like(t) for name, t in reference.state_dict().items()}
    reference.load_state_dict(theirs)
    ours, rotary = llama(HEADS, bias=True)
    ours.load_state_dict({name: t.load() for name, t in keys.to_ours(theirs).items()})
    x = torch.randn(2, LENGTH, WIDTH)
    angles = rotary(x, torch.arange(LENGTH)[None])
    with torch.no_grad():
        wanted = reference(x, attention_mask=causal(), position_embeddings=angles)[0]
        torch.testing.assert_close(ours(x, position_embeddings=angles, attention_mask=causal())[0], wanted)


def turned_in_pairs(x: Tensor) -> Tensor:
    """Rotary positions as Meta wrote them: (B, H, L, K), neighbours as real and imaginary part."""
    rates = 10_000.0 ** (-torch.arange(0, HEAD_WIDTH, 2) / HEAD_WIDTH)
    angles = torch.outer(torch.arange(LENGTH).float(), rates)
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)).flatten(-2)


def test_llama_attention_of_meta_and_of_gguf_is_that_of_transformers():
    torch.manual_seed(0)
    theirs = {
        "wq": torch.randn(HEADS * HEAD_WIDTH, WIDTH),
        "wk": torch.randn(KV_HEADS * HEAD_WIDTH, WIDTH),
        "wv": torch.randn(KV_HEADS * HEAD_WIDTH, WIDTH),
        "wo": torch.randn(WIDTH, HEADS * HEAD_WIDTH),
    }
    x = torch.randn(2, LENGTH, WIDTH)
    q, k, v = (F.linear(x, theirs[name]).unflatten(-1, (-1, HEAD_WIDTH)).transpose(1, 2) for name in ("wq", "wk", "wv"))
    out = F.scaled_dot_product_attention(turned_in_pairs(q), turned_in_pairs(k), v, is_causal=True, enable_gqa=True)
    wanted = F.linear(out.transpose(1, 2).flatten(2), theirs["wo"])

    keys = KeyMap(
        [
            (rotary_pairs("wq", HEADS), "q_proj.weight"),
            (rotary_pairs("wk", KV_HEADS), "k_proj.weight"),
            ("wv", "v_proj.weight"),
            ("wo", "o_proj.weight"),
        ]
    )
    ours, rotary = llama(KV_HEADS, bias=False)
    ours.load_state_dict({name: t.load() for name, t in keys.to_ours(theirs).items()})
    angles = rotary(x, torch.arange(LENGTH)[None])
    with torch.no_grad():
        found = ours(x, position_embeddings=angles, attention_mask=causal())[0]
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)
