"""Regions by a network that finds them (`FindsRegions`), in pixels of the given image."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
from PIL import Image

from rebus.codec.boxes import in_pixels
from rebus.codec.images import ImageSource
from rebus.codec.masks import paste_mask
from rebus.core.answers import Box, Mask
from rebus.core.errors import UnsupportedTask
from rebus.core.finite import check_finite
from rebus.core.outputs import Regions
from rebus.tasks.batching import AS_IT_SUITS, BatchOptions, in_batches
from rebus.tasks.classify import label_vectors
from rebus.tasks.location_scores import open_all
from rebus.tasks.prompts import templates_of
from rebus.tasks.task_model import TaskModel, batch_size, image_spec, on_device

Answer = TypeVar("Answer")


class RegionFinder:
    """Labels are embedded once, then any number of batches of (upright) images are searched for them.

    Raises `UnsupportedTask` where preprocessing does not stretch the whole image to the network's size: what is found
    would be at other places of the given image.
    """

    def __init__(self, model: TaskModel, labels: Sequence[str]):
        spec = image_spec(model)
        if spec.resize != "exact":
            raise UnsupportedTask(
                f'{model.system.name} resizes images by "{spec.resize}"; regions are placed in images resized whole '
                'by "exact"'
            )
        self.model, self.labels = model, list(labels)
        templates = templates_of(model.system.prompts.classify or "plain")
        self.vectors = label_vectors(model, self.labels, templates, average=True)

    def search(
        self,
        images: Sequence[ImageSource],
        answer: Callable[[Sequence[Image.Image]], list[Answer]],
        numbers: Sequence[int] | None = None,
        batching: BatchOptions = AS_IT_SUITS,
    ) -> list[Answer]:
        """`answer` (`boxes` or `masks`) of all images, in batches. `numbers`: what the caller calls them in errors."""
        size = batch_size(self.model, cpu=4, accelerator=16)

        def work(batch: Sequence[ImageSource]) -> list[Answer]:
            return answer(open_all(self.model, batch))

        return in_batches(images, work, size=size, what="images", numbers=numbers, options=batching)

    def boxes(self, images: Sequence[Image.Image]) -> list[list[Box]]:
        """Boxes of each image, best first."""
        return [[box for box, _ in self._sorted(*pair)] for pair in zip(images, self._find(images), strict=True)]

    def masks(self, images: Sequence[Image.Image]) -> list[list[Mask]]:
        """Masks (H, W) of each image, best first."""
        answers = []
        for image, found in zip(images, self._find(images), strict=True):
            assert found.masks is not None, "a network without masks says finds_masks = False"
            grids = found.masks.float().cpu().numpy()
            answers.append(
                [
                    Mask(paste_mask(grids[at], box.xyxy, image.size), box.xyxy, box.label, box.score)
                    for box, at in self._sorted(image, found)
                ]
            )
        return answers

    def _find(self, images: Sequence[Image.Image]) -> Sequence[Regions]:
        pixels = on_device(self.model, self.model.processor(images=list(images)))["pixels"]
        with torch.inference_mode():
            found: Sequence[Regions] = self.model.network.find_regions(pixels, self.vectors.to(pixels))
        for number, regions in enumerate(found):
            for numbers in (regions.scores, regions.boxes, regions.masks):
                if numbers is not None:
                    check_finite(numbers.flatten()[None], f"image {number}", numbers.dtype)
        return found

    def _sorted(self, image: Image.Image, found: Regions) -> Iterator[tuple[Box, int]]:
        """Boxes, best first, and which of the regions each is."""
        scores = found.scores.float()
        shares, labels = found.boxes.float().clamp(0, 1).tolist(), found.labels.tolist()
        for at in scores.argsort(descending=True, stable=True).tolist():
            yield Box(in_pixels(tuple(shares[at]), image.size), self.labels[labels[at]], float(scores[at])), at
