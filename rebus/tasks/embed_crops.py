"""Regions of an image as vectors of a dual encoder, each by its crops, and regions worth it, by a network that finds
them."""

from typing import cast

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from rebus.codec.region_crops import crop, enlarged
from rebus.codec.resize import boxes_in_image
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
        moved, inside = boxes_in_image(image_spec(model), image.size, found.boxes.float().cpu())
        kept: np.ndarray = moved[inside].numpy()
        return kept
    elif isinstance(network, FindsRegions) or "detect" in getattr(model, "tasks", ()):
        (found_boxes,) = cast(list[list[Box]], detect(model, [image]))
        boxes = [box.xyxy for box in found_boxes[:most]]
    else:
        raise UnsupportedTask(f"{model.system.name} finds no regions: it cannot propose any")
    return np.array(boxes, dtype=np.float32).reshape(-1, 4)
