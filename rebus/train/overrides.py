"""`--set optim.lr=3e-4`: one field of a configuration, by its path, with its type checked."""

import dataclasses
import json
import typing
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar

from rebus.core.config import convert
from rebus.core.errors import BadConfig, UsageError, unknown
from rebus.train.config import TrainConfig
from rebus.train.setup import resolved

C = TypeVar("C")


def override(config: TrainConfig, settings: Iterable[str]) -> TrainConfig:
    """A copy of a recipe with `path=value` settings applied in order; those of `model` last, since the system that the
    other settings name, or the checkpoint that they start from, decides what a model's fields are.

    Raises `UnknownName` with the nearest fields for a path that does not exist, `UsageError` for a value that does
    not fit the field's type, and what `resolved` raises.
    """
    of_model = []
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals:
            raise UsageError(f"--set expects field=value; got {setting!r}")
        names = path.strip().split(".")
        if names[0] == "model":
            of_model.append((names[1:], text.strip(), path.strip()))
        else:
            config = _set(config, names, text.strip(), path.strip())
    for names, text, whole in of_model:
        config = config if names and config.model is not None else resolved(config)
        model = _set(config.model, names, text, whole) if names else _read(text, type(config.model), whole)
        config = replace(config, model=model)
    return config


def _set(config: C, path: list[str], text: str, whole: str) -> C:
    if isinstance(config, tuple) and len(path) > 1:
        at = int(path[0]) if path[0].isdecimal() else len(config)
        if at >= len(config):
            raise UsageError(f"--set {whole}: {path[0]!r} is none of its {len(config)} parts, which count from 0")
        parts = [*config[:at], _set(config[at], path[1:], text, whole), *config[at + 1 :]]
        return typing.cast(C, tuple(parts))
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        raise UsageError(f"--set {whole}: there is nothing below {'.'.join(whole.split('.')[: -len(path)])}")
    names = [f.name for f in dataclasses.fields(config)]
    if path[0] not in names:
        raise unknown("field", whole, [whole[: len(whole) - len(".".join(path))] + n for n in names])
    hint = typing.get_type_hints(type(config))[path[0]]
    if len(path) > 1:
        inner = getattr(config, path[0])
        value: Any = _set(_default(hint) if inner is None else inner, path[1:], text, whole)
    else:
        value = _read(text, hint, whole)
    return typing.cast(C, dataclasses.replace(typing.cast(Any, config), **{path[0]: value}))


def _default(hint: Any) -> Any:
    """The settings of an optional part that is not there yet: `lora.rank=4` asks for the part."""
    kinds: list[Any] = [kind for kind in typing.get_args(hint) if dataclasses.is_dataclass(kind)]
    return kinds[0]() if kinds else None


def _read(text: str, hint: Any, where: str) -> Any:
    """Text as the field's type: JSON where it is JSON, else the text itself; `none`, `true` and `false` in any case."""
    words = {"none": None, "null": None, "true": True, "false": False}
    tries: list[Any] = [text]
    if text.lower() in words:
        tries.insert(0, words[text.lower()])
    else:
        try:
            tries.insert(0, json.loads(text.replace("_", "") if text.replace("_", "").isdigit() else text))
        except json.JSONDecodeError:
            with suppress(ValueError):  # 3e-4 is JSON, .5 and 1. are not
                tries.insert(0, float(text))
    error: BadConfig | None = None
    for value in tries:
        try:
            return convert(value, hint, where)
        except BadConfig as problem:
            error = error or problem
    raise UsageError(f"--set {error}")
