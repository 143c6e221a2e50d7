"""Values of records that others wrote, checked before they are used. Each raises `RebusError` with the reason."""

import math
import reprlib
from collections.abc import Mapping
from typing import Any, TypeGuard

from rebus.core.errors import RebusError
from rebus.data.record import XYXY


def mapping(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RebusError(f"{what} should be an object; got {shown(value)}")
    return value


def words(item: Mapping[str, Any], name: str) -> str:
    value = item.get(name)
    if not isinstance(value, str):
        raise _wrong(item, name, "a text")
    return value


def listed(item: Mapping[str, Any], name: str) -> list[Any]:
    value = item.get(name)
    if not isinstance(value, list):
        raise _wrong(item, name, "a list")
    return value


def identity(item: Mapping[str, Any], name: str = "id") -> int | str:
    """An id: a whole number, or a text as some tools write."""
    value = item.get(name)
    if not is_identity(value):
        raise _wrong(item, name, "an id")
    return value


def is_identity(value: Any) -> TypeGuard[int | str]:
    return isinstance(value, int | str) and not isinstance(value, bool)


def number(item: Mapping[str, Any], name: str) -> float:
    value = item.get(name)
    if not _is_number(value):
        raise _wrong(item, name, "a finite number")
    return float(value)


def count(item: Mapping[str, Any], name: str, least: int = 1) -> int:
    """A whole number, of at least one: a width, a height."""
    value = item.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise _wrong(item, name, f"a whole number above {'zero' if least == 1 else least - 1}")
    return value


def box(item: Mapping[str, Any], name: str = "bbox") -> XYXY:
    """Left, top, width, height as COCO writes them → left, top, right, bottom, in pixels."""
    value = item.get(name)
    if not isinstance(value, list) or len(value) != 4 or not all(_is_number(side) for side in value):
        raise _wrong(item, name, "four finite numbers: left, top, width, height")
    left, top, width, height = (float(side) for side in value)
    if width < 0 or height < 0:
        raise RebusError(f"{name} has a negative size: {value}")
    return left, top, left + width, top + height


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15 and math.isfinite(value)


def _wrong(item: Mapping[str, Any], name: str, wanted: str) -> RebusError:
    if name not in item:
        return RebusError(f'"{name}" is missing')
    return RebusError(f'"{name}" should be {wanted}; got {shown(item[name])}')


def named(item: Any, name: str = "id", otherwise: str = "?") -> str:
    """An id for messages; `otherwise` where there is none."""
    value = item.get(name) if isinstance(item, dict) else None
    return str(value) if is_identity(value) else otherwise


def shown(value: Any) -> str:
    """A value for messages: short, also where it is long or deep."""
    text = reprlib.repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
