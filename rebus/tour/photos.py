"""Real photos: zero-shot classification, text search and captions."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from PIL import Image

from rebus.codec.decode_image import open_image
from rebus.core.answers import Ranking

# (file of scikit-image, ground truth). All photographs that are in the package itself, everyday objects first.
SAMPLES = (
    ("chelsea.png", "a cat"),
    ("coffee.png", "a cup of coffee"),
    ("rocket.jpg", "a rocket"),
    ("motorcycle_left.png", "a motorcycle"),
    ("camera.png", "a photographer"),
    ("astronaut.png", "an astronaut"),
    ("coins.png", "coins"),
    ("page.png", "a printed page"),
    ("hubble_deep_field.jpg", "galaxies"),
    ("moon.png", "the moon"),
    ("brick.png", "a brick wall"),
    ("grass.png", "grass"),
    ("gravel.png", "gravel"),
)
OTHERS = ("a dog", "a bird", "a car", "a sailing boat", "a pizza", "a flower", "a piano", "a mountain", "a bicycle")
QUERIES = (  # (text, files that match it): eight that asif/starter answers, and two that show where it fails
    ("a kitten", ("chelsea.png",)),
    ("something hot to drink", ("coffee.png",)),
    ("a rocket launch", ("rocket.jpg",)),
    ("a vehicle with two wheels", ("motorcycle_left.png",)),
    ("a man with a tripod", ("camera.png",)),
    ("old coins", ("coins.png",)),
    ("text on paper", ("page.png",)),
    ("stones on the ground", ("gravel.png",)),
    ("a pet with whiskers", ("chelsea.png",)),
    ("stars in the night sky", ("hubble_deep_field.jpg",)),
)
NUM_CAPTIONED = 6


@dataclass(frozen=True)
class Sorted:
    """A photo with its ground truth and its ranking of labels."""

    name: str
    image: Image.Image
    truth: str
    ranking: Ranking

    @property
    def right(self) -> bool:
        return self.ranking.top == self.truth


@dataclass(frozen=True)
class Found:
    """A query and the photos as indices, most similar first."""

    text: str
    order: tuple[int, ...]
    right: bool


@dataclass(frozen=True)
class Photos:
    """The predictions of a model for all photos. Seconds include opening the images."""

    model: str
    labels: tuple[str, ...]
    images: tuple[Sorted, ...]
    queries: tuple[Found, ...]
    sort_seconds: float
    search_seconds: float


@dataclass(frozen=True)
class Captioned:
    """Photos with their captions, and, of a model with a guide, the caption that any of them gets without it."""

    model: str
    images: tuple[tuple[Image.Image, str, str], ...]  # image, label, caption
    unguided: str | None
    seconds: float

    @property
    def named(self) -> int:
        """The number of captions that contain the last word of the label."""
        return sum(label.split()[-1] in said.lower().split() for _, label, said in self.images)


def caption_photos(model: Any, photos: Sequence[tuple[Path, str]], guided: bool) -> Captioned:
    """Caption the photos. `guided`: the model has a guide, without which one of them is captioned too."""
    began = time.perf_counter()
    images = [open_image(path) for path, _ in photos]
    captions = model.caption(images)
    seconds = time.perf_counter() - began
    labels = [label for _, label in photos]
    rows = tuple(zip(images, labels, captions, strict=True))
    return Captioned(model.card.name, rows, model.caption(images[0], beta=0.0) if guided else None, seconds)


def samples() -> list[tuple[Path, str]]:
    """(file, label) of the sample photos on this machine; none without scikit-image."""
    found = find_spec("skimage")
    if found is None or not found.submodule_search_locations:
        return []
    folder = Path(found.submodule_search_locations[0]) / "data"
    return [(folder / name, label) for name, label in SAMPLES if (folder / name).is_file()]


def look_at_photos(model: Any, photos: Sequence[tuple[Path, str]]) -> Photos:
    """Classify the photos among their labels and some others, and rank them for each query."""
    labels = (*(label for _, label in photos), *OTHERS)
    began = time.perf_counter()
    images = [open_image(path) for path, _ in photos]
    rankings = model.classify(images, list(labels))
    sort_seconds = time.perf_counter() - began
    names = [path.name for path, _ in photos]
    queries = [(text, fitting) for text, fitting in QUERIES if set(fitting) & set(names)]
    began = time.perf_counter()
    scores = model.match(images, [text for text, _ in queries])
    found = []
    for column, (text, fitting) in enumerate(queries):
        order = sorted(range(len(images)), key=lambda i: -float(scores[i][column]))
        found.append(Found(text, tuple(order), names[order[0]] in fitting))
    rows = [
        Sorted(path.name, image, label, ranking)
        for (path, label), image, ranking in zip(photos, images, rankings, strict=True)
    ]
    return Photos(model.card.name, labels, tuple(rows), tuple(found), sort_seconds, time.perf_counter() - began)
