"""Arrays are made in the layout of big_vision, flax and the Gemma of JAX, and applied by their own rules."""

import zipfile

import ml_dtypes
import numpy as np
import pytest
import torch
from torch.nn.functional import conv2d

from rebus.core.errors import BadCheckpoint
from rebus.weights.checkpoint_files import open_weights
from rebus.weights.lazy_tensor import LazyTensor
from rebus.weights.npz import big_vision, open_npz

RNG = np.random.default_rng(0)
L, W, H, K, F = 3, 8, 2, 4, 12  # layers, width, heads, head width, hidden width


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def block(*lead: int) -> dict[str, np.ndarray]:
    """The arrays of an encoder block, with leading axes."""
    attention = {
        f"MultiHeadDotProductAttention_0/{part}/{leaf}": normal(*lead, *shape)
        for part in ("query", "key", "value")
        for leaf, shape in (("kernel", (W, H, K)), ("bias", (H, K)))
    }
    return attention | {
        "MultiHeadDotProductAttention_0/out/kernel": normal(*lead, H, K, W),
        "MultiHeadDotProductAttention_0/out/bias": normal(*lead, W),
        "LayerNorm_0/scale": normal(*lead, W),
        "LayerNorm_0/bias": normal(*lead, W),
        "MlpBlock_0/Dense_0/kernel": normal(*lead, W, F),
        "MlpBlock_0/Dense_0/bias": normal(*lead, F),
    }


def converted(tmp_path, arrays: dict[str, np.ndarray], save=np.savez) -> dict[str, torch.Tensor]:
    save(tmp_path / "w.npz", **arrays)
    found = big_vision(open_npz(tmp_path / "w.npz"))
    for name, lazy in found.items():
        assert tuple(lazy.load().shape) == lazy.shape, name
    return {name: lazy.load() for name, lazy in found.items()}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_stacked_layers_and_layers_apart_give_the_same(tmp_path, save):
    stacked = {f"params/img/Transformer/encoderblock/{name}": a for name, a in block(L).items()}
    apart = {
        name.removeprefix("params/").replace("encoderblock/", f"encoderblock_{i}/"): a[i]
        for name, a in stacked.items()
        for i in range(L)
    }
    one = converted(tmp_path, stacked | {"opt/state": normal(3)}, save)
    other = converted(tmp_path, apart, save)
    assert set(one) == set(other)
    assert "img/Transformer/encoderblock_2/MultiHeadDotProductAttention_0/query/weight" in one
    assert all(one[name].equal(other[name]) for name in one)


def test_kernels_act_as_their_own_library_applies_them(tmp_path):
    arrays = {
        "img/embedding/kernel": normal(2, 2, 3, W),
        "img/head/kernel": normal(W, 5),
        **{f"img/MAPHead_0/{name}": a for name, a in block().items()},
        "img/MAPHead_0/probe": normal(1, 1, W),
        "img/pos_embedding": normal(1, 9, W),
        "txt/Embed_0/embedding": normal(7, W),
        "t": normal(1),
    }
    found = converted(tmp_path, arrays)
    x = normal(4, W)
    torch.testing.assert_close(
        torch.tensor(x) @ found["img/head/weight"].T, torch.tensor(x @ arrays["img/head/kernel"])
    )

    head = "img/MAPHead_0/MultiHeadDotProductAttention_0"
    for part in ("query", "key", "value"):
        wanted = np.einsum("nd,dhk->nhk", x, arrays[f"{head}/{part}/kernel"]) + arrays[f"{head}/{part}/bias"]
        got = torch.tensor(x) @ found[f"{head}/{part}/weight"].T + found[f"{head}/{part}/bias"]
        torch.testing.assert_close(got.view(4, H, K), torch.tensor(wanted))
    y = normal(4, H, K)
    wanted = np.einsum("nhk,hkd->nd", y, arrays[f"{head}/out/kernel"])
    torch.testing.assert_close(torch.tensor(y).view(4, H * K) @ found[f"{head}/out/weight"].T, torch.tensor(wanted))

    picture = normal(1, 4, 4, 3)
    patches = picture.reshape(2, 2, 2, 2, 3).transpose(0, 2, 1, 3, 4).reshape(2, 2, 12)
    wanted = patches @ arrays["img/embedding/kernel"].reshape(12, W)
    got = conv2d(torch.tensor(picture).permute(0, 3, 1, 2), found["img/embedding/weight"], stride=2)
    torch.testing.assert_close(got[0].permute(1, 2, 0), torch.tensor(wanted))

    assert found["img/pos_embedding"].shape == (9, W)
    assert found["img/MAPHead_0/probe"].shape == (1, 1, W)
    assert found["img/MAPHead_0/LayerNorm_0/weight"].equal(torch.tensor(arrays["img/MAPHead_0/LayerNorm_0/scale"]))
    assert found["txt/Embed_0/weight"].shape == (7, W)
    assert found["t"].shape == (1,)


