"""What detection and segmentation share: images opened once, and how sure the model was of each place."""

import math
from collections.abc import Sequence

from PIL import Image

from rebus.codec.images import ImageSource, open_images
from rebus.codec.normalised_image import NormalisedImage
from rebus.core.errors import BadImage
from rebus.core.places import Located, LocationNotation
from rebus.tasks.task_model import TaskModel, image_spec
from rebus.tasks.text_generation import Generated


def open_all(model: TaskModel, images: Sequence[ImageSource]) -> list[Image.Image]:
    """Upright images: their sizes are what boxes refer to."""
    if any(isinstance(image, NormalisedImage) for image in images):
        raise BadImage('places are in pixels of an image: give the image itself in place of {"pixels": …}')
    opened, _ = open_images(images, alpha=image_spec(model).alpha)
    return [image for image in opened if image is not None]


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
