"""Small files of the library itself, read with care, since another program may have written them."""

import os
import stat
from pathlib import Path

MOST = 20_000_000  # bytes


def read_small(path: str | os.PathLike[str], most: int = MOST) -> bytes:
    """The bytes of a file. Raises `OSError` for one that cannot be read, `ValueError` for a pipe or a device, which
    would be waited for, and for one of more than `most` bytes."""
    status = os.stat(path)
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise ValueError("a device or a pipe, not a file")
    if status.st_size > most:
        raise ValueError(f"{status.st_size:,} bytes pass the limit of {most:,}")
    return Path(path).read_bytes()
