"""Where the images and videos that a data set names may lie."""

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from rebus.core.errors import RebusError


class MediaPaths:
    """Folders, in order of trial. What was found last is tried first, for most lie together."""

    def __init__(self, folders: Iterable[Path]):
        self._folders = list(dict.fromkeys(folders))

    def find(self, name: str) -> Path:
        """Raises `RebusError` when no folder has it, or the name leads out of the folders."""
        parts = PurePosixPath(name.replace("\\", "/")).parts
        if not parts or ".." in parts or name.startswith(("/", "\\")) or "\0" in name or ":" in parts[0]:
            raise RebusError(f"{name!r} is not the name of a file inside the data set")
        for index, folder in enumerate(self._folders):
            path = folder.joinpath(*parts)
            try:
                there = path.is_file()
            except OSError:  # a name too long for the system
                there = False
            if there:
                if index:
                    self._folders = [folder, *self._folders[:index], *self._folders[index + 1 :]]
                return path
        raise RebusError(f"{name} is missing; looked in {', '.join(str(folder) for folder in self._folders)}")
