"""Lists of detections that remember their image: `plot()` draws them, and notebooks show them."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from rebus.core.answers import Box, Mask, box_table
from rebus.core.errors import RebusError, UsageError

if TYPE_CHECKING:
    from PIL import Image

    from rebus.codec.images import ImageSource

Found = TypeVar("Found", bound="Boxes | Masks")


class Boxes(list[Box]):
    """A list of boxes, equal to any list of the same ones. `image`: what was searched, as it was given."""

    def __init__(self, boxes: Iterable[Box] = (), image: ImageSource | None = None):
        super().__init__(boxes)
        self.image = image

    def plot(self, image: ImageSource | None = None) -> Image.Image:
        """A copy of the image with the boxes drawn; of the one that was searched unless another is given (a path or an
        image)."""
        from rebus.tasks.draw import draw_boxes

        return draw_boxes(_opened(image, self.image), self)

    def _repr_html_(self) -> str:
        return _drawn(self) + box_table(self)


class Masks(list[Mask]):
    """The same of masks."""

    def __init__(self, masks: Iterable[Mask] = (), image: ImageSource | None = None):
        super().__init__(masks)
        self.image = image

    def plot(self, image: ImageSource | None = None) -> Image.Image:
        """A copy of the image with the masks drawn on it; of the one that was searched unless another is given (a path
        or an image)."""
        from rebus.tasks.draw import draw_masks

        return draw_masks(_opened(image, self.image), self)

    def _repr_html_(self) -> str:
        return _drawn(self) + box_table([Box(mask.box, mask.label, mask.score) for mask in self])


def in_images(kind: type[Found], answers: Sequence[list[Any] | None], sources: Sequence[Any]) -> list[Any]:
    """Each answer as a list that knows its image; one that was skipped stays None."""
    return [None if answer is None else kind(answer, source) for answer, source in zip(answers, sources, strict=True)]


def _opened(given: Any, searched: Any) -> Image.Image:
    from rebus.codec.images import open_image
    from rebus.codec.regions import ImageRegions

    source = searched if given is None else given
    if source is None or isinstance(source, ImageRegions):
        raise UsageError("plot needs an image: plot(image)")
    return open_image(source)


def _drawn(found: Boxes | Masks) -> str:
    """The drawing inside a page; nothing where the image is not there any more."""
    from rebus.tasks.draw import encoded

    try:
        data = encoded(found.plot(), ".jpg")
    except RebusError:
        return ""
    return f"<img style='max-width:100%' src='data:image/jpeg;base64,{base64.b64encode(data).decode()}'>"
