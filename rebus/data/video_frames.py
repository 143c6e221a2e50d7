"""Images of a video at given moments, decoded with PyAV (extra "video")."""

import io
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rebus.core.errors import LimitExceeded, MissingExtra, RebusError, UsageError
from rebus.core.limits import check

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_FRAMES = 1_000  # of one call
MAX_HELD_PIXELS = 1_000_000_000  # of all frames of one call, after `size`
MAX_VIDEO_BYTES = 4 << 30  # of one encoded video
MAX_DECODED = 100_000  # frames decoded on the way to those that are wanted

# Containers that hold their images themselves: a playlist could name any file or address
_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,flv,ogg,asf,gif,m4v,h264,hevc"
_AHEAD = 3.0  # seconds to the next moment from which on a jump is quicker than decoding all between


def frames(
    video: bytes | str | os.PathLike[str],
    number: int,
    seconds: tuple[float, float] | None = None,
    size: int | None = None,
    seed: int | None = None,
) -> "list[Image]":
    """`number` upright RGB images, evenly over the video or its part `seconds` (from, to).

    The part is cut into `number` equal pieces; each gives the image shown at its middle, or with `seed` at a moment
    of it drawn at random. `size`: the shorter side in pixels, at most; images are never enlarged. A short video
    gives images more than once. Raises `RebusError` for what is no video, is damaged or ends early,
    `LimitExceeded`, `UsageError`, and `MissingExtra` without PyAV.
    """
    name = "video" if isinstance(video, bytes) else str(video)
    if number < 1 or (size is not None and size < 1):
        raise UsageError(f"frames: number and size need at least 1; got {number} and {size}")
    _at_most(number, "MAX_FRAMES", MAX_FRAMES, "frames of one video")
    source = _source(video, name)
    av = _av()
    try:
        options = {"format_whitelist": _FORMATS, "protocol_whitelist": "file"}
        with av.open(source, options=options, metadata_errors="ignore") as container:
            return _images(container, name, number, seconds, size, seed)
    except (av.error.FFmpegError, ValueError) as error:
        if isinstance(error, RebusError):
            raise
        raise RebusError(f"{name}: cannot be decoded as a video: {_reason(error)}") from None


def moments(start: float, end: float, number: int, seed: int | None = None) -> list[float]:
    """Seconds of the middles of `number` equal pieces, or with `seed` of a random place in each."""
    places = np.full(number, 0.5)
    if seed is not None:
        places = np.random.Generator(np.random.PCG64(seed)).random(number)
    return [float(at) for at in start + (np.arange(number) + places) * ((end - start) / number)]


def _images(
    container: Any, name: str, number: int, seconds: tuple[float, float] | None, size: int | None, seed: int | None
) -> "list[Image]":
    if not container.streams.video:
        raise RebusError(f"{name}: holds no images")
    stream = container.streams.video[0]
    width, height = stream.codec_context.width, stream.codec_context.height
    check("MAX_PIXELS", width * height, f"{name}: a frame of {width} x {height}")
    check("MAX_SIDE", max(width, height), f"{name}: a frame of {width} x {height}")
    scale = min(1.0, size / max(1, min(width, height))) if size else 1.0
    _at_most(
        int(number * width * height * scale**2), "MAX_HELD_PIXELS", MAX_HELD_PIXELS, f"{name}: pixels of all frames"
    )
    length = _length(container, stream, name)
    start, end = seconds or (0.0, length)
    if not 0 <= start < end or not math.isfinite(end):
        raise UsageError(f"{name}: seconds should be (start, end); got ({start:g}, {end:g})")
    if start >= length:
        raise RebusError(f"{name}: the part begins at {start:g} s, but the video has {length:g} s")
    wanted = moments(start, min(end, length), number, seed)
    return list(_shown_at(container, stream, name, wanted, scale))


def _shown_at(container: Any, stream: Any, name: str, wanted: Sequence[float], scale: float) -> "Iterator[Image]":
    """The frames that are on the screen at the `wanted` moments, which grow."""
    walk = _Walk(container, stream, name)
    made: tuple[Any, Image] | None = None
    for moment in wanted:
        frame = walk.to(moment)
        if made is None or made[0] is not frame:
            made = frame, _image(frame, scale)
        yield made[1].copy()


