"""Numbers out of Arrow's columns without pandas, which Arrow's own conversions import: half a second."""

from typing import Any

import numpy as np


def numbers(column: Any) -> np.ndarray:
    """A column of integers or booleans without nulls, chunked or not, as an array (N,) that shares its memory where it
    can. Booleans stay booleans."""
    array = column.combine_chunks() if hasattr(column, "combine_chunks") else column
    is_boolean = str(array.type) == "bool"  # a bit each, which DLPack does not know
    found = np.from_dlpack(array.cast("uint8") if is_boolean else array)
    return found.astype(bool) if is_boolean else found
