"""ViLD: a detector with boxes of some classes learns the embeddings of a teacher, and finds classes without any.

Gu et al., "Open-vocabulary Object Detection via Vision and Language Knowledge Distillation", 2021.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import batched_nms, roi_align

from rebus.codec.region_crops import enlarged
from rebus.core.outputs import Embeddings
from rebus.evaluate.detection import Detections, Truth, coco_scores
from rebus.objectives import SoftmaxLoss, embedding_distillation
from rebus.objectives.losses import Losses
from rebus.objectives.region_text import region_text
from rebus.reproduce import regions_world as world
from rebus.reproduce.claim import Claim, Line, Plot, Read, Statement
from rebus.reproduce.train_in_memory import fit, rows_at
from rebus.train.config import Optim

SUPERVISED, TEXT, IMAGE, VILD, ENSEMBLE = "supervised", "ViLD-text", "ViLD-image", "ViLD", "ViLD-ensemble"
CROP = 16  # pixels of the teacher's image
SURE = 2 / 3  # weight of the head that knows a class better, in a geometric mean (Sec. 3.4)
_WORDS = sorted({word for name in world.NAMES for word in name.split()})
_TOKENS = torch.tensor([[_WORDS.index(word) for word in name.split()] for name in world.NAMES])
_NUM = len(world.NAMES)


@dataclass(frozen=True, kw_only=True)
class Budget:
    teacher_scenes: int = 1000
    teacher_steps: int = 250
    scenes: int = 600
    steps: int = 400
    batch_size: int = 8  # scenes
    test: int = 300
    embed: int = 64
    channels: int = 32
    lr: float = 1.5e-3
    temperature: float = 0.05
    distillation: float = 0.5  # w, the weight of the teacher's embeddings in the loss


class Teacher(nn.Module):
    """A dual encoder of small images and of two words."""

    def __init__(self, channels: int, embed: int):
        super().__init__()
        self.image = nn.Sequential(*_convolutions(channels, (1, 2, 2)), nn.Flatten(), nn.Linear(16 * channels, embed))
        self.words = nn.EmbeddingBag(len(_WORDS), embed)
        self.log_scale = nn.Parameter(torch.tensor(2.6))

    def forward(self, pixels: Tensor, tokens: Tensor) -> Embeddings:
        return Embeddings(self.embed_image(pixels), self.embed_text(tokens), self.log_scale.exp())

    def embed_image(self, pixels: Tensor) -> Tensor:
        return F.normalize(self.image(pixels), dim=1)

    def embed_text(self, tokens: Tensor) -> Tensor:
        return F.normalize(self.words(tokens), dim=1)

    def embed_regions(self, pixels: Tensor, boxes: Tensor) -> Tensor:
        """pixels (N, 3, H, W), boxes (N, R, 4) → (N, R, E): the crops of the boxes and of what is around them too."""
        crops = (roi_align(pixels, list(enlarged(boxes, by)), CROP, sampling_ratio=2, aligned=True) for by in (1, 1.5))
        total = torch.stack([self.embed_image(crop) for crop in crops]).sum(dim=0)
        return F.normalize(total, dim=1).unflatten(0, boxes.shape[:2])


class Student(nn.Module):
    """A detector's second stage: features of the image, and embeddings of regions by one head or two.

    `classes` (1 + 64, E): the background, which is learned, and the names, learned as well or the teacher's texts.
    """

    def __init__(self, budget: Budget, texts: Tensor | None, num_heads: int):
        super().__init__()
        channels, embed = budget.channels, budget.embed
        self.trunk = nn.Sequential(*_convolutions(channels, (2, 2, 1)))
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(49 * channels, 128), nn.ReLU(), nn.Linear(128, embed)) for _ in range(num_heads)
        )
        self.background = nn.Parameter(0.01 * torch.randn(1, embed))
        self.names = nn.Parameter(torch.randn(_NUM, embed)) if texts is None else nn.Buffer(texts)

    @property
    def classes(self) -> Tensor:
        return torch.cat([self.background, self.names])

    def forward(self, pixels: Tensor, boxes: Tensor) -> list[Tensor]:
        """(N · R, E) of each head."""
        features = roi_align(self.trunk(pixels), list(boxes), 7, spatial_scale=0.25, sampling_ratio=2, aligned=True)
        return [head(features.flatten(1)) for head in self.heads]


def _convolutions(channels: int, strides: tuple[int, ...]) -> Iterator[nn.Module]:
    before = 3
    for after, stride in zip((channels, 2 * channels, channels), strides, strict=True):
        yield from (nn.Conv2d(before, after, 3, stride, 1), nn.GroupNorm(4, after), nn.ReLU())
        before = after


@dataclass(frozen=True)
class StudentLoss:
    """Names of labelled regions by the first head, the teacher's embeddings by the last, which may be the same."""

    temperature: float
    names: bool
    distillation: float

    def __call__(self, network: Student, batch: Mapping[str, Tensor]) -> Losses:
        real = batch["real"].flatten()
        regions = network(batch["pixels"], batch["proposals"])
        total = batch["pixels"].new_zeros(())
        if self.names:
            scores = region_scores(regions[0][real], network.classes, self.temperature)
            total = total + region_text(scores, batch["labels"].flatten()[real])
        if self.distillation:
            total = total + self.distillation * embedding_distillation(regions[-1], batch["taught"].flatten(0, 1), real)
        return Losses(total, {})