class _Walk:
    """Goes forward through the frames, jumping where that is quicker."""

    def __init__(self, container: Any, stream: Any, name: str):
        self._container, self._stream, self._name = container, stream, name
        stream.thread_type = "NONE"  # readers run in many processes
        self._first = float((stream.start_time or 0) * stream.time_base)
        self._shown: Any = None
        self._next: Any = None
        self._decoded = 0
        self._frames = iter(())
        self._restart(None)

    def to(self, moment: float) -> Any:
        """The last frame that begins at or before the moment, or the first of all."""
        if moment - self._time(self._shown) > _AHEAD:
            self._restart(moment)
        while self._next is not None and self._time(self._next) <= moment:
            self._shown, self._next = self._next, self._decode()
        if self._next is None:
            self._check_end(moment)
        return self._shown

    def _restart(self, moment: float | None) -> None:
        """Begin at the key frame before a moment; from the beginning where the container cannot."""
        if moment is not None:
            at = int((moment + self._first) / self._stream.time_base)
            self._container.seek(at, stream=self._stream, backward=True)
        elif self._decoded:
            self._container.seek(0, backward=True, any_frame=False)
        self._frames = self._container.decode(self._stream)
        self._shown = self._decode()
        if self._shown is not None and moment is not None and self._time(self._shown) > moment:
            self._restart(None)
            return
        if self._shown is None:
            raise RebusError(f"{self._name}: no frame can be decoded; the file may be truncated")
        self._next = self._decode()

    def _decode(self) -> Any:
        self._decoded += 1
        _at_most(self._decoded, "MAX_DECODED", MAX_DECODED, f"{self._name}: frames decoded")
        return next(self._frames, None)

    def _time(self, frame: Any) -> float:
        return frame.time - self._first if frame.time is not None else 0.0

    def _check_end(self, moment: float) -> None:
        """Where only the whole file states its length, sound may be longer than the images."""
        rate = float(self._stream.average_rate or 0)
        lasts = max(float((self._shown.duration or 0) * self._stream.time_base), 1 / rate if rate else 0.0)
        lost = moment - self._time(self._shown) - lasts
        if lost > (0.25 if self._stream.duration else 1.0):
            raise RebusError(f"{self._name}: ends {lost:.1f} s too early; the file may be truncated")


def _image(frame: Any, scale: float) -> "Image":
    from PIL import Image

    image: Image.Image = frame.to_image()
    if scale < 1:
        width, height = (max(1, round(side * scale)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    turn = round(getattr(frame, "rotation", 0) / 90) % 4
    return image.rotate(90 * turn, expand=True) if turn else image


def _length(container: Any, stream: Any, name: str) -> float:
    """Seconds of the images, as the container states them."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    if container.duration:
        return container.duration / 1e6
    if stream.frames and stream.average_rate:
        return float(stream.frames / stream.average_rate)
    raise RebusError(f"{name}: states no length; the file may be truncated. Re-encode it with a tool such as ffmpeg")


def _source(video: bytes | str | os.PathLike[str], name: str) -> Any:
    try:
        size = len(video) if isinstance(video, bytes) else Path(video).stat().st_size
        if not size:
            raise RebusError(f"{name}: empty file")
        _at_most(size, "MAX_VIDEO_BYTES", MAX_VIDEO_BYTES, f"{name}: bytes of a video")
        return io.BytesIO(video) if isinstance(video, bytes) else f"file:{os.fspath(video)}"
    except OSError as error:
        raise RebusError(f"{name}: cannot be read: {error.strerror}") from None


def _at_most(value: int, limit: str, most: int, what: str) -> None:
    if value > most:
        raise LimitExceeded(f"{what}: {value:,} passes the limit {limit} = {most:,} of rebus.data.video_frames")


def _av() -> Any:
    try:
        import av
    except ImportError:
        raise MissingExtra("video", "decoding videos") from None
    return av


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).splitlines()[0]
