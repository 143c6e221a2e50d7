"""A clip: frames of a video that a model sees as one."""

from dataclasses import dataclass

from rebus.codec.decode_image import ImageSource
from rebus.core.errors import BadImage


@dataclass(frozen=True, eq=False)
class Clip:
    """Frames of a video in their order, evenly over time (`rebus.data.video_frames.frames`); models that learned from
    video take it wherever they take an image, as one image. Raises `BadImage` for no frames."""

    frames: tuple[ImageSource, ...]

    def __post_init__(self) -> None:
        if isinstance(self.frames, str | bytes) or not hasattr(self.frames, "__iter__"):
            raise BadImage(f"a clip is a list of frames; got {type(self.frames).__name__}")
        object.__setattr__(self, "frames", tuple(self.frames))
        if not self.frames:
            raise BadImage("a clip without frames")
