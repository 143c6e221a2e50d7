"""What a generated text places, in pixels of its image: boxes, lines of writing, masks; the surest first."""

from collections.abc import Collection

from PIL import Image

from rebus.codec.boxes import in_pixels
from rebus.codec.masks import fill_polygons
from rebus.core.answers import Box, Mask, TextLine
from rebus.core.places import Located
from rebus.tasks.location_scores import certainty
from rebus.tasks.task_model import TaskModel, locations_of, no_places
from rebus.tasks.text_generation import Generated


def boxes_of(
    model: TaskModel, image: Image.Image, answer: Generated, label: str | None = None, skip: Collection[str] = ()
) -> list[Box]:
    """Boxes by the labels of the text, or all by `label`. Without one those that have none are left out, as are those
    whose label is in `skip`."""
    locations = locations_of(model)
    found, _ = locations.parse(answer.text)
    named = [(place, label if label is not None else place.label) for place in found]
    scores = certainty(model, locations, answer, found)
    boxes = [
        Box(in_pixels(place.xyxy, image.size), name, score)
        for (place, name), score in zip(named, scores, strict=True)
        if (name or label is not None) and name not in skip
    ]
    return sorted(boxes, key=lambda box: -box.score)


def lines_of(model: TaskModel, image: Image.Image, answer: Generated) -> list[TextLine]:
    """Lines of writing in the order of the text, which is that of reading. One without text is left out."""
    lines = model.system.lines
    if lines is None:
        raise no_places(model)
    found, _ = lines.parse(answer.text)
    scores = certainty(model, lines, answer, found)
    return [
        TextLine(place.label, _scaled(place.points, image), score)
        for place, score in zip(found, scores, strict=True)
        if place.label
    ]


def masks_of(model: TaskModel, image: Image.Image, answer: Generated, label: str) -> list[Mask]:
    """Masks by the polygons of the text; `label`: what one without a label of its own is called."""
    if model.system.outlines is None:
        raise no_places(model)
    found, _ = model.system.outlines.parse(answer.text)
    scores = certainty(model, locations_of(model), answer, found)
    masks = [_filled(image, place, label, score) for place, score in zip(found, scores, strict=True)]
    return sorted(masks, key=lambda mask: -mask.score)


def _filled(image: Image.Image, place: Located, label: str, score: float) -> Mask:
    polygons = [_scaled(outline, image) for outline in place.outlines]
    return Mask(fill_polygons(polygons, image.size), in_pixels(place.xyxy, image.size), place.label or label, score)


def _scaled(points: tuple[tuple[float, float], ...], image: Image.Image) -> tuple[tuple[float, float], ...]:
    return tuple((x * image.width, y * image.height) for x, y in points)
