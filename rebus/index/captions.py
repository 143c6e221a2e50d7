"""A caption for each image that has none, by a generative model; what was written is kept as it goes."""

import os
from collections.abc import Callable
from pathlib import Path

from rebus.core.errors import UnsupportedTask
from rebus.index.report import Progress
from rebus.index.writer import Writer

_AT_ONCE = 8


def caption_images(
    root: Path, writer: Writer, model: str, device: str | None, on_progress: Callable[[Progress], None]
) -> None:
    """Raises `UnsupportedTask` for a model that writes no captions. Images that cannot be opened have none."""
    if not writer.store.exists:
        return
    rows = [row for row in writer.store.metadata().to_pylist() if _lacks(row)]
    if not rows:
        return
    from rebus.api import load

    writes = load(model, device=device, pack=True)
    if "caption" not in writes.tasks:
        raise UnsupportedTask(f"--captions {model}: it does not caption images")
    for first in range(0, len(rows), _AT_ONCE):
        some = rows[first : first + _AT_ONCE]
        files = [os.path.join(root, os.fsdecode(row["path"])) for row in some]
        found = writes.caption(files, on_error="skip", progress=False)
        said = {row["id"]: text for row, text in zip(some, found, strict=True) if text is not None}
        writer.captions(said)
        writer.report.captioned += len(said)
        on_progress(Progress(first + len(some), len(rows), "the model", "captions"))


def _lacks(row: dict[str, object]) -> bool:
    return row["caption"] is None and row["error"] is None and not row["missing"]
