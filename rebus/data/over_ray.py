"""Units of work spread over a Ray cluster whose machines share the folder that is filled."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rebus.core.errors import MissingExtra, RebusError


@contextmanager
def ray_cluster(option: str) -> Iterator[Any]:
    """The module `ray`, for the cluster that is connected, or one on this machine that ends with the block.

    Raises `MissingExtra` without Ray, naming the `option` that asked for it, and what a task raises where that is a
    `RebusError`.
    """
    try:
        import ray
    except ImportError:
        raise MissingExtra("ray", option) from None
    begun = not ray.is_initialized()
    try:
        yield ray
    except Exception as error:
        cause = getattr(error, "cause", None) or error.__cause__
        if isinstance(cause, RebusError):
            raise cause from None
        raise
    finally:
        if begun:
            ray.shutdown()


def over_ray(
    rows: Sequence[Mapping[str, Any]], do: Callable[[dict[str, Any]], dict[str, Any]], *, gpus: int = 0
) -> Iterator[Mapping[str, Any]]:
    """`do(row)` of each row as a task of its own, as they are done. `do` can be pickled; `gpus` of each task. Raises as
    `ray_cluster`."""
    with ray_cluster("--over ray") as ray:
        tasks = ray.data.from_items(list(rows), override_num_blocks=len(rows))
        yield from tasks.map(do, num_gpus=gpus or None).iter_rows()
