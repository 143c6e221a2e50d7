"""VirTex: features of an image encoder that learned from captions, against those learned from class labels.

Desai & Johnson, "VirTex: Learning Visual Representations from Textual Annotations", 2021.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from rebus.backbones.vision.resnet import ResNetConfig
from rebus.core.labels import IGNORED
from rebus.evaluate.linear_probe import average_precision, svms
from rebus.models.prefix_lm.virtex import VirTex, VirTexConfig
from rebus.models.prefix_lm.virtex_config import CaptionerConfig, Head
from rebus.objectives import BothWaysLoss, LabelSetLoss
from rebus.reproduce import described_world as world
from rebus.reproduce.claim import Claim, Line, Plot, Read, Statement
from rebus.reproduce.shapes_world import SHAPES
from rebus.reproduce.train_in_memory import fit, rows_at
from rebus.train.config import Optim

RANDOM, LABELS = "not trained", "class labels"
FORWARD, BOTH, HALF = "captions, forward", "captions, both ways", "captions, both ways, half the images"
TRAINED = (LABELS, FORWARD, BOTH, HALF)


@dataclass(frozen=True, kw_only=True)
class Budget:
    images: int = 1000
    steps: int = 2000  # 64 epochs, and as many steps for half the images
    batch_size: int = 32
    probe: int = 1000  # images that the classifiers on the features learn from
    test: int = 1000
    width: int = 64  # of the captioner
    channels: tuple[int, int, int, int] = (24, 32, 48, 96)
    lr: float = 2e-3  # twice of that for the image encoder
    cost: float = 10.0  # of the SVMs


class Convolutions(nn.Module):
    """What is learned: five layers that keep 4 × 4 places. The first layers of a ResNet would lose things of ten
    pixels."""

    def __init__(self, channels: tuple[int, int, int, int]):
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for after, stride in zip((channels[0], *channels), (2, 1, 2, 1, 2), strict=True):
            layers += [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
            before = after
        self.layers = nn.Sequential(*layers)

    def feature_map(self, pixels: Tensor) -> Tensor:
        found: Tensor = self.layers(pixels)
        return found

    def features(self, pixels: Tensor) -> Tensor:
        return self.feature_map(pixels).mean(dim=(2, 3))


def network(budget: Budget, setting: str) -> VirTex:
    """The library's, with the head of a setting over a small image encoder."""
    vocab = len(SHAPES) if setting == LABELS else world.VOCAB_SIZE
    text = CaptionerConfig(width=budget.width, num_heads=2, mlp_width=4 * budget.width, vocab_size=vocab, context=12)
    image = ResNetConfig(variant="resnet18", num_classes=0, depths=(1, 1, 1, 1), channels=budget.channels)
    head: Head = "labels" if setting == LABELS else "captions"
    made = VirTex(VirTexConfig(image=image, text=text, head=head, both_ways=setting in (BOTH, HALF)))
    made.image = Convolutions(budget.channels)  # type: ignore[assignment]
    return made


