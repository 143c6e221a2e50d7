"""Images as a detector or a grid of features sees them, for networks that read regions."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from rebus.codec.images import ImagePipeline, ImageSource
from rebus.codec.regions import ImageRegions
from rebus.codec.resize import boxes_in_image
from rebus.core.finite import check_finite
from rebus.tasks.batching import AS_IT_SUITS, BatchOptions, in_batches
from rebus.tasks.inputs import many_images
from rebus.tasks.location_scores import open_all
from rebus.tasks.task_model import TaskModel, batch_size, image_spec, on_device


def embed_regions(
    model: TaskModel, images: Any, *, batching: BatchOptions = AS_IT_SUITS
) -> ImageRegions | list[ImageRegions]:
    """The regions of each image, boxes in pixels of the given (upright) image.

    The whole image is stretched to the network's size, however the network crops for its own task: what stands at the
    border is seen too. A detector that pads images has them padded.
    """
    sources, many = many_images(images)
    spec = image_spec(model)
    spec = spec if spec.resize == "longer" else replace(spec, resize="exact", side=None)
    pipeline = ImagePipeline(spec)

    def see(batch: Sequence[ImageSource]) -> list[ImageRegions]:
        opened = open_all(model, batch)
        with torch.inference_mode():
            found = model.network.region_features(**on_device(model, pipeline(opened)))
        answers = []
        for i, (image, regions) in enumerate(zip(opened, found, strict=True)):
            check_finite(regions.features[None], f"images[{i}]", regions.features.dtype)
            boxes, inside = boxes_in_image(spec, image.size, regions.boxes.float().cpu())
            features = regions.features.float().cpu()
            answers.append(ImageRegions(features[inside].numpy(), boxes[inside].numpy(), image.size, f"images[{i}]"))
        return answers

    found = in_batches(sources, see, size=batch_size(model, cpu=8, accelerator=32), what="images", options=batching)
    return found if many else found[0]
