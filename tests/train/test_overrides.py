"""`--set`: one typed field by its path."""

from dataclasses import replace
from pathlib import Path

import pytest

import rebus
from rebus import catalog
from rebus.core.errors import UnknownName, UsageError
from rebus.recipes import RECIPES, recipe
from rebus.train import LoRA, override
from rebus.train.setup import resolved


def test_fields_are_set_with_their_types() -> None:
    config = override(
        recipe("clip_scenes"),
        ["steps=1_000", "optim.lr=3e-4", "data.full=.5", "bf16=True", "start_from=x/y", "optim.betas=[0.9, 0.95]"],
    )
    assert (config.steps, config.optim.lr, config.bf16) == (1000, 3e-4, True)
    assert config.data.full == 0.5  # type: ignore[union-attr]
    assert config.start_from == "x/y"
    assert config.optim.betas == (0.9, 0.95)
    assert override(config, ["start_from=none"]).start_from is None
    assert override(config, ["model.image.num_layers=2"]).model.image.num_layers == 2  # type: ignore[union-attr]


def test_a_field_of_an_optional_part_asks_for_the_part() -> None:
    config = override(recipe("clip_scenes"), ["lora.rank=4", 'lora.parts=["image"]'])
    assert config.lora == LoRA(parts=("image",), rank=4)
    assert override(config, ["lora=none"]).lora is None
    with pytest.raises(UsageError, match="there is nothing below start_from"):
        override(config, ["start_from.x=1"])


def test_a_part_of_several_is_named_by_its_number() -> None:
    config = override(recipe("simvlm_base"), ["data.parts.0.path=pairs", "data.parts.1.path=texts"])
    assert [part.path for part in config.data.parts] == ["pairs", "texts"]  # type: ignore[union-attr]
    assert [part.form for part in config.data.parts] == ["caption", "text"]  # type: ignore[union-attr]
    for setting, wrong in (("data.parts.2.path=x", "'2' is none of its 2 parts"), ("data.parts.a.path=x", "'a' is")):
        with pytest.raises(UsageError, match=wrong):
            override(config, [setting])
    with pytest.raises(UnknownName, match=r'did you mean "data\.parts\.0\.path"'):
        override(config, ["data.parts.0.pth=x"])


def test_misspelt_names_get_a_suggestion() -> None:
    with pytest.raises(UnknownName, match=r'no field "optim.lrr"; did you mean "optim.lr"'):
        override(recipe("clip_scenes"), ["optim.lrr=1"])
    with pytest.raises(UnknownName, match='did you mean "steps"'):
        override(recipe("clip_scenes"), ["step=5"])
    with pytest.raises(UnknownName, match='did you mean "clip_scenes"'):
        recipe("clip_scene")


def test_values_of_the_wrong_type_are_refused() -> None:
    for setting in ("steps=many", "steps=1.5", "optim.lr=fast", "bf16=3", "optim.matrices=sgd", "steps.x=1", "steps"):
        with pytest.raises(UsageError, match="--set"):
            override(recipe("clip_scenes"), [setting])


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_a_configuration_that_survives_json(name: str) -> None:
    import json

    from rebus.core.config import to_dict
    from rebus.train.setup import config_from_dict

    config = recipe(name)
    assert config_from_dict(json.loads(json.dumps(to_dict(config)))) == config


def test_a_system_decides_what_its_models_fields_are(tmp_path: Path) -> None:
    start = f"start_from={rebus.load('siglip/scenes').save(tmp_path / 'siglip')}"
    for settings in ([start, "model.embed=64"], ["model.embed=64", start]):  # the order does not matter
        config = override(recipe("siglip_captions"), settings)
        assert (config.system, type(config.model).__name__, config.model.embed) == ("siglip", "SigLIPConfig", 64)
        assert config.model.text == rebus.load("siglip/scenes").config.text
    with pytest.raises(UsageError, match="start_from, the model"):
        override(recipe("paligemma_captions"), ["model.image_id=64"])
    with pytest.raises(UnknownName, match=r"model\.embd.*model\.embed"):
        override(recipe("clip_scenes"), ["model.embd=64"])
    with pytest.raises(UsageError, match="system=siglip expects a SigLIPConfig as its model; got a CLIPConfig"):
        resolved(override(recipe("clip_scenes"), ["system=siglip"]))


def test_settings_of_runs_know_no_model() -> None:
    source = (Path(rebus.__file__).parent / "train" / "config.py").read_text()
    assert "rebus.models" not in source
    assert "rebus.backbones" not in source


def test_what_is_not_trained_is_said() -> None:
    with pytest.raises(UsageError, match="start_from, the model to train"):
        resolved(recipe("siglip_captions"))
    with pytest.raises(UsageError, match="asif is put together from trained parts: there is nothing to train"):
        resolved(replace(recipe("clip_captions"), system="asif", model=catalog.system("asif").presets["tiny"]))
