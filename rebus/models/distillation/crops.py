"""A dual encoder on cropped regions: the teacher of ViLD's detector, used as a detector itself.

Gu et al., "Open-vocabulary Object Detection via Vision and Language Knowledge Distillation", 2022, Sec. 3 ("CLIP on
cropped regions"). A detector that was trained on some classes proposes boxes, and what it takes the things for is
thrown away; each region is cut out tightly and with its surroundings, and a dual encoder compares it with any words.
Nothing is trained here. It is slow: the image encoder runs once a region, where ViLD runs once an image.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from math import ceil
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import batched_nms, box_iou, nms

from rebus.backbones.examples import generator
from rebus.backbones.vision import yolo
from rebus.backbones.vision.yolo import YOLO, YOLOConfig
from rebus.core.capabilities import EmbedsImages, EmbedsText
from rebus.core.config import from_dict, to_dict
from rebus.core.errors import BadConfig
from rebus.core.outputs import Regions
from rebus.core.released_config import HARMLESS
from rebus.core.specs import ImageSpec, Prompts, TextSpec
from rebus.core.system import Assembled, Find, Layout, Part, System
from rebus.weights.keymap import OwnNames

_SMALLEST = 1 / 80  # side of a box, as a share of the image's
_SAME = 0.6  # overlap from which boxes stand for the same thing


@dataclass(frozen=True, kw_only=True)
class CropsConfig:
    """Sizes are in pixels of a side: of the image, of the copies of it that the detector reads, and of the cut-out
    regions as the encoder reads them, normalised by `mean` and `std`."""

    detector: YOLOConfig = field(default_factory=YOLOConfig)
    encoder: Part
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    image_size: int = 640
    detector_sizes: tuple[int, ...] = (416, 608)
    crop_size: int = 160
    scales: tuple[float, ...] = (1.0, 1.5)  # of what is cut out, against the box (Sec. 3.2)
    context: float = 0.25  # weight of the whole image beside a region: boats are at sea
    num_regions: int = 20  # proposals of an image
    max_overlap: float = 0.45  # of two proposals, and of two boxes of one label
    size_power: float = 0.1  # of a box's share of the image, by which objectness is multiplied: small ones are doubtful
    temperature: float = 0.08
    background: float = 0.3  # similarity of what the labels do not name
    labels_per_region: int = 5
    min_score: float = 0.05  # of a label if it were asked for alone; a fifth of it among others

    def __post_init__(self) -> None:
        sizes = (self.image_size, self.crop_size, *self.detector_sizes)
        if min(sizes) < 1 or any(side % yolo.STRIDE for side in self.detector_sizes) or not self.detector_sizes:
            raise BadConfig(f"sizes are above 0, those of the detector multiples of {yolo.STRIDE}; got {sizes}")
        if not self.scales or min(self.scales) <= 0 or not self.temperature > 0 or min(self.std) <= 0:
            raise BadConfig(f"scales, temperature and std need numbers above 0; got {self}")


_TINY_WIDTHS = {"width": 24, "num_layers": 1, "num_heads": 2, "mlp_width": 48}
_TINY_ENCODER = {
    "image": {**_TINY_WIDTHS, "patch_size": 8, "image_size": 16, "class_token": True},
    "text": {**_TINY_WIDTHS, "vocab_size": 64, "context": 12},
    "embed": 16,
}
PRESETS = {
    "tiny": CropsConfig(
        detector=yolo.PRESETS["tiny"],
        encoder=Part(system="clip", config=_TINY_ENCODER),
        image_size=96,
        detector_sizes=(64, 96),
        crop_size=16,
        num_regions=8,
        min_score=0.0,
    )
}


class CropDetector(nn.Module):
    """Images and any words → boxes. `encoder`: a dual encoder, which stays as it is."""

    finds_masks = False

    def __init__(self, cfg: CropsConfig, *, encoder: Any):
        super().__init__()
        self.cfg = cfg
        self.detector = YOLO(cfg.detector)
        self.encoder = encoder

    @property
    def is_dense(self) -> bool:
        """Whether the encoder compares unit vectors."""
        return bool(getattr(self.encoder, "is_dense", True))

    def embed_text(self, tokens: Int[Tensor, "T L"], mask: Bool[Tensor, "T L"] | None = None) -> Float[Tensor, "T E"]:
        """Texts as the encoder embeds them."""
        vectors: Tensor = self.encoder.embed_text(tokens, mask)
        return vectors

    def text_vectors(self, tokens: Int[Tensor, "T L"], mask: Bool[Tensor, "T L"] | None = None) -> Float[Tensor, "T E"]:
        """The same of an encoder that is not dense."""
        vectors: Tensor = self.encoder.text_vectors(tokens, mask)
        return vectors

    def forward(
        self, pixels: Float[Tensor, "B 3 Y X"], tokens: Int[Tensor, "T L"], mask: Bool[Tensor, "T L"] | None = None
    ) -> list[Regions]:
        """Regions of the texts in each image."""
        read = self.embed_text if self.is_dense else self.text_vectors
        return self.find_regions(pixels, read(tokens, mask))

    def find_regions(self, pixels: Float[Tensor, "B 3 Y X"], labels: Float[Tensor, "C E"]) -> list[Regions]:
        """Boxes of each image, best first; pixels in [0, 1], whole images stretched to any one size."""
        return [self._of_image(image, labels) for image in pixels]

    def propose(self, image: Float[Tensor, "3 Y X"]) -> tuple[Float[Tensor, "R 4"], Float[Tensor, "R"]]:
        """Boxes in shares of the image and how likely each holds a thing, best first.

        A box that is kept becomes the mean of those that it stands for, by objectness and overlap.
        """
        found = [self.detector(_resized(image, side, "bilinear")) for side in self.cfg.detector_sizes]
        boxes = torch.cat([one.boxes[0] for one in found]).clamp(0, 1).float()
        objectness = torch.cat([one.objectness[0] for one in found]).float()
        sides = boxes[:, 2:] - boxes[:, :2]
        large = sides.amin(dim=1) > _SMALLEST
        boxes, objectness, sides = boxes[large], objectness[large], sides[large]
        likely = objectness * sides.prod(dim=1) ** self.cfg.size_power
        kept = nms(boxes, likely, self.cfg.max_overlap)[: self.cfg.num_regions]
        overlap = box_iou(boxes[kept], boxes)
        votes = torch.where(overlap > _SAME, overlap * objectness, 0.0)
        return votes @ boxes / votes.sum(dim=1, keepdim=True), likely[kept]

    def cut_out(
        self, image: Float[Tensor, "3 Y X"], boxes: Float[Tensor, "R 4"], scale: float
    ) -> Float[Tensor, "R 3 S S"]:
        """Regions as the encoder reads them: boxes times `scale` about their centres, inside the image, stretched."""
        size = boxes.new_tensor([image.shape[2], image.shape[1]]).repeat(2)
        centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2 * scale
        corners = torch.cat([centre - half, centre + half], dim=1).clamp(0, 1) * size
        crops = [
            _resized(
                image[:, int(y0) : max(ceil(y1), int(y0) + 1), int(x0) : max(ceil(x1), int(x0) + 1)],
                self.cfg.crop_size,
                "bicubic",
            )
            for x0, y0, x1, y1 in corners.tolist()
        ]
        mean, std = (image.new_tensor(values)[:, None, None] for values in (self.cfg.mean, self.cfg.std))
        return (torch.cat(crops) - mean) / std

    def compare(self, crops: Float[Tensor, "R 3 S S"], labels: Float[Tensor, "C E"]) -> Float[Tensor, "R C"]:
        """Similarities by the encoder."""
        if self.is_dense:
            return self.encoder.embed_image(crops).float() @ labels.float().T
        similarity: Tensor = self.encoder.score(self.encoder.image_vectors(crops), labels)
        return similarity.float()

    def _of_image(self, image: Float[Tensor, "3 Y X"], labels: Float[Tensor, "C E"]) -> Regions:
        cfg = self.cfg
        boxes, objectness = self.propose(image)
        if not len(boxes):
            return Regions(boxes, boxes.new_zeros(0, dtype=torch.int64), objectness)
        near = torch.stack([self.compare(self.cut_out(image, boxes, scale), labels) for scale in cfg.scales])
        whole = self.compare(self.cut_out(image, boxes.new_tensor([[0.0, 0.0, 1.0, 1.0]]), 1.0), labels)
        similarity = (near.mean(dim=0) + cfg.context * whole) / (1 + cfg.context)
        logits = F.pad((similarity - cfg.background) / cfg.temperature, (0, 1))  # the last is the background's
        probability = logits.softmax(dim=1)[:, :-1]
        alone = logits.sigmoid()[:, :-1] * objectness[:, None]
        among = probability * objectness[:, None]
        scores = torch.where((alone > cfg.min_score) & (among > cfg.min_score / 5), among, 0.0)
        best, label = scores.topk(min(cfg.labels_per_region, len(labels)), dim=1)
        region, place = best.nonzero(as_tuple=True)
        scores, label, boxes = best[region, place], label[region, place], boxes[region]
        kept = batched_nms(boxes, scores, label, cfg.max_overlap)
        return Regions(boxes[kept], label[kept], scores[kept])


def _resized(image: Float[Tensor, "3 Y X"], side: int, mode: str) -> Float[Tensor, "1 3 S S"]:
    """Stretched to a square, in [0, 1]; in float32, since PyTorch resizes no half precision on a CPU."""
    resized = F.interpolate(image[None].float(), (side, side), mode=mode, antialias=True)
    return resized.clamp(0, 1).to(image.dtype)


def _assemble_starter(encoder: Any) -> Assembled:
    from rebus.models.distillation.crops_starter import assemble_starter  # which builds on this file

    return assemble_starter(encoder)


def image_spec(cfg: CropsConfig) -> ImageSpec:
    """The whole image, stretched: so the detector was trained, and regions are stretched for the encoder anyway."""
    size = (cfg.image_size, cfg.image_size)
    return ImageSpec(size=size, resize="exact", resample="bicubic", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def write_config(cfg: CropsConfig) -> dict[str, Any]:
    """`config.json`: model_type "crops", both networks and the settings."""
    return {"model_type": "crops", "architectures": ["CropDetector"], **to_dict(cfg)}


@cache
def joined(find: Find) -> System:
    """The system, given the look-up of that which its encoder is of."""

    def encoder(cfg: CropsConfig) -> tuple[System, Any]:
        return system.part(cfg, "encoder")

    def text_spec(cfg: CropsConfig) -> TextSpec:
        of, own = encoder(cfg)
        assert of.text_spec is not None
        return of.text_spec(own)

    def example(cfg: CropsConfig, rows: int, *, prompt: int = 16, answer: int = 16) -> dict[str, Tensor]:
        of, own = encoder(cfg)
        assert of.example is not None
        pixels = torch.rand(rows, 3, cfg.image_size, cfg.image_size, generator=generator())
        return {"pixels": pixels, "tokens": of.example(own, rows)["tokens"]}

    def read_config(data: Mapping[str, Any]) -> CropsConfig:
        fields = {name: value for name, value in data.items() if name not in HARMLESS}
        cfg = from_dict(CropsConfig, fields, "config.json")
        network: Any = encoder(cfg)[0].network
        if not issubclass(network, EmbedsImages) or not issubclass(network, EmbedsText):
            raise BadConfig(f"config.json: encoder is a dual encoder; {cfg.encoder.system} is none")
        return cfg

    system = System(
        name="crops",
        network=CropDetector,
        config=CropsConfig,
        presets=PRESETS,
        layouts={
            "transformers": Layout(
                name="transformers", keys=lambda cfg: OwnNames(), read_config=read_config, write_config=write_config
            )
        },
        prompts=Prompts(classify="{}"),
        example=example,
        image_spec=image_spec,
        any_image_size=True,
        text_spec=text_spec,
        assemble={"starter": _assemble_starter},
        parts=("encoder",),
        find=find,
    )
    return system


SYSTEM = joined
