"""Teach a detector to name regions by texts, and to embed them as a dual encoder embeds their crops.

Gu et al., "Open-vocabulary Object Detection via Vision and Language Knowledge Distillation" (ViLD), 2021, Sec. 3:
L = L_rpn_cls + L_rpn_box + L_text + L_box + L_mask + w · L_image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from rebus.core.labels import IGNORED
from rebus.nn.boxes import BOX_WEIGHTS, encode_boxes
from rebus.nn.only_shapes import only_shapes
from rebus.objectives import region_losses
from rebus.objectives.distillation import embedding_distillation
from rebus.objectives.losses import Losses
from rebus.objectives.region_sampling import ANCHOR_SHARE, REGION_SHARE, match_anchors, match_regions, sample
from rebus.objectives.region_text import judged_classes, region_text


class Objects(NamedTuple):
    """What is labelled in one image: `boxes` (N, 4), `labels` (N,) from 0, `masks` (N, S, S) within the boxes, 0 to 1,
    of those that are `outlined` (N,)."""

    boxes: Tensor
    labels: Tensor
    masks: Tensor
    outlined: Tensor


class Sampled(NamedTuple):
    """What is learned from in one image: `boxes` (R, 4), `labels` (R,) with 0 for background, and of the first P, which
    have an object, which one it is (P,)."""

    boxes: Tensor
    labels: Tensor
    objects: Tensor


@dataclass(frozen=True)
class DistilledDetectionLoss:
    """The losses of ViLD. A batch holds

    `pixels`; `boxes` (B, N, 4) in pixels of the network's image; `labels` (B, N), of which -100 is padding; `masks`
    (B, N, S, S) uint8, how much of each cell of its box belongs to the object, where it is `outlined` (B, N); `classes`
    (C, E), what the labels are called, shared by all rows; and where there are any `known` (B, C), of which classes all
    objects are labelled (`judged_classes`), `taught_boxes` (B, P, 4) and `taught` (B, P, E), the teacher's embeddings
    of regions, of which those without area are padding.

    The network says which losses there are: without a background no names are learned, and where it has a second head,
    that one copies the teacher. `distillation` is w. Every part of a batch divides by its own number of regions, as
    every core of the reference does.
    """

    kind: Literal["distilled detection"] = "distilled detection"
    distillation: float = 0.5
    num_anchors: int = 256  # of an image that are sampled
    num_regions: int = 512

    def examples(self, batch: Mapping[str, Tensor]) -> int:
        """Rows that the loss is the mean of: images."""
        return len(batch["pixels"])

    def __call__(self, network: Any, batch: Mapping[str, Tensor]) -> Losses:
        pixels = batch["pixels"]
        generator = torch.Generator().manual_seed(torch.initial_seed() if network.training else 0)
        maps = network.features(pixels)
        if only_shapes(maps[0]):  # how many there are of anything depends on values, which a plan does not have
            batch = {name: maps[0].new_zeros(value.shape, dtype=value.dtype) for name, value in batch.items()}
            pixels = batch["pixels"]
        truth = _objects(batch)
        levels = network.image.rpn_outputs(maps)
        parts = self._proposals(levels, truth, generator)
        regions = self._regions(network, levels, pixels, truth, generator)
        taught_boxes, taught = _taught(batch)
        own_head = network.distill_head is not None
        shown = [
            [r.boxes, pixels.new_zeros(0, 4) if own_head else t] for r, t in zip(regions, taught_boxes, strict=True)
        ]
        embeddings, deltas = network.region_embeddings(maps, [torch.cat(pair) for pair in shown])
        numbers = [len(boxes) for pair in shown for boxes in pair]
        named, copied = (torch.cat(embeddings.split(numbers)[i::2]) for i in (0, 1))
        if network.background is not None:
            scores = network.class_logits(named, batch["classes"])
            parts |= _names(scores, regions, batch.get("known"))
        parts["box"] = _box_loss(deltas.split(numbers)[::2], regions, truth)
        parts["mask"] = _mask_loss(network, maps, regions, truth)
        if len(taught):
            copied = network.image_embeddings(maps, taught_boxes) if own_head else copied
            parts["image"] = embedding_distillation(copied, taught)
        weights = {"image": self.distillation, "accuracy": 0.0}
        total = torch.stack([weights.get(name, 1.0) * value for name, value in parts.items()]).sum()
        return Losses(total, {name: value.detach() for name, value in parts.items()})

    def _proposals(
        self, levels: Sequence[Any], truth: Sequence[Objects], generator: torch.Generator
    ) -> dict[str, Tensor]:
        """What the region proposal network learns."""
        anchors = torch.cat([level.anchors for level in levels])
        numbers = [len(level.anchors) for level in levels]
        wanted, positive, chosen = [], [], []
        for objects in truth:
            matches = match_anchors(anchors, objects.boxes)
            drawn = torch.zeros_like(matches.positive)
            drawn[sample(matches, self.num_anchors, ANCHOR_SHARE, generator)] = True
            boxes = objects.boxes[matches.objects] if len(objects.boxes) else anchors
            wanted.append(encode_boxes(boxes, anchors))
            positive.append(matches.positive)
            chosen.append(drawn)
        is_thing, sampled = (torch.stack(each).split(numbers, dim=1) for each in (positive, chosen))
        targets = torch.stack(wanted).split(numbers, dim=1)
        logits, deltas = ([getattr(level, name) for level in levels] for name in ("logits", "deltas"))
        return {
            "proposal_score": region_losses.proposal_score_loss(logits, is_thing, sampled, self.num_anchors),
            "proposal_box": region_losses.proposal_box_loss(deltas, targets, is_thing),
        }

    def _regions(
        self,
        network: Any,
        levels: Sequence[Any],
        pixels: Tensor,
        truth: Sequence[Objects],
        generator: torch.Generator,
    ) -> list[Sampled]:
        """Proposals and the labelled boxes themselves, by lot; in a plan as many as can be."""
        if only_shapes(pixels):
            most = int(self.num_regions * REGION_SHARE)
            labels = torch.ones(self.num_regions, dtype=torch.int64, device=pixels.device)
            return [Sampled(pixels.new_ones(self.num_regions, 4), labels, 0 * labels[:most]) for _ in truth]
        found = network.image.proposals(levels, (pixels.shape[2], pixels.shape[3])).boxes
        regions = []
        for proposals, objects in zip(found, truth, strict=True):
            boxes = torch.cat([objects.boxes, proposals])
            matches = match_regions(boxes, objects.boxes)
            chosen = sample(matches, self.num_regions, REGION_SHARE, generator)
            positive = matches.positive[chosen]
            which = matches.objects[chosen][positive]
            labels = torch.zeros_like(chosen)
            labels[positive] = objects.labels[which] + 1
            regions.append(Sampled(boxes[chosen], labels, which))
        return regions


def _objects(batch: Mapping[str, Tensor]) -> list[Objects]:
    """What is labelled, image by image, without the padding."""
    found = []
    names = ("boxes", "labels", "masks", "outlined")
    for boxes, labels, masks, outlined in zip(*(batch[name] for name in names), strict=True):
        real = slice(None) if only_shapes(labels) else labels != IGNORED
        found.append(Objects(boxes[real], labels[real], masks[real].to(boxes.dtype) / 255, outlined[real]))
    return found


def _taught(batch: Mapping[str, Tensor]) -> tuple[list[Tensor], Tensor]:
    """The boxes of each image that the teacher has embedded, and its embeddings of all of them: without padding, and
    without what lies outside of the image since that was moved."""
    if "taught" not in batch:
        return [batch["boxes"].new_zeros(0, 4) for _ in batch["boxes"]], batch["classes"].new_zeros(0, 0)
    boxes = batch["taught_boxes"]
    if only_shapes(boxes):
        return list(boxes), batch["taught"].flatten(0, 1)
    real = (boxes[..., 2:] > boxes[..., :2]).all(dim=-1)
    return [own[which] for own, which in zip(boxes, real, strict=True)], batch["taught"][real]


def _names(scores: Tensor, regions: Sequence[Sampled], known: Tensor | None) -> dict[str, Tensor]:
    labels = torch.cat([r.labels for r in regions])
    judged = None
    if known is not None:
        images = torch.cat([torch.full_like(r.labels, i) for i, r in enumerate(regions)])
        judged = judged_classes(labels, images, known)
    things = labels > 0
    right = ((scores.argmax(dim=1) == labels) & things).sum() / things.sum().clamp(min=1)
    return {"text": region_text(scores, labels, judged), "accuracy": right.to(scores.dtype)}


def _box_loss(deltas: Sequence[Tensor], regions: Sequence[Sampled], truth: Sequence[Objects]) -> Tensor:
    given = [own[: len(r.objects)] for own, r in zip(deltas, regions, strict=True)]
    wanted = [
        encode_boxes(t.boxes[r.objects], r.boxes[: len(r.objects)], BOX_WEIGHTS)
        for r, t in zip(regions, truth, strict=True)
    ]
    return region_losses.region_box_loss(torch.cat(given), torch.cat(wanted))


def _mask_loss(network: Any, maps: Any, regions: Sequence[Sampled], truth: Sequence[Objects]) -> Tensor:
    """Of the regions whose object has an outline."""
    boxes, objects = [], []
    for r, t in zip(regions, truth, strict=True):
        outlined = slice(None) if only_shapes(r.boxes) else t.outlined[r.objects]
        boxes.append(r.boxes[: len(r.objects)][outlined])
        objects.append(r.objects[outlined])
    if not sum(map(len, boxes)):  # normalisation over no examples is not defined
        return boxes[0].new_zeros(())
    logits = network.image.mask_logits(maps, boxes)
    wanted = [
        region_losses.mask_targets(t.masks, t.boxes, own, which, logits.shape[-1])
        for own, which, t in zip(boxes, objects, truth, strict=True)
    ]
    return region_losses.region_mask_loss(logits, torch.cat(wanted))
