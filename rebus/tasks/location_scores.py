"""What detection and segmentation share: images opened once, and how sure the model was of each place."""

import math
from collections.abc import Sequence

from PIL import Image

from rebus.codec.images import ImageSource, open_images
from rebus.core.places import Located, LocationNotation
from rebus.tasks.task_model import TaskModel, image_spec
from rebus.tasks.text_generation import Generated


def open_all(model: TaskModel, images: Sequence[ImageSource]) -> list[Image.Image]:
    """Upright images: their sizes are what boxes refer to."""
    opened, _ = open_images(images, alpha=image_spec(model).alpha)
    return [image for image in opened if image is not None]


def certainty(
    model: TaskModel, locations: LocationNotation, answer: Generated, found: Sequence[Located]
) -> list[float]:
    """For each place the geometric mean of the probabilities of its location tokens."""
    assert model.processor.text is not None
    tokenizer = model.processor.text.tokenizer
    logs = [
        log
        for token, log in zip(answer.tokens, answer.log_probabilities, strict=True)
        if locations.is_location(tokenizer.piece_of(token) or "")
    ]
    starts = locations.token_starts(answer.text)
    if len(starts) > len(logs):  # spelt out letter by letter, which no trained model does: nothing is known of it
        return [0.0 for _ in found]
    scores = []
    for place in found:
        own = [log for start, log in zip(starts, logs, strict=False) if place.span[0] <= start < place.span[1]]
        scores.append(math.exp(sum(own) / len(own)))
    return scores