def test_gemma_einsums_become_matrices(tmp_path):
    queries, pairs = 4, 2
    arrays = {
        "params/llm/embedder/input_embedding": normal(7, W),
        "params/llm/layers/attn/q_einsum/w": normal(L, queries, W, K),
        "params/llm/layers/attn/kv_einsum/w": normal(L, 2, pairs, W, K),
        "params/llm/layers/attn/attn_vec_einsum/w": normal(L, queries, K, W),
        "params/llm/layers/mlp/gating_einsum": normal(L, 2, W, F),
        "params/llm/layers/mlp/linear": normal(L, F, W),
        "params/llm/layers/pre_attention_norm/scale": normal(L, W),
        "params/llm/final_norm/scale": normal(W),
    }
    found = converted(tmp_path, arrays)
    names = ("attn/query", "attn/key", "attn/value", "attn/out", "mlp/gate", "mlp/up", "mlp/down", "pre_attention_norm")
    assert set(found) == {
        "llm/embedder/input_embedding",
        "llm/final_norm/weight",
        *(f"llm/layers_{i}/{name}/weight" for i in range(L) for name in names),
    }
    x = normal(5, W)
    wanted = np.einsum("td,hdk->thk", x, arrays["params/llm/layers/attn/q_einsum/w"][1])
    got = torch.tensor(x) @ found["llm/layers_1/attn/query/weight"].T
    torch.testing.assert_close(got.view(5, queries, K), torch.tensor(wanted))
    for index, name in enumerate(("key", "value")):
        wanted = np.einsum("td,hdk->thk", x, arrays["params/llm/layers/attn/kv_einsum/w"][2, index])
        got = torch.tensor(x) @ found[f"llm/layers_2/attn/{name}/weight"].T
        torch.testing.assert_close(got.view(5, pairs, K), torch.tensor(wanted))
    y = normal(5, queries, K)
    wanted = np.einsum("thk,hkd->td", y, arrays["params/llm/layers/attn/attn_vec_einsum/w"][0])
    got = torch.tensor(y).view(5, -1) @ found["llm/layers_0/attn/out/weight"].T
    torch.testing.assert_close(got, torch.tensor(wanted))
    for index, name in enumerate(("gate", "up")):
        wanted = x @ arrays["params/llm/layers/mlp/gating_einsum"][1, index]
        torch.testing.assert_close(torch.tensor(x) @ found[f"llm/layers_1/mlp/{name}/weight"].T, torch.tensor(wanted))
    z = normal(5, F)
    wanted = z @ arrays["params/llm/layers/mlp/linear"][1]
    torch.testing.assert_close(torch.tensor(z) @ found["llm/layers_1/mlp/down/weight"].T, torch.tensor(wanted))


def test_one_einsum_for_query_key_and_value(tmp_path):
    fused = normal(L, 3, H, W, K)
    found = converted(tmp_path, {"llm/layers/attn/qkv_einsum/w": fused})
    for index, name in enumerate(("query", "key", "value")):
        wanted = torch.tensor(fused[1, index]).permute(0, 2, 1).reshape(H * K, W)
        assert found[f"llm/layers_1/attn/{name}/weight"].equal(wanted)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16, np.float64, ">f4", np.int32, np.bool_])
def test_types_and_orders_are_kept(tmp_path, dtype, save):
    values = (normal(3, 4) * 3).astype(dtype)
    save(tmp_path / "w.npz", rows=values, columns=np.asfortranarray(values), one=values[0, 0])
    found = open_weights(tmp_path)
    for name, wanted in (("rows", values), ("columns", values), ("one", values[0, 0])):
        assert found[name].shape == np.shape(wanted)
        assert found[name].load().double().equal(torch.tensor(np.asarray(wanted).astype(np.float64)))
    assert found["rows"].part(1, 3).load().double().equal(torch.tensor(values[1:2].astype(np.float64)))
    if dtype is ml_dtypes.bfloat16:
        assert found["rows"].dtype == torch.bfloat16


def test_a_layer_is_read_alone(tmp_path):
    np.savez(tmp_path / "w.npz", **{"img/Transformer/encoderblock/LayerNorm_0/scale": normal(L, W)})
    whole = open_npz(tmp_path / "w.npz")["img/Transformer/encoderblock/LayerNorm_0/scale"]

    def never() -> torch.Tensor:
        raise AssertionError("the whole array was read")

    stacked = LazyTensor(whole.shape, whole.dtype, never, rows=whole.rows)
    big_vision({"img/Transformer/encoderblock/LayerNorm_0/scale": stacked})[
        "img/Transformer/encoderblock_1/LayerNorm_0/weight"
    ].load()


def test_fault_21_damaged_arrays_are_named(tmp_path):
    path = tmp_path / "w.npz"
    np.savez(path, good=normal(50), bad=np.array([{"a": 1}], dtype=object))
    with pytest.raises(BadCheckpoint, match='array "bad" holds Python objects, which are never unpickled'):
        open_npz(path)
    np.savez(path, text=np.array(["a"]))
    with pytest.raises(BadCheckpoint, match='array "text" holds type <U1'):
        open_npz(path)
    np.savez(path, good=normal(50))
    whole = path.read_bytes()
    for data in (b"", whole[:100], whole[:-30], b"<html>"):
        path.write_bytes(data)
        with pytest.raises(BadCheckpoint):
            open_npz(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w.npy", b"\x93NUMPY\x01\x00\x10\x00{'descr': 'no'  }")
    with pytest.raises(BadCheckpoint, match="damaged header"):
        open_npz(path)
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000,), }".ljust(118 - 0) + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(8))
    with pytest.raises(BadCheckpoint, match='array "w" is cut off'):
        open_npz(path)


def test_fault_21_shapes_that_do_not_fit_their_names(tmp_path):
    for name, shape in (
        ("img/head/kernel", (3,)),
        ("img/Transformer/encoderblock/LayerNorm_0/scale", ()),
        ("img/MAPHead_0/MultiHeadDotProductAttention_0/query/kernel", (3, 3)),
        ("img/MAPHead_0/MultiHeadDotProductAttention_0/query/bias", (3,)),
        ("llm/layers/attn/kv_einsum/w", (L, 3, H, W, K)),
        ("llm/layers/mlp/gating_einsum", (L, 3, W, F)),
        ("llm/layers/attn/q_einsum/w", (L, W, K)),
    ):
        np.savez(tmp_path / "w.npz", **{name: normal(*shape)})
        with pytest.raises(BadCheckpoint, match="array"):
            big_vision(open_npz(tmp_path / "w.npz"))
