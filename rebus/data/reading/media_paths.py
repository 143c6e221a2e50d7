"""Where the images and videos that a data set names may lie: inside the data set, whatever its tables and links say.

A table or a link that points elsewhere would read any file of this machine into a model, a page or a converted set. Who
trusts a data set names one folder more that it may point into, `--root` or `data.root`: absolute paths may lie there,
and images are looked for there too.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from rebus.core.errors import RebusError, UsageError

_ROOT: ContextVar[Path | None] = ContextVar("root", default=None)


@contextmanager
def media_root(root: str | os.PathLike[str] | None) -> Iterator[None]:
    """While readers are opened: the folder that their data set may point into, besides its own. Readers keep it."""
    if root is None:
        yield
        return
    if not os.path.isdir(root):
        raise UsageError(f"{root}: no such folder; --root (data.root) is the folder of a data set's images")
    token = _ROOT.set(Path(root))
    try:
        yield
    finally:
        _ROOT.reset(token)


class MediaPaths:
    """Folders, in order of trial. What was found last is tried first, for most lie together."""

    def __init__(self, folders: Iterable[Path], roots: Iterable[Path] = ()):
        """`roots`: what names may not lead out of; those of the folders that lie in no other one, unless given."""
        self._folders = list(dict.fromkeys(folders))
        tops = [f for f in self._folders if not any(f != g and f.is_relative_to(g) for g in self._folders)]
        given = _ROOT.get()
        own = list(roots) or tops
        if given is not None:
            self._folders = list(dict.fromkeys([*self._folders, given]))
            own.append(given)
        self._roots = [os.path.realpath(root) for root in own]

    def find(self, name: str) -> Path:
        """Raises `RebusError` when no folder has it, or the name or a link leads out of the data set."""
        plain = name.replace("\\", "/")
        if not plain.strip("/.") or "\0" in name or ":" in plain.split("/")[0]:
            raise RebusError(f"{name[:200]!r} is not the name of a file inside the data set")
        outside = False
        for index, folder in enumerate(self._folders):
            path = Path(os.path.normpath(folder / plain))
            if not self._holds(os.path.abspath(path)):
                outside = True
                continue
            if os.path.isfile(path):
                real = os.path.realpath(path)
                if not self._holds(real):
                    raise RebusError(f"{name[:200]!r} is a link to {real!r}, which is outside the data set; {_ALLOW}")
                if index:
                    self._folders = [folder, *self._folders[:index], *self._folders[index + 1 :]]
                return path
        if outside:
            raise RebusError(f"{name[:200]!r} is not the name of a file inside the data set; {_ALLOW}")
        looked = ", ".join(str(folder) for folder in self._folders)
        raise RebusError(f"{repr(name[:200])[1:-1]} is missing; looked in {looked}")

    def _holds(self, path: str) -> bool:
        allowed = [*self._roots, *map(_repository, self._roots)]
        # As it is spelt, or with the links above it followed: the data set itself may lie behind a link.
        spelt = (path, os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path)))
        return any(_within(one, root) for one in spelt for root in allowed)


_ALLOW = "--root (data.root) names a folder that it may point into"


def _within(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip("/") + "/")


def _repository(root: str) -> str:
    """Of a snapshot in a Hub cache, whose files are links to `blobs/` beside it, the folder of the repository."""
    above, found, _ = root.partition("/snapshots/")
    return above if found and os.path.isdir(above + "/blobs") else root
