"""What detection and segmentation share: images opened once, and how sure the model was of each place."""

import math
from collections.abc import Sequence
from itertools import islice

from PIL import Image

from rebus.codec.clips import Clip
from rebus.codec.images import ImageSource, open_images
from rebus.codec.normalised_image import NormalisedImage
from rebus.core.errors import BadImage
from rebus.core.places import Located, LocationNotation
from rebus.tasks.task_model import TaskModel, image_spec
from rebus.tasks.text_generation import Generated


def open_all(model: TaskModel, images: Sequence[ImageSource]) -> list[Image.Image]:
    """Upright images: their sizes are what boxes refer to. One that is given several times is opened once."""
    if any(isinstance(image, NormalisedImage) for image in images):
        raise BadImage('places are in pixels of an image: give the image itself in place of {"pixels": …}')
    distinct = {id(image): image for image in images}
    opened, _ = open_images(list(distinct.values()), alpha=image_spec(model).alpha)
    found = dict(zip(distinct, opened, strict=True))
    return [image for given in images if (image := found[id(given)]) is not None]


def open_shown(model: TaskModel, images: Sequence[ImageSource | Clip]) -> list[Image.Image | Clip]:
    """Images of a prompt, and clips with their frames open."""
    frames = [one.frames if isinstance(one, Clip) else (one,) for one in images]
    opened = iter(open_all(model, [frame for each in frames for frame in each]))
    return [
        Clip(tuple(islice(opened, len(each)))) if isinstance(one, Clip) else next(opened)
        for one, each in zip(images, frames, strict=True)
    ]


def certainty(
    model: TaskModel, locations: LocationNotation, answer: Generated, found: Sequence[Located]
) -> list[float]:
    """For each place the geometric mean of the probabilities of its coordinates."""
    assert model.processor.text is not None
    tokenizer = model.processor.text.tokenizer
    pieces = [tokenizer.piece_of(token) or "" for token in answer.tokens]
    logs = locations.log_probabilities(answer.text, pieces, answer.log_probabilities)
    scores = []
    for place in found:
        own = [log for start, log in logs if place.span[0] <= start < place.span[1]]
        scores.append(math.exp(sum(own) / len(own)) if own else 0.0)  # 0: no trained model writes so
    return scores
