"""ViLD: an open-vocabulary detector, distilled from a dual encoder.

Gu et al., "Open-vocabulary Object Detection via Vision and Language Knowledge Distillation", 2021. A Mask R-CNN whose
boxes and masks know no classes; its embedding r of a region lies in the space of a frozen CLIP, so that

    p(label | region) = softmax(r · [background, texts] / τ)

holds for words nobody drew a box for. Training pulls r towards CLIP's embedding of the region cut out.
"""

from collections.abc import Collection
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from rebus.backbones.examples import generator
from rebus.backbones.text.encoder import TextConfig, TextEncoder, to_the_left
from rebus.backbones.vision import mask_rcnn
from rebus.backbones.vision.mask_rcnn import MaskRCNN, in_shares
from rebus.backbones.vision.roi_heads import BoxHead, init_heads
from rebus.codec.images import ImagePipeline
from rebus.core.errors import MissingFile, UsageError
from rebus.core.outputs import DetectorOutput, RegionFeatures, Regions
from rebus.core.specs import ImageSpec, Prompts, TextSpec
from rebus.core.system import Layout, System
from rebus.models.distillation import vild_tensorflow
from rebus.models.distillation.vild_config import PRESETS as PRESETS
from rebus.models.distillation.vild_config import ViLDConfig as ViLDConfig
from rebus.models.distillation.vild_config import read_config, write_config
from rebus.nn.class_nms import class_nms
from rebus.nn.pooling import first_id, largest_id
from rebus.weights.keymap import OwnNames

Maps = list[Float[Tensor, "B C _ _"]]
Boxes = list[Float[Tensor, "_ 4"]]  # of each image, in pixels of the network's image


class Seen(NamedTuple):
    """What there is in some images before it is named: the pyramid, and of all boxes (R) in pixels of the network's
    image how likely they hold a thing and the vectors that they are named by. `numbers`: boxes of each image."""

    size: tuple[int, int]
    maps: Maps
    boxes: Tensor
    numbers: list[int]
    objectness: Tensor
    embeddings: Tensor
    image_embeddings: Tensor | None


