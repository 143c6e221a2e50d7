"""Each way of lying: equal to the formula of its reference, and its two directions undo each other unread."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from rebus.core.errors import BadCheckpoint
from rebus.weights.key_sides import (
    HWIM,
    HWIO,
    PaddedRows,
    Permuted,
    Reshaped,
    Row,
    RowOrder,
    Side,
    Squeezed,
    Transposed,
    Unsqueezed,
    interleaved_qkv,
    nested,
    rotary_pairs,
    stacked,
)
from rebus.weights.keymap import KeyMap
from rebus.weights.lazy_tensor import LazyTensor

SIDES: list[tuple[Side, tuple[int, ...], tuple[int, ...]]] = [  # and the shapes here and there
    (Transposed("x"), (3, 5), (5, 3)),
    (Transposed("x"), (2, 3, 5), (2, 5, 3)),
    (Unsqueezed("x"), (1, 3, 5), (3, 5)),
    (Squeezed("x"), (3, 5), (1, 3, 5)),
    (Reshaped("x", (1, -1, 5), (-1, 5)), (1, 3, 5), (3, 5)),
    (Reshaped("x", (2, 3, -1), (6, -1)), (2, 3, 5), (6, 5)),
    (Permuted("x", HWIO), (7, 5, 3, 2), (2, 3, 7, 5)),
    (Permuted("x", HWIM), (7, 5, 3, 1), (3, 1, 7, 5)),
    (Permuted("x", (1, 2, 0)), (2, 3, 5), (3, 5, 2)),
    (interleaved_qkv("x", 4), (24, 5), (24, 5)),
    (interleaved_qkv("x", 4), (24,), (24,)),
    (rotary_pairs("x", 3), (18, 5), (18, 5)),
    (rotary_pairs("x", 3), (18,), (18,)),
    (RowOrder("x", (2, -1, 3, 5), (3, 0, 2, 1)), (60, 2), (60, 2)),
    (Permuted(Reshaped("x", (6, 5), (2, 3, 5)), (2, 1, 0)), (6, 5), (5, 3, 2)),
    (Unsqueezed(Transposed("x")), (1, 3, 5), (5, 3)),
]


def values(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("side", "here", "there"), SIDES, ids=[str(side) for side, *_ in SIDES])
def test_the_two_directions_undo_each_other(side, here, there):
    given = values(*here)
    for keys in (KeyMap([(side, "y")]), KeyMap([(side.under("a.").under("b."), "y")])):
        name = keys.theirs_name("y")[0]
        ours = keys.to_ours({name: given})["y"]
        assert ours.shape == tuple(ours.load().shape) == there
        back = keys.to_theirs({"y": ours.load()})[name]
        assert back.shape == here
        assert back.load().equal(given)
    assert KeyMap([("y", side)]).to_theirs({"x": given})["y"].load().equal(ours.load())


@pytest.mark.parametrize(("side", "here", "there"), SIDES, ids=[str(side) for side, *_ in SIDES])
def test_nothing_is_read_and_shapes_that_cannot_be_are_refused(side, here, there):
    def never() -> Tensor:
        raise AssertionError("read")

    keys = KeyMap([(side, "y")])
    keys.to_theirs(keys.to_ours({"x": LazyTensor(here, torch.float32, never)}))
    if not isinstance(side, Squeezed):
        with pytest.raises(BadCheckpoint, match=r'weight "x": expected .*; got shape \[\]'):
            keys.to_ours({"x": torch.zeros(())})
    if not isinstance(side, Unsqueezed):
        with pytest.raises(BadCheckpoint, match=r'weight "x": expected .*; got shape \[\]'):
            keys.to_theirs({"y": torch.zeros(())})


@pytest.mark.parametrize("shape", [(1, 3, 4), (2, 3, 5), (3, 5)])
def test_other_shapes_are_not_reshaped(shape):
    with pytest.raises(BadCheckpoint, match=r'"x": expected shape \[1, -1, 5\]'):
        KeyMap([(Reshaped("x", (1, -1, 5), (-1, 5)), "y")]).to_ours({"x": values(*shape)})
    with pytest.raises(BadCheckpoint, match=r'"x": expected rows in groups of 12'):
        KeyMap([(interleaved_qkv("x", 4), "y")]).to_ours({"x": values(15, 2)})


def test_a_padded_vocabulary():
    keys = KeyMap([(PaddedRows("wte.weight", rows=64, used=61), "tokens.weight")])
    table = values(64, 3)
    table[61:] = 0
    ours = keys.to_ours({"wte.weight": table})
    assert ours["tokens.weight"].load().equal(table[:61])
    back = keys.to_theirs(ours)["wte.weight"]
    assert back.shape == (64, 3)
    assert back.load().equal(table)
    for wrong in ({"wte.weight": values(61, 3)}, {"wte.weight": values(65, 3)}):
        with pytest.raises(BadCheckpoint, match="expected 64 rows"):
            keys.to_ours(wrong)
    with pytest.raises(BadCheckpoint, match="expected 61 rows"):
        keys.to_theirs({"tokens.weight": table})


def test_a_stack_of_layers_or_experts():
    keys = KeyMap(
        [
            stacked("layers/mlp/kernel", "blocks.{n}.mlp.weight", 3),
            stacked(Transposed("moe.{i}.experts"), "blocks.{i}.experts.{n}.up.weight", 2),
        ]
    )
    layers, experts = values(3, 4, 5), values(2, 4, 5)
    ours = keys.to_ours({"layers/mlp/kernel": layers, "moe.7.experts": experts})
    assert [ours[f"blocks.{n}.mlp.weight"].load().equal(layers[n]) for n in range(3)] == [True] * 3
    assert [ours[f"blocks.7.experts.{n}.up.weight"].load().equal(experts[n].T) for n in range(2)] == [True] * 2
    back = keys.to_theirs(ours)
    assert back["layers/mlp/kernel"].load().equal(layers)
    assert back["moe.7.experts"].load().equal(experts)
    with pytest.raises(BadCheckpoint, match="3 equal parts"):
        keys.to_ours({"layers/mlp/kernel": values(4, 4, 5)})
    with pytest.raises(BadCheckpoint, match="one element of a stack"):
        keys.to_ours({"layers/mlp/kernel": values(6, 4, 5)})


def test_queries_keys_and_values_fused_along_the_last_dimension():
    """GPT-2's `c_attn`: one matrix (in, 3 · out) that multiplies from the right."""
    parts = tuple(f"blocks.{{i}}.attn.{n}.weight" for n in "qkv")
    keys = KeyMap([(Transposed("h.{i}.attn.c_attn.weight"), parts)])
    fused, x = values(4, 18), values(7, 4)
    ours = keys.to_ours({"h.1.attn.c_attn.weight": fused})
    for n, wanted in zip("qkv", (x @ fused).split(6, dim=-1), strict=True):
        torch.testing.assert_close(F.linear(x, ours[f"blocks.1.attn.{n}.weight"].load()), wanted)
    assert keys.to_theirs(ours)["h.1.attn.c_attn.weight"].load().equal(fused)


