"""What is slow to find out about a data set and quick to keep: arrays in the cache, by the files they are about.

A file of the cache is written atomically and holds no pickles. It counts only while each file it is about has
the size and time of change that it had; a damaged or unwritable cache costs time, never an answer.
"""

import contextlib
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from rebus.core.atomic_write import write_file_atomically
from rebus.core.cache import cache_home
from rebus.core.errors import CannotWrite, MissingFile, RebusError

Arrays = Mapping[str, np.ndarray]

VERSION = 2  # of what all the `make` functions give; a new number makes everything anew
_STAMP = "stamp"


def cache_folder() -> Path:
    """Where data sets keep what can be made again: `data` in the cache of rebus (`REBUS_HOME`)."""
    return cache_home() / "data"


def stamp(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Size and time of the last change, by which a file is taken to be the same. Raises `MissingFile`."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise MissingFile(f"{os.fspath(path)}: cannot be read: {error.strerror}") from None
    return status.st_size, status.st_mtime_ns


def check_unchanged(path: Path, when: tuple[int, int]) -> None:
    """Raises `RebusError` when the file is not what it was, `MissingFile` when it is gone."""
    if stamp(path) != when:
        raise RebusError(f"{path}: has changed since it was opened; open the data set again")


def kept(kind: str, files: Sequence[str | os.PathLike[str]], make: Callable[[], Arrays]) -> Arrays:
    """The arrays of `make()`, from the cache where they were made of the same, unchanged files.

    `kind` names the maker: another `make` needs another `kind`. What `make` raises is raised, and nothing is kept.
    """
    target = place(kind, files)
    now = np.array([VERSION, *(number for file in files for number in stamp(file))], dtype=np.int64)
    try:
        with open(target, "rb") as file, np.load(file, allow_pickle=False) as stored:
            if np.array_equal(stored[_STAMP], now):
                return {name: stored[name] for name in stored.files if name != _STAMP}
    except Exception:  # not there; or damaged, over which the parsers may raise anything
        pass
    arrays = make()
    _keep(target, {**arrays, _STAMP: now})
    return arrays


def place(kind: str, files: Sequence[str | os.PathLike[str]], ending: str = ".npz") -> Path:
    """The file of the cache for what `kind` knows about `files`."""
    names = b"\0".join(os.fsencode(os.path.abspath(file)) for file in files)
    return cache_folder() / kind / (hashlib.sha256(names).hexdigest()[:32] + ending)


def _keep(target: Path, arrays: Arrays) -> None:
    # A full or read-only disk: the next opening takes as long as this one.
    with contextlib.suppress(OSError, CannotWrite):
        target.parent.mkdir(parents=True, exist_ok=True)
        with write_file_atomically(target) as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
