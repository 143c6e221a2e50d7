"""Files and folders that are written completely or not at all, whenever the process or the machine stops.

Each is written under another name beside its target, flushed to the disk, and renamed. Drafts are called
`.<name>.<8 hex digits>.draft`.
"""

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from rebus.core.errors import CannotWrite

DRAFT = ".draft"
DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_ONE_BY_ONE = 100  # files of a folder that are flushed each; more are faster flushed together


@contextmanager
def write_file_atomically(path: Path, size: int | None = None) -> Iterator[IO[bytes]]:
    """A file to write into, which appears as `path` when the block ends without an error.

    Raises `CannotWrite`, which says how many bytes are needed where the `size` is known.
    """
    draft = _draft(path)
    try:
        with flushed_file(draft) as file:
            yield file
        os.replace(draft, path)
        with suppress(OSError):  # the file is there, and some file systems flush no directory
            flush(path.parent)
    except OSError as error:
        raise cannot_write(path, error, size) from error
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


def write_bytes_atomically(path: Path, data: bytes) -> None:
    """Write a file from memory, into a folder that exists. Raises `CannotWrite` with the bytes that are needed."""
    with write_file_atomically(path, len(data)) as file:
        file.write(data)


@contextmanager
def write_folder_atomically(folder: Path) -> Iterator[Path]:
    """A new folder to fill, which appears as `folder` when the block ends without an error.

    `folder` must be absent or empty by then. Raises `CannotWrite`.
    """
    draft = _draft(folder)
    try:
        draft.mkdir(parents=True)
        yield draft
        if folder.is_dir():
            folder.rmdir()  # Windows renames over no folder, not even an empty one
        place_folder(draft, folder)
    except OSError as error:
        raise cannot_write(folder, error) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def place_folder(draft: Path, folder: Path) -> None:
    """Flush all of `draft` to the disk, then rename it to `folder`, which must be absent. Raises `OSError`."""
    entries = [draft, *draft.rglob("*")]
    if len(entries) > _ONE_BY_ONE and hasattr(os, "sync"):  # not on Windows
        os.sync()
    else:
        for entry in entries:
            flush(entry)
    os.rename(draft, folder)
    flush(folder.parent)


@contextmanager
def flushed_file(path: Path) -> Iterator[IO[bytes]]:
    """A new file, whose bytes are on the disk when the block has ended. Raises `OSError`."""
    with path.open("xb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def flush(path: Path) -> None:
    """Wait until a file, or the names in a directory, are on the disk. Raises `OSError`."""
    if os.name == "nt":  # opens no directory, and flushes no file that is open for reading
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def cannot_write(path: Path, error: OSError, size: int | None = None) -> CannotWrite:
    """The error for what could not be written. `size`: the bytes it needs, where known."""
    need = "" if size is None else f" ({size:,} bytes)"
    if error.errno in DISK_FULL:
        with suppress(OSError):
            free = shutil.disk_usage(path.parent).free
            return CannotWrite(
                f"{path}: cannot be written{need}: no space left on the disk ({free:,} bytes free); "
                "what was there before is kept"
            )
    return CannotWrite(f"{path}: cannot be written{need}: {error.strerror or error}")


def _draft(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{DRAFT}")
