"""Regions of an image as vectors of a dual encoder, each by its crops, and regions worth it, by a network that finds
them."""

from typing import cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from rebus.codec.region_crops import crop, enlarged
from rebus.codec.resize import placement
from rebus.core.answers import Box
from rebus.core.capabilities import DescribesRegions, FindsRegions
from rebus.core.errors import UnsupportedTask
from rebus.tasks.detect import detect
from rebus.tasks.embed import Comparison
from rebus.tasks.task_model import TaskModel, image_spec, on_device

AROUND = (1.0, 1.5)  # sides of a crop, of those of its box (ViLD, Sec. 3.2)


def embed_crops(model: TaskModel, image: Image.Image, boxes: np.ndarray) -> np.ndarray:
    """boxes (R, 4) xyxy in pixels → float32 (R, E) of unit length: the sum of the vectors of a box's two crops."""
    compare = Comparison(model)
    if not len(boxes):
        return np.zeros((0, len(compare.images([image])[0])), dtype=np.float32)
    found = torch.from_numpy(boxes)
    crops = [crop(image, box) for by in AROUND for box in enlarged(found, by).tolist()]
    vectors = compare.images(crops).unflatten(0, (len(AROUND), len(boxes))).sum(dim=0)
    return F.normalize(vectors, dim=1).numpy()


def propose_regions(model: TaskModel, image: Image.Image, most: int) -> np.ndarray:
    """The regions of an image that a network finds prominent, whatever they are called: (R, 4) in pixels, best first.

    Raises `UnsupportedTask` for a network that finds no regions.
    """
    network = model.network
    if isinstance(network, DescribesRegions):
        pixels = on_device(model, model.processor(images=[image]))["pixels"]
        with torch.inference_mode():
            (found,) = network.region_features(pixels, most)
        return _in_image(model, image, found.boxes.float().cpu())
    elif isinstance(network, FindsRegions) or "detect" in getattr(model, "tasks", ()):
        (found_boxes,) = cast(list[list[Box]], detect(model, [image]))
        boxes = [box.xyxy for box in found_boxes[:most]]
    else:
        raise UnsupportedTask(f"{model.system.name} finds no regions: it cannot propose any")
    return np.array(boxes, dtype=np.float32).reshape(-1, 4)


def _in_image(model: TaskModel, image: Image.Image, boxes: Tensor) -> np.ndarray:
    """Boxes (R, 4) in shares of what the network read, in pixels of the image that lies on it; what lies in the padding
    alone is left out."""
    spec = image_spec(model)
    left, top, width, height = placement(spec, *image.size)
    high, wide = spec.size
    scale = torch.tensor([image.width / width, image.height / height]).repeat(2)
    moved = (boxes * torch.tensor([wide, high, wide, high]) - torch.tensor([left, top, left, top])) * scale
    moved = moved.clamp(min=0).minimum(torch.tensor([*image.size, *image.size]))
    found: np.ndarray = moved[(moved[:, 2:] > moved[:, :2]).all(dim=1)].numpy()
    return found
