"""The images in a folder, by the endings of their names."""

import os
from collections.abc import Callable
from pathlib import Path

ENDINGS = frozenset(
    ".jpg .jpeg .jpe .jfif .png .apng .webp .gif .bmp .dib .tif .tiff .avif .heic .heif .ppm .pgm .pbm".split()
)


def images_in(folder: str | os.PathLike[str], unread: Callable[[OSError], None] | None = None) -> list[Path]:
    """The image files in a folder and all folders below it, in the order of their paths; hidden ones are left out.

    Links to folders are followed, each folder is entered once, so that loops end. `unread` is called with each folder
    that cannot be read; without it the first one is raised, as the `OSError` that it is.
    """

    def failed(error: OSError) -> None:
        if unread is None:
            raise error
        unread(error)

    found: list[Path] = []
    entered: set[tuple[int, int]] = set()
    waiting = [Path(folder)]
    while waiting:
        here = waiting.pop()
        try:
            status = here.stat()
            if (status.st_dev, status.st_ino) in entered:
                continue
            entered.add((status.st_dev, status.st_ino))
            with os.scandir(here) as entries:
                inside = [entry for entry in entries if not entry.name.startswith(".")]
        except OSError as error:
            failed(error)
            continue
        for entry in inside:
            try:
                if entry.is_dir():
                    waiting.append(here / entry.name)
                elif Path(entry.name).suffix.lower() in ENDINGS and entry.is_file():
                    found.append(here / entry.name)
            except OSError as error:  # a link that leads to itself, say
                failed(error)
    return sorted(found)
