import pytest
import torch

from rebus.core.errors import BadCheckpoint
from rebus.weights.key_sides import Transposed, Unsqueezed
from rebus.weights.keymap import KeyMap
from rebus.weights.lazy_tensor import LazyTensor

KEYS = KeyMap(
    [
        ("vision.embeddings.patch.{p}", "image.patch.{p}"),
        ("vision.layers.{i}.norm.{p:weight|bias|running_mean}", "image.blocks.{i}.norm.{p}"),
        (
            "vision.layers.{i}.in_proj_{p}",
            ("image.blocks.{i}.q.{p}", "image.blocks.{i}.k.{p}", "image.blocks.{i}.v.{p}"),
        ),
        (("text.layers.{i}.gate.weight", "text.layers.{i}.up.weight"), "text.blocks.{i}.gate_up.weight"),
        (Transposed("visual_projection"), "image.head.weight"),
        (Unsqueezed("vision.pos_embed"), "image.positions"),
        ("logit_scale", Unsqueezed("log_scale")),
    ],
    ignore=["*.position_ids"],
    prefixes=["module."],
    also=[("model.vision_tower.", "vision.")],
)


def theirs() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {
        "vision.embeddings.patch.weight": torch.randn(4, 3, 2, 2),
        "vision.embeddings.patch.bias": torch.randn(4),
        "vision.layers.0.norm.weight": torch.randn(4),
        "vision.layers.0.norm.running_mean": torch.randn(4),
        "vision.layers.11.in_proj_weight": torch.randn(12, 4),
        "vision.layers.11.in_proj_bias": torch.randn(12),
        "text.layers.3.gate.weight": torch.randn(5, 2),
        "text.layers.3.up.weight": torch.randn(5, 2),
        "visual_projection": torch.randn(4, 6),
        "vision.pos_embed": torch.randn(1, 9, 4),
        "logit_scale": torch.randn(()),
    }


def test_one_table_goes_both_ways_without_loss():
    given = theirs()
    ours = KEYS.to_ours(given)
    assert all(tuple(ours[name].load().shape) == ours[name].shape for name in ours)
    back = KEYS.to_theirs(ours)
    assert set(back) == set(given)
    for name, tensor in given.items():
        torch.testing.assert_close(back[name].load(), tensor, rtol=0, atol=0)
        assert back[name].shape == tuple(tensor.shape)


def test_rows_split_join_turn_and_unsqueeze():
    given = theirs()
    ours = KEYS.to_ours(given)
    assert ours["image.blocks.11.k.weight"].load().equal(given["vision.layers.11.in_proj_weight"][4:8])
    assert ours["image.blocks.11.v.bias"].load().equal(given["vision.layers.11.in_proj_bias"][8:])
    joined = torch.cat([given["text.layers.3.gate.weight"], given["text.layers.3.up.weight"]])
    assert ours["text.blocks.3.gate_up.weight"].load().equal(joined)
    assert ours["image.head.weight"].load().equal(given["visual_projection"].T)
    assert ours["image.positions"].shape == (9, 4)
    assert ours["log_scale"].shape == (1,)
    assert ours["image.blocks.0.norm.running_mean"].load().equal(given["vision.layers.0.norm.running_mean"])


def test_nothing_is_read_before_it_is_asked_for():
    def never() -> torch.Tensor:
        raise AssertionError("read")

    given = {name: LazyTensor(tuple(t.shape), t.dtype, never) for name, t in theirs().items()}
    KEYS.to_theirs(KEYS.to_ours(given))


def test_optional_prefixes_other_layouts_and_known_extras():
    patch = torch.randn(4, 3, 2, 2)
    for name in ("module.vision.embeddings.patch.weight", "module.model.vision_tower.embeddings.patch.weight"):
        ours = KEYS.to_ours({name: patch, "text.embeddings.position_ids": torch.arange(3)})
        assert list(ours) == ["image.patch.weight"]
    assert KEYS.ours_name("module.text.position_ids") == ()
    assert KEYS.ours_name("vision.layers.2.in_proj_bias")[1] == "image.blocks.2.k.bias"
    assert KEYS.theirs_name("text.blocks.7.gate_up.weight") == (
        "text.layers.7.gate.weight",
        "text.layers.7.up.weight",
    )


def test_an_unknown_name_is_refused_with_the_nearest_rule():
    with pytest.raises(
        BadCheckpoint, match=r'"vision.layers.0.in_project_weight"; the nearest rule is "vision.*in_proj'
    ):
        KEYS.to_ours({"vision.layers.0.in_project_weight": torch.zeros(3)})
    with pytest.raises(BadCheckpoint, match=r"image.pach.weight.*image.patch"):
        KEYS.to_theirs({"image.pach.weight": torch.zeros(3)})
    with pytest.raises(BadCheckpoint, match="unexpected"):
        KEYS.ours_name("vision.embeddings.patch.gamma")


def test_a_layout_that_lengthens_names_ends():
    keys = KeyMap([("tower.model.a", "a")], also=[("tower.", "tower.model."), ("model.", "")])
    assert list(keys.to_ours({"model.tower.a": torch.zeros(1)})) == ["a"]
    with pytest.raises(BadCheckpoint, match=r"tower\.b"):
        keys.to_ours({"tower.b": torch.zeros(1)})


def test_parts_that_do_not_fit_are_named():
    with pytest.raises(BadCheckpoint, match=r"missing: text.layers.3.up.weight"):
        KEYS.to_ours({"text.layers.3.gate.weight": torch.zeros(2, 2)})
    with pytest.raises(BadCheckpoint, match="3 equal parts"):
        KEYS.to_ours({"vision.layers.0.in_proj_weight": torch.zeros(4, 2)})
    with pytest.raises(BadCheckpoint, match="different shapes"):
        KEYS.to_ours({"text.layers.3.gate.weight": torch.zeros(2, 2), "text.layers.3.up.weight": torch.zeros(2, 3)})
    with pytest.raises(BadCheckpoint, match="expected two dimensions"):
        KEYS.to_ours({"visual_projection": torch.zeros(2)})
    with pytest.raises(BadCheckpoint, match="leading dimension"):
        KEYS.to_ours({"vision.pos_embed": torch.zeros(9, 4)})
    with pytest.raises(BadCheckpoint, match="two spellings"):
        KEYS.to_ours({"module.logit_scale": torch.zeros(()), "logit_scale": torch.zeros(())})


def test_a_row_must_make_sense():
    with pytest.raises(ValueError, match="single name"):
        KeyMap([(("a", "b"), ("c", "d"))])
    with pytest.raises(ValueError, match="placeholders"):
        KeyMap([("a.{i}", "b")])


def test_all_unknown_names_are_listed():
    with pytest.raises(BadCheckpoint) as error:
        KEYS.to_ours({**theirs(), "one.strange": torch.zeros(1), "another.strange": torch.zeros(1)})
    assert '"one.strange"' in str(error.value)
    assert '"another.strange"' in str(error.value)