class ViLD(nn.Module):
    def __init__(self, cfg: ViLDConfig):
        super().__init__()
        self.cfg = cfg
        self.image = MaskRCNN(cfg.image)
        width = cfg.image.mlp_width
        self.project = nn.Linear(width, cfg.embed)
        self.background = None if cfg.variant == "image" else nn.Parameter(torch.empty(1, cfg.embed))
        double = cfg.variant == "ensemble"
        self.distill_head = BoxHead(cfg.image.width, width) if double else None
        self.distill_project = nn.Linear(width, cfg.embed) if double else None
        self.text: Any = None
        self.text_proj: Any = None
        if cfg.text is not None:
            self.text = TextEncoder(cfg.text)
            self.text_proj = nn.Linear(cfg.text.width, cfg.embed, bias=False)
            self._freeze_text()
        self.init_weights()

    def init_weights(self) -> None:
        """The reference's initial values."""
        for layer in (self.project, self.distill_project):
            if layer is not None:
                init_heads(layer)
        if self.background is not None:
            nn.init.normal_(self.background, std=0.01)

    def _freeze_text(self) -> None:
        self.text.requires_grad_(False)
        self.text_proj.requires_grad_(False)

    @property
    def base_labels(self) -> Collection[str]:
        """What it was trained to box: one head knows these better, the other what it never had boxes of."""
        return self.cfg.base if self.cfg.variant == "ensemble" else ()

    # The stages of detection, from pixels to boxes, embeddings and masks. Training puts ground truth between them.

    def features(self, pixels: Float[Tensor, "B 3 Y X"]) -> Maps:
        """The pyramid, P2 to P6."""
        return self.image.features(pixels)

    def region_embeddings(self, maps: Maps, boxes: Boxes) -> tuple[Float[Tensor, "R E"], Float[Tensor, "R 4"]]:
        """Unit vectors by which boxes are named, and the deltas by which they are off; all images after another."""
        vectors = self.image.region_vectors(maps, boxes)
        return F.normalize(self.project(vectors), dim=-1), self.image.box_deltas(vectors)

    def image_embeddings(self, maps: Maps, boxes: Boxes) -> Float[Tensor, "R E"]:
        """Unit vectors that copy the image encoder's of each box: of the ensemble's second head, else the same ones."""
        if self.distill_head is None or self.distill_project is None:
            return self.region_embeddings(maps, boxes)[0]
        return F.normalize(self.distill_project(self.distill_head(self.image.box_maps(maps, boxes))), dim=-1)

    def class_logits(self, embeddings: Float[Tensor, "R E"], labels: Float[Tensor, "C E"]) -> Float[Tensor, "R N"]:
        """(R, 1 + C): the background first, where there is one; without it (R, C)."""
        rows = labels if self.background is None else torch.cat([F.normalize(self.background, dim=-1), labels])
        return embeddings.float() @ rows.float().T / self.cfg.temperature

    def probabilities(
        self,
        embeddings: Float[Tensor, "R E"],
        labels: Float[Tensor, "C E"],
        image_embeddings: Float[Tensor, "R E"] | None = None,
        base: Bool[Tensor, "C"] | None = None,
    ) -> Float[Tensor, "R C"]:
        """How likely a region is each label (Sec. 3.3, equation 6). `image_embeddings`: of the ensemble's second head,
        which knows no background; it has more to say of labels that are not `base`."""
        found = self.class_logits(embeddings, labels).softmax(dim=-1)[:, -len(labels) :]
        if image_embeddings is None:
            return found
        copied = (image_embeddings.float() @ labels.float().T / self.cfg.temperature).softmax(dim=-1)
        known = torch.zeros(len(labels), dtype=torch.bool, device=labels.device) if base is None else base
        share = torch.where(known, self.cfg.text_share, 1 - self.cfg.text_share)
        return found**share * copied ** (1 - share)

    @torch.no_grad()
    def find_regions(
        self,
        pixels: Float[Tensor, "B 3 Y X"],
        labels: Float[Tensor, "C E"],
        *,
        base: Bool[Tensor, "C"] | None = None,
        masks: bool = True,
    ) -> list[Regions]:
        """What is in each image by labels of unit length. `base`: those among `base_labels`; `masks` False: boxes
        alone, which is faster."""
        return self.name_regions(self.look(pixels), labels, base=base, masks=masks)

    @torch.no_grad()
    def look(self, pixels: Float[Tensor, "B 3 Y X"]) -> Seen:
        """What is in each image, whatever it is called: nearly all the work."""
        size = (pixels.shape[2], pixels.shape[3])
        maps = self.features(pixels)
        boxes, objectness = self.image.proposals(self.image.rpn_outputs(maps), size)
        vectors = self.image.region_vectors(maps, boxes)
        return Seen(
            size=size,
            maps=maps,
            boxes=self.image.refined(vectors, torch.cat(boxes), size),
            numbers=[len(each) for each in boxes],
            objectness=torch.cat(objectness),
            embeddings=F.normalize(self.project(vectors), dim=-1),
            image_embeddings=self.image_embeddings(maps, boxes) if self.cfg.variant == "ensemble" else None,
        )

    @torch.no_grad()
    def name_regions(
        self,
        seen: Seen,
        labels: Float[Tensor, "C E"],
        *,
        base: Bool[Tensor, "C"] | None = None,
        masks: bool = True,
    ) -> list[Regions]:
        """What of it the labels name: `find_regions` from there on."""
        scores = self.probabilities(seen.embeddings, labels, seen.image_embeddings, base)
        if self.background is None:  # labels are compared with one another alone: whether there is a thing, RPN says
            scores = scores * seen.objectness[:, None]
        kept: list[tuple[Tensor, Tensor, Tensor]] = []
        for box, score in zip(seen.boxes.split(seen.numbers), scores.split(seen.numbers), strict=True):
            at, label = class_nms(box, score, max_overlap=self.cfg.max_overlap, num_kept=self.cfg.num_detections)
            kept.append((box[at], label, score[at, label]))
        grids: list[Tensor | None] = [None] * len(kept)
        if masks:
            inside = self.image.mask_logits(seen.maps, [box for box, _, _ in kept]).sigmoid()
            grids = list(inside.split([len(box) for box, _, _ in kept]))
        return [
            Regions(in_shares(box, seen.size), label, score, grid)
            for (box, label, score), grid in zip(kept, grids, strict=True)
        ]

    def region_features(self, pixels: Float[Tensor, "B 3 Y X"], num_regions: int = 36) -> list[RegionFeatures]:
        """The most prominent regions of each image with the vectors that they are named from, whatever the words."""
        return self.image.region_features(pixels, num_regions)

    def embed_text(self, tokens: Int[Tensor, "T L"], mask: Bool[Tensor, "T L"] | None = None) -> Float[Tensor, "T E"]:
        """Texts as unit vectors by CLIP's text encoder. `mask` is needed for texts padded on the left.

        Raises `BadText` for a text without an end token, `MissingFile` where no text encoder was given.
        """
        if self.text is None:
            raise MissingFile(
                "this detector has no text encoder, as ViLD was released: give it that of its teacher, "
                'take_text_encoder(detector, rebus.load("clip/b32"))'
            )
        if mask is not None:
            tokens = to_the_left(tokens.masked_fill(~mask, 0), mask)
        x = self.text(tokens)
        end = self.cfg.end_id
        pooled = largest_id(x, tokens) if end is None else first_id(x, tokens, end)
        return F.normalize(self.text_proj(pooled), dim=-1)

    def forward(
        self, pixels: Float[Tensor, "B 3 Y X"], boxes: Float[Tensor, "B R 4"], **targets: Tensor
    ) -> DetectorOutput:
        """Everything that is trained, for given boxes of each image, in pixels of the network's image. What a batch
        has of `targets` is for the objective."""
        maps = self.features(pixels)
        levels = self.image.rpn_outputs(maps)
        of_images = list(boxes)
        embeddings, deltas = self.region_embeddings(maps, of_images)
        return DetectorOutput(
            logits=[level.logits for level in levels],
            deltas=[level.deltas for level in levels],
            anchors=[level.anchors for level in levels],
            embeddings=embeddings,
            box_deltas=deltas,
            mask_logits=self.image.mask_logits(maps, of_images),
            image_embeddings=self.image_embeddings(maps, of_images) if self.cfg.variant == "ensemble" else None,
        )


