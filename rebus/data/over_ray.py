"""Units of work spread over a Ray cluster whose machines share the folder that is filled."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rebus.core.errors import MissingExtra, RebusError


def over_ray(
    rows: Sequence[Mapping[str, Any]], do: Callable[[dict[str, Any]], dict[str, Any]], *, gpus: int = 0
) -> Iterator[Mapping[str, Any]]:
    """`do(row)` of each row as a task of its own, as they are done. `do` can be pickled; `gpus` of each task.

    Raises `MissingExtra` without Ray, and what a task raises where that is a `RebusError`.
    """
    try:
        import ray
    except ImportError:
        raise MissingExtra("ray", "--over ray") from None
    begun = not ray.is_initialized()
    try:
        tasks = ray.data.from_items(list(rows), override_num_blocks=len(rows))
        yield from tasks.map(do, num_gpus=gpus or None).iter_rows()
    except Exception as error:
        cause = getattr(error, "cause", None) or error.__cause__
        if isinstance(cause, RebusError):
            raise cause from None
        raise
    finally:
        if begun:
            ray.shutdown()
