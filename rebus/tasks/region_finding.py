"""Detections of a network that finds regions (`FindsRegions`), in pixels of the input image."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from rebus.codec.boxes import in_pixels
from rebus.codec.images import ImageSource
from rebus.codec.masks import paste_region_mask
from rebus.codec.resize import placement
from rebus.core.answers import Box, Mask
from rebus.core.errors import UnsupportedTask
from rebus.core.finite import check_finite
from rebus.core.labels import plain_label
from rebus.core.outputs import Regions
from rebus.core.places import XYXY
from rebus.core.specs import ImageSpec
from rebus.tasks.batching import AS_IT_SUITS, BatchOptions, in_batches
from rebus.tasks.label_memory import remembered_vectors
from rebus.tasks.location_scores import open_all
from rebus.tasks.prompts import templates_of
from rebus.tasks.task_model import TaskModel, batch_size, image_spec, on_device

Answer = TypeVar("Answer")


class LastSeen:
    """The cached output of `look` for the last images, in which other labels are found without another forward pass.
    The network must not change meanwhile."""

    def __init__(self) -> None:
        self._pixels = b""
        self._seen: Any = None

    def of(self, model: TaskModel, pixels: Tensor) -> Any:
        """`look` at pixels, which are not on the device yet, unless these were the last ones."""
        key = hashlib.sha256(pixels.numpy().tobytes()).digest()
        if key != self._pixels:
            self._pixels, self._seen = b"", None  # before there are two of them
            self._seen = model.network.look(on_device(model, {"pixels": pixels})["pixels"])
            self._pixels = key
        return self._seen


class RegionFinder:
    """Labels are embedded once, then any number of batches of (upright) images are searched for them.

    A label may be several names for the same thing: it is called by the first, and stands for the mean of all.
    `templates`: sentences with `{}` or the name of a set; None: the system's. `last_seen`: shared by
    finders that search the same images for other labels.
    Raises `UnsupportedTask` where preprocessing cuts images: what lies outside would be passed over.
    """

    def __init__(
        self,
        model: TaskModel,
        labels: Sequence[str | Sequence[str]],
        templates: str | Sequence[str] | None = None,
        last_seen: LastSeen | None = None,
    ):
        self.spec = image_spec(model)
        if not _keeps_all(self.spec):
            raise UnsupportedTask(
                f'{model.system.name} resizes images by "{self.spec.resize}" and cuts them; regions are found in whole '
                "images"
            )
        names = [[label] if isinstance(label, str) else list(label) for label in labels]
        self.model, self.labels = model, [several[0] for several in names]
        sentences = templates_of(templates or model.system.prompts.classify or "plain")
        self.vectors = _mean_vectors(model, names, sentences)
        self.last_seen = last_seen
        self.options: dict[str, Tensor] = {}
        if known := {plain_label(name) for name in getattr(model.network, "base_labels", ())}:
            self.options["base"] = torch.tensor([any(plain_label(n) in known for n in several) for several in names])

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
        cheaper = {"masks": False} if getattr(self.model.network, "finds_masks", True) else {}
        found = self._find(images, **cheaper)
        return [[box for box, _, _ in self._placed(*pair)] for pair in zip(images, found, strict=True)]

    def masks(self, images: Sequence[Image.Image]) -> list[list[Mask]]:
        """Masks (H, W) of each image, best first."""
        answers = []
        for image, found in zip(images, self._find(images), strict=True):
            assert found.masks is not None, "a network without masks says finds_masks = False"
            grids = found.masks.float().cpu().numpy()
            answers.append(
                [
                    Mask(paste_region_mask(grids[at], whole, image.size), box.xyxy, box.label, box.score)
                    for box, whole, at in self._placed(image, found)
                ]
            )
        return answers

    def _find(self, images: Sequence[Image.Image], **options: Any) -> Sequence[Regions]:
        pixels, network = self.model.processor(images=list(images))["pixels"], self.model.network
        labels = self.vectors.to(self.model.device, self.model.dtype)
        options |= on_device(self.model, self.options)
        with torch.inference_mode():
            if self.last_seen is not None and hasattr(network, "look"):
                found: Sequence[Regions] = network.name_regions(
                    self.last_seen.of(self.model, pixels), labels, **options
                )
            else:
                found = network.find_regions(on_device(self.model, {"pixels": pixels})["pixels"], labels, **options)
        for number, regions in enumerate(found):
            for numbers in (regions.scores, regions.boxes, regions.masks):
                if numbers is not None:
                    check_finite(numbers.flatten()[None], f"images[{number}]", numbers.dtype)
        return found

    def _placed(self, image: Image.Image, found: Regions) -> Iterator[tuple[Box, XYXY, int]]:
        """Boxes, best first; the same before they were clipped to the image, which masks are of; which of the regions
        each is. What lies in the padding alone is left out."""
        left, top, width, height = placement(self.spec, *image.size)
        high, wide = self.spec.size
        boxes = found.boxes.float().cpu() * torch.tensor([wide, high, wide, high])
        boxes = (boxes - torch.tensor([left, top, left, top])) / torch.tensor([width, height, width, height])
        whole, inside = boxes.tolist(), boxes.clamp(0, 1).tolist()
        scores, labels = found.scores.float().cpu(), found.labels.tolist()
        for at in scores.argsort(descending=True, stable=True).tolist():
            x1, y1, x2, y2 = inside[at]
            if x2 > x1 and y2 > y1:
                box = Box(in_pixels((x1, y1, x2, y2), image.size), self.labels[labels[at]], float(scores[at]))
                yield box, in_pixels(tuple(whole[at]), image.size), at


def _keeps_all(spec: ImageSpec) -> bool:
    """Whether the whole image is in what the network reads, stretched or on a larger canvas."""
    return spec.resize == "longer" or (spec.resize == "exact" and spec.side is None)


def _mean_vectors(model: TaskModel, names: Sequence[Sequence[str]], templates: Sequence[str]) -> Tensor:
    """(C, E) of unit length: of each label the mean of all sentences about all its names."""
    vectors = remembered_vectors(model, [name for several in names for name in several], templates)
    if len(vectors) == len(names):
        return vectors
    means = [part.mean(dim=0) for part in vectors.split([len(several) for several in names])]
    return F.normalize(torch.stack(means), dim=-1)
