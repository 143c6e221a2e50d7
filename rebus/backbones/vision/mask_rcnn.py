"""Mask R-CNN that finds things of any kind: boxes and masks are the same network whatever the class.

He et al., "Mask R-CNN", 2017, as ViLD's TensorFlow reference assembles it: ResNet, feature pyramid, region proposals, a
head for boxes and one for masks. Naming what was found is left to the model that holds it.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.ops import nms

from rebus.backbones.vision.fpn import FPN
from rebus.backbones.vision.resnet import ResNet, ResNetConfig
from rebus.backbones.vision.roi_heads import BOX_SIDE, MASK_SIDE, BoxHead, MaskHead, region_maps
from rebus.backbones.vision.rpn import RPN, LevelOutput, Proposals, propose
from rebus.core.errors import BadConfig
from rebus.core.limits import check
from rebus.core.outputs import RegionFeatures
from rebus.core.specs import ImageSpec
from rebus.nn.boxes import BOX_WEIGHTS, clip_boxes, decode_boxes

_MAX_OVERLAP = 0.6  # of two regions that are both described, as in ViLD's demonstration


def detector_backbone(**fields: object) -> ResNetConfig:
    """The ResNet of the TensorFlow reference: ResNet-50 where nothing else is said."""
    values = {"num_classes": 0, "padding": "same", "eps": 1e-4, "momentum": 0.003, **fields}
    return ResNetConfig(**values)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class MaskRCNNConfig:
    backbone: ResNetConfig = field(default_factory=detector_backbone)
    image_size: int = 1024  # pixels of a side of the square on which the image lies
    width: int = 256  # channels of the pyramid and of the heads
    mlp_width: int = 1024  # of the box head's vectors
    anchor_scale: float = 8.0  # side of an anchor in cells
    num_proposals: int = 1000  # boxes of an image that the box head reads

    def __post_init__(self) -> None:
        for name in ("image_size", "width", "mlp_width", "anchor_scale", "num_proposals"):
            if not getattr(self, name) > 0:
                raise BadConfig(f"{name}: expected a number above 0; got {getattr(self, name)}")
        check("MAX_INPUT_SIDE", self.image_size, "image_size")


class MaskRCNN(nn.Module):
    """Each stage is a method of its own, so that training can put ground truth between them."""

    def __init__(self, cfg: MaskRCNNConfig):
        super().__init__()
        self.cfg = cfg
        self.backbone = ResNet(cfg.backbone)
        self.fpn = FPN(self.backbone.widths, cfg.width)
        self.rpn = RPN(cfg.width, cfg.anchor_scale)
        self.box_head = BoxHead(cfg.width, cfg.mlp_width)
        self.deltas = nn.Linear(cfg.mlp_width, 4)
        self.mask_head = MaskHead(cfg.width)
        nn.init.normal_(self.deltas.weight, std=0.001)
        nn.init.zeros_(self.deltas.bias)

    @property
    def blocks(self) -> list[nn.Module]:
        """The residual blocks (`rebus.nn.blocks`)."""
        return self.backbone.blocks

    def features(self, pixels: Float[Tensor, "B 3 Y X"]) -> list[Float[Tensor, "B C _ _"]]:
        """The pyramid, P2 to P6: a map of the image at a 4th … a 64th of its size."""
        return self.fpn(self.backbone.maps(pixels))

    def rpn_outputs(self, maps: list[Float[Tensor, "B C _ _"]]) -> list[LevelOutput]:
        """What the region proposal network says of every anchor, by level."""
        return self.rpn(maps)

    def proposals(
        self, levels: list[LevelOutput], size: tuple[int, int], num_candidates: int | None = None
    ) -> Proposals:
        """The boxes worth a closer look in images of `size` (height, width), at most `num_proposals` each, of
        `num_candidates` at each level (by default as many; in training twice as many)."""
        number = self.cfg.num_proposals
        return propose(levels, size, num_candidates=num_candidates or number, num_proposals=number)

    def box_maps(
        self, maps: list[Float[Tensor, "B C _ _"]], boxes: list[Float[Tensor, "_ 4"]]
    ) -> Float[Tensor, "R C 7 7"]:
        """What a box head reads of the boxes of each image, all images one after another."""
        return region_maps(maps, boxes, BOX_SIDE)

    def region_vectors(
        self, maps: list[Float[Tensor, "B C _ _"]], boxes: list[Float[Tensor, "_ 4"]]
    ) -> Float[Tensor, "R F"]:
        """Boxes of each image as the box head describes them, all images one after another."""
        return self.box_head(self.box_maps(maps, boxes))

    def box_deltas(self, vectors: Float[Tensor, "R F"]) -> Float[Tensor, "R 4"]:
        """By how much each box is off, times `BOX_WEIGHTS`."""
        return self.deltas(vectors)

    def refined(
        self, vectors: Float[Tensor, "R F"], boxes: Float[Tensor, "R 4"], size: tuple[int, int]
    ) -> Float[Tensor, "R 4"]:
        """The boxes as the box head moves them, within an image of `size`."""
        return clip_boxes(decode_boxes(self.box_deltas(vectors), boxes, BOX_WEIGHTS), size)

    def mask_logits(
        self, maps: list[Float[Tensor, "B C _ _"]], boxes: list[Float[Tensor, "_ 4"]]
    ) -> Float[Tensor, "R 28 28"]:
        """Where within each box its thing is, all images one after another."""
        return self.mask_head(region_maps(maps, boxes, MASK_SIDE))

    @torch.no_grad()
    def region_features(self, pixels: Float[Tensor, "B 3 Y X"], num_regions: int = 36) -> list[RegionFeatures]:
        """The most prominent regions of each image, each with the vector that the box head has of it: what captioning
        and question answering models read in place of pixels. Ranked by their proposals' scores; of two that overlap
        by more than 0.6 the lesser goes."""
        size = (pixels.shape[2], pixels.shape[3])
        maps = self.features(pixels)
        found = self.proposals(self.rpn_outputs(maps), size)
        vectors = self.region_vectors(maps, found.boxes)
        numbers = [len(each) for each in found.boxes]
        regions = []
        for vector, box, score in zip(vectors.split(numbers), found.boxes, found.scores, strict=True):
            moved = self.refined(vector, box, size)
            kept = nms(moved, score, _MAX_OVERLAP)[:num_regions]
            regions.append(RegionFeatures(in_shares(moved[kept], size), vector[kept], score[kept]))
        return regions


def in_shares(boxes: Float[Tensor, "R 4"], size: tuple[int, int]) -> Float[Tensor, "R 4"]:
    """Pixels of an image of `size` (height, width) → shares of its width and height."""
    height, width = size
    return boxes / boxes.new_tensor([width, height, width, height])


def image_spec(cfg: MaskRCNNConfig) -> ImageSpec:
    """The long side fits the square, what is left over is the mean colour; ImageNet's mean and deviation."""
    return ImageSpec(
        size=(cfg.image_size, cfg.image_size),
        resize="longer",
        rounding="even",
        pad="end",
        resample="bilinear",
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )
