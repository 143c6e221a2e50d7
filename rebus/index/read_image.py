"""From a file to what an index keeps of it, in one reading: its hash, its look, its size, its date, its pixels."""

import os
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime

from rebus.codec.decode_image import decode, read_file
from rebus.codec.images import ImagePipeline
from rebus.core.errors import RebusError
from rebus.index.look import look_of
from rebus.index.outcome import Read, Unread, hash_of
from rebus.index.scan import Seen


def read_image(
    root: bytes, path: bytes, pipeline: ImagePipeline, known: Callable[[bytes, bytes], int | None]
) -> Read | Unread:
    """One file below the root; it is decoded only where `known` finds no row for its path and hash."""
    file = os.fsdecode(os.path.join(root, path))
    try:
        status = os.stat(file)  # before the reading: what is written meanwhile is seen as changed next time
        data = read_file(file, os.fsdecode(path))
    except (OSError, ValueError, RebusError) as error:
        return Unread(path, str(error))
    seen, found = Seen(status.st_size, status.st_mtime_ns), hash_of(data)
    same = known(path, found)
    if same is not None:
        return Read(path=path, seen=seen, hash=found, known=same)
    room = pipeline.room(1)
    try:
        with decode(data, alpha=pipeline.spec.alpha, enough=pipeline.enough()) as decoded:
            pipeline.fill(decoded, {name: tensor.numpy()[0] for name, tensor in room.items()})
            look = look_of(decoded)
    except RebusError as error:
        reason = str(error).removeprefix(f"image of {len(data):,} bytes: ")
        return Read(path=path, seen=seen, hash=found, error=reason)
    width, height = decoded.upright_size
    return Read(
        path=path,
        seen=seen,
        hash=found,
        width=width,
        height=height,
        format=decoded.format,
        taken=_seconds(decoded.taken, status.st_mtime),
        look=look,
        pixels=room,
    )


def _seconds(taken: str | None, changed: float) -> int:
    """Of the camera's clock, which knows no zone, else of the file's last change."""
    if taken is not None:
        with suppress(ValueError, OverflowError, OSError):
            return int(datetime.strptime(taken[:19], "%Y:%m:%d %H:%M:%S").timestamp())
    return int(changed)
