"""What is saved comes back: every field of every configuration, in every layout, is read as written or refused."""

import dataclasses
import math
from contextlib import suppress
from dataclasses import replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import torch

from rebus import catalog
from rebus.backbones.released_configs import mlp_ratio
from rebus.backbones.text.encoder import TextConfig
from rebus.core.errors import BadConfig, UsageError
from rebus.models.contrastive.clip import CLIP
from rebus.models.contrastive.siglip import PRESETS as SIGLIP
from rebus.open_checkpoint import open_checkpoint
from rebus.save_checkpoint import save_checkpoint

SYSTEMS = [*catalog.SYSTEMS, *catalog.BACKBONES]
PRESETS = [(name, preset) for name in SYSTEMS for preset in catalog.system(name).presets if "tiny" in preset]


def others(value: Any, hint: Any) -> list[Any]:
    """Values of a field other than this one, which a network can be built with as a rule."""
    if isinstance(value, bool):
        return [not value]
    if get_origin(hint) is Literal:
        return [other for other in get_args(hint) if other != value]
    if isinstance(value, int):
        return [value + 1, 2 * value, *([value // 2] if value > 1 else [])]
    if isinstance(value, float):
        return [1.5 * value, 3 * value]
    if value is None:
        kinds = get_args(hint)
        return [2, 7, 4096] if int in kinds else [2.0, 6.25] if float in kinds else []
    if isinstance(value, tuple) and all(isinstance(one, int) for one in value):
        return [(*value[:-1], value[-1] + 1)] if value else []
    return []


def changed(config: Any) -> list[tuple[str, Any]]:
    """(what was changed, the configuration with it) for every field, nested ones included."""
    found = []
    hints = get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            for name, part in changed(value):
                with suppress(BadConfig):  # tokens outside a smaller vocabulary
                    found.append((f"{field.name}.{name}", replace(config, **{field.name: part})))
        else:
            values = others(value, hints[field.name]) + ([None] if type(None) in get_args(hints[field.name]) else [])
            for one in values:
                with suppress(BadConfig):  # an end token outside the vocabulary
                    found += [(f"{field.name}={one}", replace(config, **{field.name: one}))] if one != value else []
    return found


# The transformers layout does not say whether a BERT has its pooler, and we read BERT without.
KEPT_APART = [("bert", "base"), ("bert", "large"), ("bert", "minilm_l6")]


@pytest.mark.parametrize(("name", "preset"), PRESETS)
def test_every_field_comes_back_or_is_refused_by_name(name, preset):
    system = catalog.system(name)
    config = system.presets[preset]
    for layout in (one for one in system.layouts.values() if one.write_config is not None):
        for what, other in changed(config):
            try:
                data = layout.config_data(other)
            except (BadConfig, UsageError):
                continue
            assert layout.read_config(data) == other, (layout.name, what)


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_preset_can_be_saved(name):
    system = catalog.system(name)
    for preset, config in system.presets.items():
        if (name, preset) not in KEPT_APART:
            assert system.layout_for(config) is not None


# Fields that a layout has a place for, which are therefore not to be refused.
HELD = {
    ("clip", "transformers"): "image.width image.num_layers image.num_heads image.mlp_width image.patch_size "
    "image.image_size image.act image.eps text.width text.num_layers text.num_heads text.mlp_width text.vocab_size "
    "text.context text.act text.eps embed end_id",
    ("clip", "open_clip"): "image.width image.num_layers image.num_heads image.mlp_width image.patch_size "
    "image.image_size image.eps text.width text.num_layers text.num_heads text.mlp_width text.vocab_size "
    "text.context text.causal text.eps embed end_id logit_bias",  # one switch says quick_gelu of both towers
    ("siglip", "transformers"): "image.width image.num_layers image.num_heads image.mlp_width image.patch_size "
    "image.image_size image.flat_patches image.act image.eps text.width text.num_layers text.num_heads text.mlp_width "
    "text.vocab_size text.context text.act text.eps embed pad_id",
    ("paligemma", "transformers"): "image.width image.num_layers image.num_heads image.mlp_width image.patch_size "
    "image.image_size image.flat_patches image.act image.eps text.width text.num_layers text.num_heads "
    "text.num_kv_heads text.mlp_width text.head_width text.vocab_size text.context text.rope_base text.eps image_id",
    ("gemma", "transformers"): "width num_layers num_heads num_kv_heads mlp_width head_width vocab_size context "
    "rope_base eps",
    ("visualbert", "transformers"): "text.width text.num_layers text.num_heads text.mlp_width text.vocab_size "
    "text.context text.num_types text.act text.eps text.pad_id region_width head late_fusion choice_transform merge",
    ("bert", "transformers"): "width num_layers num_heads mlp_width vocab_size context num_types act eps pad_id",
    (
        "vit",
        "transformers",
    ): "width num_layers num_heads mlp_width patch_size image_size act eps class_token flat_patches",
}


@pytest.mark.parametrize(("name", "form"), HELD)
def test_a_field_that_the_layout_has_a_place_for_is_saved(name, form):
    system = catalog.system(name)
    saved = set()
    for what, other in changed(system.presets["tiny"]):
        try:
            system.layouts[form].config_data(other)
        except BadConfig:
            continue
        saved.add(what.split("=")[0])
    assert saved == set(HELD[name, form].split())


def test_siglip_in_open_clip_has_the_published_image_towers_and_any_text_tower():
    layout = catalog.system("siglip").layouts["open_clip"]
    config = SIGLIP["b16_224"]
    saved, refused = set(), set()
    for what, other in changed(config):
        try:
            assert layout.read_config(layout.config_data(other)) == other, what
            saved.add(what.split("=")[0])
        except BadConfig:
            refused.add(what.split("=")[0])
    assert {"text.eps", "text.mlp_width", "text.context", "embed", "text_head", "pad_id"} <= saved
    assert {"text.act", "text.causal", "image.eps", "image.act", "image.num_channels", "image.width"} <= refused - saved


def test_an_mlp_of_any_width_is_told_by_its_ratio():
    for width in (24, 384, 768, 1152):
        for mlp_width in range(width, 5 * width):
            cfg = TextConfig(width=width, mlp_width=mlp_width)
            assert int(width * mlp_ratio(cfg)) == mlp_width


@pytest.mark.parametrize("form", ["transformers", "open_clip"])
def test_a_network_away_from_every_default_computes_the_same_after_saving(form, tmp_path):
    system = catalog.system("clip")
    tiny = system.presets["tiny"]
    config = replace(
        tiny,
        image=replace(tiny.image, eps=0.01, act="gelu_tanh", mlp_width=49),
        text=replace(tiny.text, eps=0.03, act="gelu", mlp_width=53, causal=form == "transformers"),
        end_id=5,
    )
    torch.manual_seed(0)
    network = CLIP(config).eval()
    folder = save_checkpoint(tmp_path / "saved", system.layouts[form], config, network.state_dict())
    opened = open_checkpoint(folder)
    assert opened.config == config
    again = CLIP(opened.config).eval()
    again.load_state_dict({name: tensor.load() for name, tensor in opened.tensors.items()})
    batch = {"pixels": torch.randn(2, 3, 24, 24), "tokens": torch.tensor([[3, 9, 5, 60, 0], [3, 63, 5, 0, 0]])}
    with torch.no_grad():
        one, two = network(**batch), again(**batch)
    assert torch.equal(one.image, two.image)
    assert torch.equal(one.text, two.text)


def test_what_would_be_lost_is_named_with_what_would_come_back(tmp_path):
    system = catalog.system("clip")
    tiny = system.presets["tiny"]
    for config, form, message in (
        (replace(tiny, end_id=2), "transformers", "end_id: 2 would be read as None"),
        (replace(tiny, text=replace(tiny.text, causal=False)), "transformers", "text.causal: False would be read as T"),
        (replace(tiny, image=replace(tiny.image, num_channels=4)), "open_clip", "image.num_channels: 4 would be read"),
    ):
        with pytest.raises(BadConfig, match=message):
            save_checkpoint(tmp_path / "saved", system.layouts[form], config, {})
    assert not (tmp_path / "saved").exists()


def test_open_clip_reads_what_is_written_as_we_do():
    """The text encoder of a configuration away from its defaults, built by open_clip itself."""
    open_clip = pytest.importorskip("open_clip")
    system = catalog.system("clip")
    tiny = system.presets["tiny"]
    config = replace(
        tiny,
        image=replace(tiny.image, eps=0.01, act="gelu_tanh", mlp_width=49),
        text=replace(tiny.text, eps=0.03, act="gelu_tanh", mlp_width=53, causal=False),
        end_id=5,
    )
    data = system.layouts["open_clip"].config_data(config)["model_cfg"]
    torch.manual_seed(0)
    ours = CLIP(config).eval()
    theirs = open_clip.CLIP(**data).eval()
    tensors = system.layouts["open_clip"].keys(config).to_theirs(ours.state_dict())
    theirs.load_state_dict({name: tensor.load() for name, tensor in tensors.items()})
    pixels, tokens = torch.randn(2, 3, 24, 24), torch.randint(6, 64, (2, 12))
    tokens[:, 7] = 5
    with torch.no_grad():
        torch.testing.assert_close(ours.embed_image(pixels), theirs.encode_image(pixels, normalize=True))
        torch.testing.assert_close(ours.embed_text(tokens), theirs.encode_text(tokens, normalize=True))
    assert math.isclose(theirs.transformer.resblocks[0].ln_1.eps, 0.03)
