"""`--set`: one typed field by its path."""

import pytest

from rebus.core.errors import UnknownName, UsageError
from rebus.recipes import RECIPES, recipe
from rebus.train import LoRA, override


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

    from rebus.core.config import from_dict, to_dict
    from rebus.train import TrainConfig

    config = recipe(name)
    assert from_dict(TrainConfig, json.loads(json.dumps(to_dict(config)))) == config