def measure(budget: Budget, setting: str, seed: int) -> dict[str, float]:
    """Mean average precision of linear SVMs on the mean features: which shapes are there, which shapes in which
    colours."""
    torch.manual_seed(seed)
    made = network(budget, setting).to(memory_format=torch.channels_last)
    if setting in TRAINED:
        number = budget.images // 2 if setting == HALF else budget.images
        objective = LabelSetLoss() if setting == LABELS else BothWaysLoss()

        def batch_at(index: int) -> dict[str, Tensor]:
            return _batch(budget, setting, seed, rows_at(seed, index, budget.batch_size, number), index)

        optim = Optim(
            lr=budget.lr,
            rates=(("image", 2.0),),
            weight_decay=0.01,
            warmup=min(200, budget.steps // 2),
            clip_norm=10.0,
        )
        fit(made, objective, batch_at, optim, budget.steps)
    made.eval()
    (seen, own), (images, true) = (_features(made, 3 * seed + i, n) for i, n in ((1, budget.probe), (2, budget.test)))
    spread = seen.std(dim=0) + 1e-6
    scores = svms((seen - seen.mean(dim=0)) / spread, own, budget.cost / len(seen))(
        (images - seen.mean(dim=0)) / spread
    )
    each = torch.tensor([average_precision(scores[:, i], true[:, i]) for i in range(true.shape[1])])
    return {"shapes": float(each[: len(SHAPES)].mean()), "shapes in colours": float(each[len(SHAPES) :].mean())}


@lru_cache(maxsize=1)  # all settings of a seed have the same
def _lesson(budget: Budget, seed: int) -> tuple[world.Scenes, Tensor]:
    seen = world.scenes(3 * seed, budget.images)
    return seen, seen.pixels(3 * seed)


def _batch(budget: Budget, setting: str, seed: int, rows: Tensor, index: int) -> dict[str, Tensor]:
    """Images with their shapes, or with a new caption at every visit."""
    seen, pixels = _lesson(budget, seed)
    if setting == LABELS:
        return {"pixels": pixels[rows], "targets": torch.from_numpy(seen.classes)[rows] // world.NUM_COLOURS}
    rng = np.random.Generator(np.random.PCG64([seed, index]))
    told = [world.ids(world.caption(seen, row, rng)) for row in rows.tolist()]
    return {
        "pixels": pixels[rows],
        "tokens": torch.full((len(rows), 1), world.START),
        "targets": world.padded([[*text, world.END] for text in told], IGNORED),
    }


@torch.no_grad()
def _features(made: VirTex, seed: int, number: int) -> tuple[Tensor, Tensor]:
    """(N, D), and bool (N, 8 + 64): the shapes that are there, and the shapes in their colours."""
    shown = world.scenes(seed, number)
    features = torch.cat([made.image.features(pixels) for pixels in shown.pixels(seed).split(250)])
    there = shown.present()
    return features, torch.cat([there.unflatten(1, (len(SHAPES), -1)).any(dim=2), there], dim=1)


BUDGET = Budget()
_ALL = (RANDOM, *TRAINED)
_FINE = "shapes in colours"


def virtex(budget: Budget = BUDGET) -> Claim:
    return Claim(
        name="virtex",
        paper="Desai & Johnson, 2021 (VirTex), tables 1 and 2 and figure 4.",
        says="What a ResNet learns from captions is as good as what it learns from class labels, with a tenth of the "
        "images: VOC07 mAP 88.7 with 118 thousand captioned images, 87.6 (recalled) with 1.28 million labelled ones; "
        "53.8% with captions both ways on ImageNet by a linear classifier, 50.8% forward only, 46.2% from sets of "
        "labels.",
        here="1,000 images of 32 pixels with two things of 8 shapes and 8 colours. The library's "
        "VirTex (five convolutions, one decoder layer a direction, width 64) learns from a new caption at every "
        'visit ("a red circle left of a blue square"), or from the set of shapes in the image, in '
        "equally many steps. Then linear SVMs read its frozen features: which shapes are "
        "there, and which shapes in which colours, of which the labels say nothing.",
        settings=_ALL,
        seeds=(1, 2, 3),
        budget=budget,
        measure=measure,
        table=("shapes", _FINE),
        statements=(
            Statement(
                "Captions teach more than class labels, by eight points of mAP.",
                Read(BOTH, _FINE),
                Read(LABELS, _FINE),
                least=0.08,
            ),
            Statement(
                "Captions of half the images teach more than labels of all.", Read(HALF, _FINE), Read(LABELS, _FINE)
            ),
            Statement(
                "Captions both ways are no worse than forward captions, by a point or more.",
                Read(BOTH, _FINE),
                Read(FORWARD, _FINE),
                least=-0.01,
            ),
        ),
        plots=(
            Plot(
                title="VirTex: what can be read off the features",
                x="what is learned from",
                y="mAP",
                lines=tuple(
                    Line(label, tuple((name, Read(name, label)) for name in _ALL)) for label in ("shapes", _FINE)
                ),
            ),
        ),
        minutes=8.9,
    )
