"""Region proposals: at every place of every level, is there a thing, and how far is its box from an anchor?

Ren et al., "Faster R-CNN", 2015. As in the TensorFlow reference of ViLD: two convolutions that all levels share, with a
BatchNorm of its own for each level.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.ops import nms

from rebus.backbones.vision.fpn import STRIDES, batch_norm2d
from rebus.nn.boxes import clip_boxes, decode_boxes, grid_anchors

NUM_ANCHORS = 3  # of each cell


class LevelOutput(NamedTuple):
    """Of one level, for each of its anchors in their order: logits of there being a thing, deltas to its box."""

    logits: Float[Tensor, "B A"]
    deltas: Float[Tensor, "B A 4"]
    anchors: Float[Tensor, "A 4"]


class Proposals(NamedTuple):
    """Of each image, best first: boxes (R, 4) in pixels of the network's image, and how likely each holds a thing."""

    boxes: list[Tensor]
    scores: list[Tensor]


class RPN(nn.Module):
    def __init__(self, width: int, anchor_scale: float):
        super().__init__()
        self.anchor_scale = anchor_scale
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.norms = nn.ModuleList(nn.ModuleList(batch_norm2d(width) for _ in range(2)) for _ in STRIDES)
        self.logits = nn.Conv2d(width, NUM_ANCHORS, 1)
        self.deltas = nn.Conv2d(width, 4 * NUM_ANCHORS, 1)
        for conv in (*self.convs, self.logits, self.deltas):
            assert isinstance(conv, nn.Conv2d)
            nn.init.normal_(conv.weight, std=0.01)
            assert conv.bias is not None
            nn.init.zeros_(conv.bias)

    def forward(self, maps: list[Float[Tensor, "B C _ _"]]) -> list[LevelOutput]:
        found = []
        for x, norms, stride in zip(maps, self.norms, STRIDES, strict=True):
            assert isinstance(norms, nn.ModuleList)
            for conv, norm in zip(self.convs, norms, strict=True):
                x = norm(conv(x)).relu()
            anchors = grid_anchors(x.shape[2], x.shape[3], stride, scale=self.anchor_scale, device=x.device)
            # Anchors of a cell are consecutive channels: (B, 3 · n, Y, X) → (B, Y · X · 3, n).
            logits, deltas = (
                head(x).unflatten(1, (NUM_ANCHORS, -1)).permute(0, 3, 4, 1, 2).flatten(1, 3)
                for head in (self.logits, self.deltas)
            )
            found.append(LevelOutput(logits.squeeze(-1), deltas, anchors))
        return found


@torch.no_grad()
def propose(
    levels: list[LevelOutput],
    size: tuple[int, int],
    *,
    num_candidates: int = 1000,
    num_proposals: int = 1000,
    max_overlap: float = 0.7,
) -> Proposals:
    """The best boxes of an image of `size` (height, width): of each level the best `num_candidates`, from which
    those go that overlap a better one of their level by more than `max_overlap`; of all levels the best
    `num_proposals`."""
    boxes: list[Tensor] = []
    scores: list[Tensor] = []
    for image in range(len(levels[0].logits)):
        of_levels = []
        for level in levels:
            score, at = level.logits[image].float().sigmoid().topk(min(num_candidates, len(level.anchors)))
            box = clip_boxes(decode_boxes(level.deltas[image, at], level.anchors[at]), size)
            kept = nms(box, score, max_overlap)[:num_proposals]
            of_levels.append((box[kept], score[kept]))
        box, score = (torch.cat(parts) for parts in zip(*of_levels, strict=True))
        score, at = score.topk(min(num_proposals, len(score)))
        boxes.append(box[at])
        scores.append(score)
    return Proposals(boxes, scores)
