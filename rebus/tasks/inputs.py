"""One item or many: tasks take either, and return one answer or a list."""

import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from rebus.codec.clips import Clip
from rebus.codec.image_files import images_in
from rebus.codec.images import ImageSource
from rebus.codec.normalised_image import NormalisedImage, normalised_images
from rebus.codec.regions import ImageRegions
from rebus.codec.text import Pieces, Prompt
from rebus.core.errors import BadImage, BadText, MissingFile, UsageError
from rebus.core.limits import check, limit


def many_images(images: Any) -> tuple[list[ImageSource], bool]:
    """The images as a list, and whether many were given: a list, a generator, a stack of four dimensions, or a folder,
    whose images come in the order of their paths (`images_in`). `{"pixels": …}` is taken as it is."""
    if isinstance(images, Mapping):
        return normalised_images(images)  # type: ignore[return-value]
    if isinstance(images, str | os.PathLike) and os.path.isdir(images):
        images = _in_folder(images)
    if isinstance(images, np.ndarray | Tensor) and images.ndim == 4:
        images = list(images)
    single: Any = (
        str
        | bytes
        | bytearray
        | memoryview
        | os.PathLike
        | Image.Image
        | np.ndarray
        | Tensor
        | ImageRegions
        | Clip
        | NormalisedImage
    )
    if isinstance(images, single):
        return [images], False
    if isinstance(images, Iterator):
        images = list(islice(images, limit("MAX_IMAGES") + 1))
    if not isinstance(images, Sequence):
        raise BadImage(
            'expected an image (a path, bytes, a PIL image, an array, a tensor, regions, a clip, {"pixels": …}), a '
            f"folder, a list or a generator; got {type(images).__name__}"
        )
    check("MAX_IMAGES", len(images), "images in one call")
    return [image for one in images for image in (many_images(one)[0] if isinstance(one, Mapping) else [one])], True


def _in_folder(folder: str | os.PathLike[str]) -> list[Path]:
    try:
        found = images_in(folder)
    except OSError as error:
        raise BadImage(f"{error.filename}: a folder that cannot be read: {error.strerror}") from None
    if not found:
        raise MissingFile(f"{os.fspath(folder)}: no images in this folder")
    return found


def many_texts(texts: Prompt | Sequence[Prompt], what: str = "texts") -> tuple[list[Prompt], bool]:
    """The texts as a list, and whether many were given."""
    if isinstance(texts, str | Pieces):
        return [texts], False
    if isinstance(texts, Iterator):
        texts = list(texts)
    if not isinstance(texts, Sequence):
        raise BadText(f"{what} expects a text or a list of them; got {type(texts).__name__}")
    for index, text in enumerate(texts):
        if not isinstance(text, str | Pieces):
            raise BadText(f"{what}[{index}] must be a text; got {type(text).__name__}")
    return [*texts], True


def in_pairs(images: Any, texts: Prompt | Sequence[Prompt], what: str) -> tuple[list[tuple[ImageSource, Prompt]], bool]:
    """(image, text) for each answer, and whether there are many. A single one is broadcast."""
    sources, many_seen = many_images(images)
    listed, many_listed = many_texts(texts, what)
    if many_seen and many_listed and len(sources) != len(listed):
        raise UsageError(f"{len(sources)} images and {len(listed)} {what}: give as many, or one for all")
    if not many_seen:
        sources = sources * len(listed)
    if not many_listed:
        listed = listed * len(sources)
    return list(zip(sources, listed, strict=True)), many_seen or many_listed
