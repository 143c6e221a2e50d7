"""Pooled features of the image encoder inside any model."""

from typing import Any

from torch import Tensor, nn

from rebus.core.capabilities import EmbedsImages
from rebus.core.errors import UnsupportedTask
from rebus.tasks.batching import AS_IT_SUITS, BatchOptions
from rebus.tasks.embed import See, all_images
from rebus.tasks.task_model import TaskModel


def image_features(model: TaskModel, images: Any, *, batching: BatchOptions = AS_IT_SUITS) -> Tensor:
    """(n, d) float32 on the CPU, rows of NaN for images that are skipped. Of a dual encoder its embeddings; of other
    models one vector of their image encoder: the class token, or the mean over the places of the last grid.

    Raises `UnsupportedTask` for a model without one, and what `open_image` raises.
    """
    return all_images(model, images, encoder_of(model), unit=False, batching=batching)


def encoder_of(model: TaskModel) -> See:
    """pixels → one vector an image. Raises `UnsupportedTask` where there is no such encoder."""
    network = model.network
    if isinstance(network, EmbedsImages):
        dense = getattr(network, "is_dense", True)
        return network.embed_image if dense else network.image_vectors  # type: ignore[attr-defined]
    inside = image_encoder(network) or network
    for whole, one in (("forward", "pooled"), ("feature_map", "features")):
        if hasattr(inside, whole) and hasattr(inside, one):
            found: See = getattr(inside, one)
            return found
    if getattr(inside, "channels_last", False):
        return lambda pixels: inside(pixels).mean(dim=(1, 2))
    raise UnsupportedTask(f"{model.system.name} has no image encoder that gives one vector an image")


def image_encoder(network: nn.Module) -> nn.Module | None:
    """The network of images inside: its `image`, that of the dual encoder that it holds, or a detector's backbone."""
    for name in ("image", "guide", "encoder", "backbone"):
        inside = getattr(network, name, None)
        if isinstance(inside, nn.Module) and (name in ("image", "backbone") or isinstance(inside, EmbedsImages)):
            return image_encoder(inside) or inside
    return None