def take_text_encoder(detector: Any, dual_encoder: Any) -> Any:
    """A loaded detector with the text encoder and tokenizer of a loaded dual encoder, its teacher: now it can
    be asked for any words, and is saved with them. Raises `UsageError` where the two have no space in common."""
    network, other = detector.network, dual_encoder.network
    parts = [getattr(other, name, None) for name in ("text", "text_proj")]
    if not isinstance(parts[0], TextEncoder) or not isinstance(parts[1], nn.Linear):
        raise UsageError(f"{dual_encoder.card.name} has no text encoder of CLIP's kind; take clip/b32")
    if parts[1].out_features != network.cfg.embed:
        raise UsageError(
            f"the detector's regions have {network.cfg.embed} numbers, texts of {dual_encoder.card.name} "
            f"{parts[1].out_features}: take the dual encoder that was its teacher"
        )
    network.text, network.text_proj = parts
    network._freeze_text()
    network.cfg = replace(network.cfg, text=parts[0].cfg, end_id=other.cfg.end_id)
    detector.config = network.cfg
    detector.processor.text = dual_encoder.processor.text
    if detector.processor.image is None:  # the release has no file that says how images are prepared
        detector.processor.image = ImagePipeline(image_spec(network.cfg))
    return detector


def image_spec(cfg: ViLDConfig) -> ImageSpec:
    """As the detector sees images."""
    return mask_rcnn.image_spec(cfg.image)


def text_spec(cfg: ViLDConfig) -> TextSpec:
    """As CLIP reads texts."""
    text = cfg.text or TextConfig()
    last = text.vocab_size - 1
    return TextSpec(
        context=text.context,
        vocab_size=text.vocab_size,
        pad_id=0,
        bos_id=last - 1,
        eos_id=last,
        read_at="largest" if cfg.end_id is None else cfg.end_id,
        lower=True,
        clean=True,
    )


def example(config: ViLDConfig, rows: int, *, prompt: int = 16, answer: int = 16) -> dict[str, Tensor]:
    """`rows` images with eight boxes each, outlines in them, and eight regions that a teacher has embedded."""
    random, side, number = generator(), config.image.image_size, 8
    corners = torch.rand(2, rows, number, 2, 2, generator=random).sort(dim=3).values * (side - 1)
    boxes, taught_boxes = corners.flatten(3)
    return {
        "pixels": torch.randn(rows, 3, side, side, generator=random),
        "boxes": boxes,
        "labels": torch.randint(number, (rows, number), generator=random),
        "masks": torch.randint(256, (rows, number, 28, 28), generator=random, dtype=torch.uint8),
        "outlined": torch.ones(rows, number, dtype=torch.bool),
        "classes": F.normalize(torch.randn(number, config.embed, generator=random), dim=1),
        "taught_boxes": taught_boxes,
        "taught": torch.randn(rows, number, config.embed, generator=random),
    }


SYSTEM = System(
    name="vild",
    network=ViLD,
    config=ViLDConfig,
    presets=PRESETS,
    layouts={
        "rebus": Layout(name="rebus", keys=lambda cfg: OwnNames(), read_config=read_config, write_config=write_config),
        "tensorflow": Layout(
            name="tensorflow",
            keys=vild_tensorflow.keys,
            config_file=None,
            recognises=vild_tensorflow.recognises,
            infer_config=vild_tensorflow.infer_config,
            prepare=vild_tensorflow.prepare,
        ),
    },
    prompts=Prompts(classify="lvis"),
    objective="distilled detection",
    example=example,
    image_spec=image_spec,
    any_image_size=True,
    text_spec=text_spec,
)
