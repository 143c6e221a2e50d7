"""The image files below a folder: their names as bytes, since names need not be text, their sizes and times."""

import fnmatch
import os
import re
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from rebus.codec.image_files import ENDINGS


class Seen(NamedTuple):
    """A file as the folder shows it: bytes, and nanoseconds of its last change."""

    size: int
    mtime: int


@dataclass
class Scan:
    """`files` by their paths below the root, parts joined by `/`. `unread`: folders and files that could not be looked
    at, with the reason; what lies below such a folder is unknown, and not missing. `empty`: the root holds nothing."""

    files: dict[bytes, Seen] = field(default_factory=dict)
    unread: dict[bytes, str] = field(default_factory=dict)
    empty: bool = True

    def unknown(self, path: bytes) -> bool:
        """Whether the file may be there, in a folder that could not be read."""
        if not self.unread:
            return False
        parts = path.split(b"/")
        return any(b"/".join(parts[:i]) in self.unread for i in range(len(parts) + 1))


def scan_folder(root: Path, exclude: Sequence[str] = (), follow: bool = False) -> Scan:
    """Hidden names and what `exclude` matches are left out: patterns of a name ("*.tmp.jpg", "node_modules") or of a
    path below the root ("2019/raw/*"). Links are passed over, or with `follow` each folder is entered once, so that
    loops end. Raises `OSError` for a root that cannot be listed."""
    found, left_out = Scan(), excluder(exclude)
    entered: set[tuple[int, int]] = set()
    waiting = [b""]
    base = os.fsencode(root)
    while waiting:
        here = waiting.pop()
        try:
            folder = os.path.join(base, here) if here else base
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in entered:
                continue
            entered.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as entries:
                inside = list(entries)
        except OSError as error:
            if not here:
                raise
            found.unread[here] = error.strerror or str(error)
            continue
        found.empty = found.empty and not inside
        for entry in inside:
            path = here + b"/" + entry.name if here else entry.name
            if entry.name.startswith(b".") or left_out(path) or (entry.is_symlink() and not follow):
                continue
            try:
                status = entry.stat()
            except OSError as error:  # a link that leads to itself, say
                found.unread[path] = error.strerror or str(error)
                continue
            if stat.S_ISDIR(status.st_mode):
                waiting.append(path)
            elif stat.S_ISREG(status.st_mode) and os.path.splitext(entry.name)[1].lower() in _ENDINGS:
                found.files[path] = Seen(status.st_size, status.st_mtime_ns)
    return found


def excluder(patterns: Sequence[str]) -> Callable[[bytes], bool]:
    """Whether a path, one of the folders above it or the name of one of these matches a pattern."""
    if not patterns:
        return lambda path: False
    whole = re.compile("|".join(fnmatch.translate(pattern.strip("/")) for pattern in patterns))

    def matches(path: bytes) -> bool:
        parts = os.fsdecode(path).split("/")
        return any(whole.match("/".join(parts[: i + 1])) or whole.match(parts[i]) for i in range(len(parts)))

    return matches


_ENDINGS = frozenset(ending.encode() for ending in ENDINGS)