def test_interleaved_as_the_reference_splits_it():
    """GPT-NeoX: `qkv.view(heads, 3 · width).chunk(3, -1)`."""
    heads, width = 4, 6
    fused = values(heads * 3 * width, 5)
    keys = KeyMap([(interleaved_qkv("qkv", heads), ("q", "k", "v"))])
    ours = keys.to_ours({"qkv": fused})
    for n, wanted in zip("qkv", fused.view(heads, 3 * width, 5).chunk(3, dim=1), strict=True):
        assert ours[n].load().equal(wanted.reshape(heads * width, 5))
    assert keys.to_theirs(ours)["qkv"].load().equal(fused)


def test_pairs_as_the_reference_permutes_them():
    """transformers' conversion: `w.view(heads, width // 2, 2, D).transpose(1, 2).reshape(heads · width, D)`."""
    heads, width = 3, 8
    matrix = values(heads * width, 5)
    ours = KeyMap([(rotary_pairs("wq", heads), "q")]).to_ours({"wq": matrix})
    assert ours["q"].load().equal(matrix.view(heads, width // 2, 2, 5).transpose(1, 2).reshape(heads * width, 5))


def test_kernels_of_tensorflow():
    image, kernel = values(1, 6, 5, 3), values(3, 2, 3, 4)  # NHWC and HWIO
    wanted = torch.stack(
        [torch.einsum("hwi,hwio->o", image[0, y : y + 3, x : x + 2], kernel) for y in range(4) for x in range(4)]
    ).reshape(4, 4, 4)
    ours = KeyMap([(Permuted("k", HWIO), "w")]).to_ours({"k": kernel})["w"].load()
    torch.testing.assert_close(F.conv2d(image.permute(0, 3, 1, 2), ours)[0].permute(1, 2, 0), wanted)

    depthwise = values(3, 2, 3, 1)
    ours = KeyMap([(Permuted("k", HWIM), "w")]).to_ours({"k": depthwise})["w"].load()
    wanted = torch.stack(
        [(image[0, y : y + 3, x : x + 2] * depthwise[..., 0]).sum((0, 1)) for y in range(4) for x in range(4)]
    ).reshape(4, 4, 3)
    torch.testing.assert_close(F.conv2d(image.permute(0, 3, 1, 2), ours, groups=3)[0].permute(1, 2, 0), wanted)


def test_a_dense_layer_over_a_flattened_grid():
    """TensorFlow flattens (height, width, channels), PyTorch (channels, height, width)."""
    height, width, channels, out = 3, 2, 4, 5
    rows = height * width * channels
    theirs = Permuted(Reshaped("fc6/kernel", (rows, out), (height, width, channels, out)), HWIO)
    keys = KeyMap([(theirs, Reshaped("fc6.weight", (out, rows), (out, channels, height, width)))])
    kernel, grid = values(rows, out), values(2, height, width, channels)
    ours = keys.to_ours({"fc6/kernel": kernel})
    torch.testing.assert_close(
        F.linear(grid.permute(0, 3, 1, 2).flatten(1), ours["fc6.weight"].load()), grid.flatten(1) @ kernel
    )
    assert keys.to_theirs(ours)["fc6/kernel"].load().equal(kernel)


def test_a_backbone_inside_a_larger_model():
    rows: list[Row] = [
        ("layers.{i}.norm.{p}", "blocks.{i}.norm.{p}"),
        (Transposed("layers.{i}.c_attn.weight"), ("blocks.{i}.q.weight", "blocks.{i}.k.weight")),
        ("pos", Unsqueezed("positions")),
    ]
    alone = KeyMap(rows)
    inside = KeyMap(nested(rows, theirs="transformer.h.", ours="text."))
    given = {"layers.2.norm.bias": values(3), "layers.2.c_attn.weight": values(3, 8), "pos": values(5)}
    wanted = alone.to_ours(given)
    found = inside.to_ours({"transformer.h." + name: tensor for name, tensor in given.items()})
    assert found.keys() == {"text." + name for name in wanted}
    assert all(found["text." + name].load().equal(tensor.load()) for name, tensor in wanted.items())
    back = inside.to_theirs(found)
    assert all(back["transformer.h." + name].load().equal(tensor) for name, tensor in given.items())
