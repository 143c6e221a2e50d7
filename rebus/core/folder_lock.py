"""A folder in which one process works at a time."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rebus.core.atomic_write import cannot_write
from rebus.core.errors import UsageError

LOCK = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, making the folder where it is absent. The system lets go of it when the process ends,
    however it does. Without `fcntl` (Windows) nothing is locked.

    Raises `UsageError` where another process holds it, `CannotWrite`.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / LOCK, os.O_CREAT | os.O_RDWR, 0o644)
    except OSError as error:
        raise cannot_write(folder, error) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"{folder}: another process is at work in it") from None
        yield
    finally:
        os.close(handle)
