"""Data sets as others lay them out on disk, each read by one file with a class `<Name>(path, split)`.

A module here has `NAME`, `WHAT` (one line), `CHECKED` (each form that is read, and what it was checked against: the
table in docs/tasks/data.md), `recognises(path) -> bool` and `open(path, split) -> Reader`.
"""

import os
from importlib import import_module
from pathlib import Path

from rebus.core.errors import MissingFile, UsageError, unknown
from rebus.data.reading.media_paths import media_root
from rebus.data.reading.shard_files import is_pattern
from rebus.data.record import Reader

# layout → module; the order is that in which a folder is tried
LAYOUTS = {
    "coco": "rebus.data.layouts.coco",
    "karpathy": "rebus.data.layouts.karpathy",
    "lvis": "rebus.data.layouts.lvis",
    "refcoco": "rebus.data.layouts.refcoco",
    "vqa": "rebus.data.layouts.vqa",
    "obelics": "rebus.data.layouts.obelics",
    "cauldron": "rebus.data.layouts.cauldron",
    "mmc4": "rebus.data.layouts.mmc4",
    "c4": "rebus.data.layouts.c4",
    "coyo": "rebus.data.layouts.coyo",
    "webdataset": "rebus.data.layouts.webdataset",
    "cvat": "rebus.data.layouts.cvat",
    "video": "rebus.data.layouts.video",
    "folder": "rebus.data.layouts.folder",
}


def open_layout(
    path: str | os.PathLike[str],
    layout: str = "auto",
    split: str | None = None,
    root: str | os.PathLike[str] | None = None,
) -> Reader:
    """A reader of the data set at `path`; "auto" asks each layout whether it is its own.

    `root`: a folder, besides the data set's own, that it may point into and where its images are looked for. Raises
    `MissingFile`, `UnknownName` for a layout that does not exist, `UsageError` when none recognises the path or it has
    no such split.
    """
    where = Path(path)
    if not where.exists() and not is_pattern(where):
        raise MissingFile(f"{where}: no such file or folder")
    if layout != "auto" and layout not in LAYOUTS:
        raise unknown("layout", layout, LAYOUTS, f"Layouts: {', '.join(LAYOUTS)}.")
    names = LAYOUTS if layout == "auto" else (layout,)
    for name in names:
        module = import_module(LAYOUTS[name])
        if layout == name or module.recognises(where):
            with media_root(root):
                reader: Reader = module.open(where, split)
            return reader
    raise UsageError(f"{where}: none of the layouts {', '.join(LAYOUTS)} was detected here; name one with --layout")