def measure(budget: Budget, setting: str, seed: int) -> dict[str, float]:
    """AP at IoU 0.5 over the classes without labels, and over those with."""
    train, test, taught, texts = _lesson(budget, seed)
    torch.manual_seed(seed)
    # Things of novel classes are background to who learns names, since nobody labelled them.
    labelled = (train.shown != world.ABSENT) & ~world.NOVEL[train.shown]
    labels = torch.where(labelled, train.shown + 1, 0)

    def batch_at(index: int) -> dict[str, Tensor]:
        rows = rows_at(seed, index, budget.batch_size, budget.scenes)
        found = {"pixels": train.pixels, "proposals": train.proposals, "real": train.real}
        return {name: value[rows] for name, value in (found | {"labels": labels, "taught": taught}).items()}

    student = Student(budget, None if setting == SUPERVISED else texts, 2 if setting == ENSEMBLE else 1)
    weight = 0.0 if setting in (SUPERVISED, TEXT) else 1.0 if setting == IMAGE else budget.distillation
    loss = StudentLoss(budget.temperature, setting != IMAGE, weight)
    optim = Optim(lr=budget.lr, warmup=min(50, budget.steps // 2))
    fit(student, loss, batch_at, optim, budget.steps)
    with torch.no_grad():
        regions = student(test.pixels, test.proposals)
        found = _probabilities(setting, regions, student.classes, budget.temperature)
    return _scores(test, found)


@lru_cache(maxsize=1)  # all settings of a seed have the same
def _lesson(budget: Budget, seed: int) -> tuple[world.Scenes, world.Scenes, Tensor, Tensor]:
    """Scenes to learn from and to be measured on, and what the teacher says of the proposals in the first, (N, R, E),
    and of the names, (64, E)."""
    teacher = _taught(budget, seed)
    train, test = world.scenes(3 * seed + 1, budget.scenes), world.scenes(3 * seed + 2, budget.test)
    with torch.no_grad():
        return train, test, teacher.embed_regions(train.pixels, train.proposals), teacher.embed_text(_TOKENS)


def _taught(budget: Budget, seed: int) -> Teacher:
    """The teacher, who has seen things of all names: a batch is one thing of each."""
    torch.manual_seed(seed)
    teacher = Teacher(budget.channels, budget.embed)
    seen = world.scenes(3 * seed, budget.teacher_scenes)
    kinds = [(seen.shown == kind).nonzero() for kind in range(_NUM)]

    def batch_at(index: int) -> dict[str, Tensor]:
        chosen = torch.cat([kind[rows_at(seed, _NUM * index + i, 1, len(kind))] for i, kind in enumerate(kinds)])
        boxes = enlarged(seen.proposals[chosen[:, 0], chosen[:, 1]], 1.5 if index % 2 else 1)
        crops = roi_align(seen.pixels[chosen[:, 0]], list(boxes[:, None]), CROP, sampling_ratio=2, aligned=True)
        return {"pixels": crops, "tokens": _TOKENS}

    optim = Optim(lr=budget.lr, warmup=min(50, budget.teacher_steps // 2))
    fit(teacher, SoftmaxLoss(), batch_at, optim, budget.teacher_steps)
    return teacher


def region_scores(regions: Tensor, classes: Tensor, temperature: float) -> Tensor:
    """(R, N): cosine similarities over the temperature."""
    return F.normalize(regions, dim=1) @ F.normalize(classes, dim=1).T / temperature


def _probabilities(setting: str, regions: list[Tensor], classes: Tensor, temperature: float) -> Tensor:
    """(N · R, 64). Heads that were taught by embeddings alone know no background."""
    named = region_scores(regions[0], classes, temperature).softmax(dim=1)[:, 1:]
    shown = region_scores(regions[-1], classes[1:], temperature).softmax(dim=1)
    if setting == IMAGE:
        return shown
    if setting != ENSEMBLE:
        return named
    weight = torch.where(world.NOVEL, 1 - SURE, SURE)
    return named**weight * shown ** (1 - weight)


def _scores(test: world.Scenes, probabilities: Tensor, names: int = 3) -> dict[str, float]:
    """AP50 of the proposals with their best names, of which those that overlap by half count once for each name."""
    best, kinds = probabilities.unflatten(0, test.real.shape).topk(names, dim=2)
    pairs = []
    for true, classes, boxes, real, scores, labels in zip(
        test.boxes, test.classes, test.proposals, test.real, best, kinds, strict=True
    ):
        boxes, scores, labels = (
            boxes[real].repeat_interleave(names, dim=0),
            scores[real].flatten(),
            labels[real].flatten(),
        )
        kept = batched_nms(boxes, scores, labels, 0.5)
        there = classes != world.ABSENT
        truth = Truth(labels=[world.NAMES[i] for i in classes[there].tolist()], boxes=true[there].numpy())
        chosen = [world.NAMES[i] for i in labels[kept].tolist()]
        pairs.append((truth, Detections(labels=chosen, scores=scores[kept].numpy(), boxes=boxes[kept].numpy())))
    each = coco_scores(pairs, world.NAMES).class_ap50
    groups = {"novel AP": world.NOVEL, "base AP": ~world.NOVEL}
    found = {}
    for group, which in groups.items():
        aps = torch.tensor([each[world.NAMES[i]] for i in which.nonzero()[:, 0].tolist()])
        found[group] = float(aps.nanmean())
    return found


BUDGET = Budget()
_ALL = (SUPERVISED, TEXT, IMAGE, VILD, ENSEMBLE)
_BETTER = 0.03  # of AP: a gap that counts


def vild(budget: Budget = BUDGET) -> Claim:
    return Claim(
        name="vild",
        paper="Gu et al., 2021 (ViLD), tables 2 and 3.",
        says="A detector with boxes of frequent classes alone finds rare ones when its regions are named by texts, "
        "and more of them when it also copies the embeddings of a dual encoder: mask AP of rare classes 0.0 supervised "
        "(recalled), 10.1 ViLD-text, 16.1 ViLD, 16.6 ViLD-ensemble. Copying alone loses the frequent ones: 11.1, "
        "others 28.3 to 32.5 (recalled).",
        here="Images of 48 pixels with two or three of 8 shapes in 8 colours; nothing of three shapes (24 of 64 "
        "classes) is labelled, and such things are background to who learns names. Proposals are given, two near each "
        "thing and up to four on background, so that naming alone is measured. The teacher is a dual encoder of crops "
        "and pairs of words that has seen all classes, the detector three convolutions with RoIAlign and two layers.",
        settings=_ALL,
        seeds=(1, 2, 3),
        budget=budget,
        measure=measure,
        table=("novel AP", "base AP"),
        statements=(
            *(
                Statement(
                    f"{better} finds more of the novel classes than {than}.",
                    Read(better, "novel AP"),
                    Read(than, "novel AP"),
                    least=_BETTER,
                )
                for than, better in ((SUPERVISED, TEXT), (TEXT, VILD), (VILD, ENSEMBLE))
            ),
            Statement(
                "ViLD is no worse on base classes than who learns them alone, by a point or more.",
                Read(VILD, "base AP"),
                Read(SUPERVISED, "base AP"),
                least=-0.01,
            ),
            Statement(
                "Copying the teacher alone loses two points or more on base classes.",
                Read(VILD, "base AP"),
                Read(IMAGE, "base AP"),
                least=0.02,
            ),
        ),
        plots=(
            Plot(
                title="ViLD: classes with boxes and without",
                x="what is learned",
                y="AP at IoU 0.5",
                lines=tuple(
                    Line(label, tuple((name, Read(name, figure)) for name in _ALL))
                    for label, figure in (("base", "base AP"), ("novel", "novel AP"))
                ),
            ),
        ),
        minutes=4.8,
    )
