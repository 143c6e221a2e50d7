"""JSON that every reader takes. NaN and infinities are none; Python's `json` writes them all the same."""

import json
import math
from typing import Any


def to_json(value: Any, **options: Any) -> str:
    """`json.dumps`, with null for numbers that are not finite. `options`: its own."""
    try:
        return json.dumps(value, allow_nan=False, **options)
    except ValueError:  # seldom, so that the values are looked through only then
        return json.dumps(_without_nan(value), allow_nan=False, **options)


def finite_or_none(value: float, digits: int) -> float | None:
    """A rounded number; None where it is not finite."""
    return round(value, digits) if math.isfinite(value) else None


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
