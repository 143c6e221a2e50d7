"""Configurations are data: frozen dataclasses ⇄ JSON, over a closed schema."""

import dataclasses
import difflib
import sys
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar, get_args, get_origin

from rebus.core.errors import BadConfig
from rebus.core.limits import limit

C = TypeVar("C")


def to_dict(config: Any) -> dict[str, Any]:
    """A dataclass as JSON-ready values, nested ones included."""
    return {f.name: _plain(getattr(config, f.name)) for f in dataclasses.fields(config)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_dict(value)
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(v) for v in value]
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return value


def from_dict(cls: type[C], data: Mapping[str, Any], where: str = "config") -> C:
    """Build `cls` from JSON values. Raises `BadConfig` naming every unknown, missing, mistyped or absurd field."""
    if not isinstance(data, Mapping):
        raise BadConfig(f"{where} must be an object; got {type(data).__name__}")
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    problems = []
    for name in data:
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=1)
            problems.append(f"{where}.{name}: unknown field" + (f" (did you mean {near[0]}?)" if near else ""))
    values = {}
    for name, f in fields.items():
        if name in data:
            try:
                values[name] = convert(data[name], hints[name], f"{where}.{name}")
            except BadConfig as error:
                problems.append(str(error))
        elif f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            problems.append(f"{where}.{name}: missing")
    if problems:
        raise BadConfig("; ".join(problems))
    return cls(**values)


def convert(value: Any, hint: Any, where: str) -> Any:
    """`value` as the annotated type, or `BadConfig` that says what was wanted and what came."""
    origin = get_origin(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in get_args(hint):
            return None
        errors = []
        for option in get_args(hint):
            if option is not type(None):
                try:
                    return convert(value, option, where)
                except BadConfig as error:
                    errors.append(str(error))
        raise BadConfig(errors[-1])
    if origin is typing.Literal:
        if value in get_args(hint):
            return value
        raise BadConfig(f"{where}: expected one of {', '.join(map(repr, get_args(hint)))}; got {value!r}")
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return value if isinstance(value, hint) else from_dict(hint, value, where)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise BadConfig(f"{where}: expected a list; got {value!r}")
        args = get_args(hint)
        kinds = [args[0]] * len(value) if len(args) == 2 and args[1] is Ellipsis else list(args)
        if len(kinds) != len(value):
            raise BadConfig(f"{where}: expected {len(kinds)} values; got {len(value)}")
        return tuple(convert(v, k, f"{where}[{i}]") for i, (v, k) in enumerate(zip(value, kinds, strict=True)))
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not -sys.float_info.max <= value <= sys.float_info.max:  # NaN is outside too
            raise BadConfig(
                f"{where}: expected a finite number; got {value if isinstance(value, float) else 'a larger one'}"
            )
        return float(value)
    if isinstance(hint, type) and isinstance(value, hint) and not (hint is not bool and isinstance(value, bool)):
        if hint is int and isinstance(value, int) and not 0 <= value <= limit("MAX_CONFIG_VALUE"):
            raise BadConfig(f"{where}: {value} is outside 0 to {limit('MAX_CONFIG_VALUE'):,}")
        return value
    raise BadConfig(f"{where}: expected {getattr(hint, '__name__', hint)}; got {value!r}")
