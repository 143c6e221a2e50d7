"""From a catalogue name to the system and the configuration that are planned, without any weights."""

from dataclasses import replace
from typing import Any

from rebus import catalog
from rebus.core.errors import UsageError
from rebus.core.system import System
from rebus.objectives import check_trained
from rebus.open_checkpoint import config_of


def configuration(name: str, image_size: int | None = None) -> tuple[System, Any]:
    """Of a catalogue name, for images of another size where one is given.

    Raises `UnknownName`, with the nearest names; `UsageError` for what is put together without training, and for
    images smaller than a patch.
    """
    check_trained(catalog.system(catalog.info(name).system))
    system, config = config_of(name)
    return system, config if image_size is None else _at_size(config, image_size)


def _at_size(config: Any, image_size: int) -> Any:
    image = config.image
    if image is None:
        raise UsageError("--image-size: this model takes region features in place of images")
    patch = getattr(image, "patch_size", 32)
    if image_size < patch:
        raise UsageError(f"--image-size {image_size}: smaller than a patch of {patch}")
    try:
        return replace(config, image=replace(image, image_size=image_size))
    except TypeError:  # a size that follows from others
        raise UsageError(f"--image-size: the image encoder of this model takes {image.image_size} px alone") from None
