"""Units of work spread over a Ray cluster whose machines share the folder that is filled."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rebus.core.errors import MissingExtra, RebusError


def over_ray(units: Sequence[int], do: Callable[[dict[str, Any]], dict[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """`do({"unit": n})` of each unit as a task of its own, as they are done. `do` can be pickled.

    Raises `MissingExtra` without Ray, and what a task raises where that is a `RebusError`.
    """
    try:
        import ray
    except ImportError:
        raise MissingExtra("ray", "--over ray") from None
    begun = not ray.is_initialized()
    try:
        rows = ray.data.from_items([{"unit": unit} for unit in units], override_num_blocks=len(units))
        yield from rows.map(do).iter_rows()
    except Exception as error:
        cause = getattr(error, "cause", None) or error.__cause__
        if isinstance(cause, RebusError):
            raise cause from None
        raise
    finally:
        if begun:
            ray.shutdown()
