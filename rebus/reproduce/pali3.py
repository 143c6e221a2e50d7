"""PaLI-3: image encoders pretrained by contrast with captions against those pretrained by classes, in one and the same
encoder-decoder.

Chen et al., "PaLI-3 Vision Language Models: Smaller, Faster, Stronger", 2023.
"""

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rebus.backbones.text.encoder import TextConfig
from rebus.backbones.text.t5 import T5Config
from rebus.backbones.vision.vit import ViT, ViTConfig
from rebus.evaluate.linear_probe import softmax_regression
from rebus.generation import generate
from rebus.models.contrastive.siglip import SigLIP, SigLIPConfig
from rebus.models.unified.pali3 import PaLI3, PaLI3Config
from rebus.nn.frozen import set_trained
from rebus.objectives import Losses, NextTokenLoss, SigmoidLoss
from rebus.reproduce import signs_world as world
from rebus.reproduce.claim import Claim, Line, Plot, Read, Statement
from rebus.reproduce.train_in_memory import fit, rows_at
from rebus.train.config import Optim
from rebus.train.warm_start import grid_waves

NONE, CLASSES, THINGS, CAPTIONS = "not trained", "class labels", "captions of things alone", "captions"
TASKS = ("boxes", "reading", "naming")
_OVERLAP = 0.5  # of a box, to be right


@dataclass(frozen=True, kw_only=True)
class Budget:
    images: int = 5000
    steps: int = 1000  # of pretraining
    tuning: int = 600  # steps of the encoder-decoder
    batch_size: int = 64  # of pretraining; a batch of the encoder-decoder has half as many images, four questions each
    test: int = 500
    width: int = 64
    num_layers: int = 3  # of the image encoder
    patch: int = 12
    lr: float = 2e-3
    waves: float = 3.0  # length of the waves in the positions, as in the recipes of scenes


class Classifier(nn.Module):
    """The image side of a SigLIP, with a linear layer in the place of its texts."""

    def __init__(self, encoder: SigLIP):
        super().__init__()
        self.image, self.pool = encoder.image, encoder.pool
        self.head = nn.Linear(encoder.cfg.image.width, world.NUM_KINDS)

    def forward(self, pixels: Tensor) -> Tensor:
        scores: Tensor = self.head(self.pool(self.image(pixels)))
        return scores


def measure(budget: Budget, setting: str, seed: int) -> dict[str, float]:
    """Accuracy on questions about held-out images, and of a linear probe for class labels: what the frozen
    encoder's pretraining gave."""
    torch.manual_seed(seed)
    encoder, train = dual_encoder(budget), world.signs(seed, budget.images)
    _pretrain(encoder, train, budget, setting, seed)
    test = world.signs(seed + 1000, budget.test)
    features, held_out = _features(encoder.image, train.pixels), _features(encoder.image, test.pixels)
    torch.manual_seed(seed + 2000)  # whatever pretraining drew, the encoder-decoder begins alike
    made = encoder_decoder(budget, encoder.image)
    asked, answers = (part.unflatten(0, (-1, 4)) for part in world.questions(train))

    def batch(index: int) -> dict[str, Tensor]:
        rows = rows_at(seed + 1, index, budget.batch_size // 2, budget.images)
        tokens = asked[rows].flatten(0, 1)
        owners = torch.arange(len(rows)).repeat_interleave(4)
        given = {"seen": features[rows], "tokens": tokens, "mask": tokens != world.PAD, "owners": owners}
        return {**given, "targets": answers[rows].flatten(0, 1)}

    fit(made, _answer, batch, Optim(lr=budget.lr, warmup=50, matrices="muon"), budget.tuning)
    probe = softmax_regression(features.mean(1), torch.from_numpy(train.kinds[:, 0]), world.NUM_KINDS, 1.0)
    named = probe(held_out.mean(1)).argmax(1) == torch.from_numpy(test.kinds[:, 0])
    return {**_right(made, test), "probe": float(named.float().mean())}


def dual_encoder(budget: Budget) -> SigLIP:
    """The library's SigLIP, small."""
    size: dict[str, Any] = {"width": budget.width, "num_heads": 2, "mlp_width": 2 * budget.width, "act": "gelu"}
    image = ViTConfig(num_layers=budget.num_layers, patch_size=budget.patch, image_size=world.SIZE, **size)
    text = TextConfig(num_layers=2, vocab_size=world.VOCAB_SIZE, context=world.CAPTION, causal=False, **size)
    made = SigLIP(SigLIPConfig(image=image, text=text, embed=budget.width, pad_id=world.PAD))
    with torch.no_grad():
        made.image.positions.add_(budget.waves * grid_waves(*image.grid, budget.width))
    return made


def encoder_decoder(budget: Budget, image: ViT) -> PaLI3:
    """The library's PaLI-3, small, with that image encoder, frozen."""
    text = T5Config(
        width=budget.width,
        num_layers=2,
        num_decoder_layers=2,
        num_heads=2,
        head_width=budget.width // 2,
        mlp_width=2 * budget.width,
        mlp="gated silu",
        vocab_size=world.VOCAB_SIZE,
        start_id=world.START,
    )
    made = PaLI3(PaLI3Config(image=image.cfg, text=text))
    nn.init.orthogonal_(made.image_proj.weight)
    made.image = image
    set_trained(made, ("image",), False)
    return made


def _pretrain(encoder: SigLIP, train: world.Signs, budget: Budget, setting: str, seed: int) -> None:
    """By the setting's objective, at equal steps over the same images."""
    if setting == NONE:
        return
    classes = torch.from_numpy(train.kinds[:, 0])

    def batch(index: int) -> dict[str, Tensor]:
        rows = rows_at(seed, index, budget.batch_size, budget.images)
        if setting == CLASSES:
            return {"pixels": train.pixels[rows], "classes": classes[rows]}
        rng = np.random.Generator(np.random.PCG64([seed, index, 8]))
        return {
            "pixels": train.pixels[rows],
            "tokens": world.captions(train, rows, rng, whole=setting == CAPTIONS),
        }

    made, objective = (Classifier(encoder), _classify) if setting == CLASSES else (encoder, SigmoidLoss(bias=-4.0))
    fit(made, objective, batch, Optim(lr=budget.lr, warmup=50, matrices="muon"), budget.steps)


def _classify(network: Any, batch: Any) -> Losses:
    return Losses(F.cross_entropy(network(batch["pixels"]), batch["classes"]), {})


def _answer(network: Any, batch: Any) -> Losses:
    """Next tokens, given what the frozen encoder saw."""
    return NextTokenLoss()(lambda **given: network(**given, seen=network.image_proj(batch["seen"])), batch)


@torch.no_grad()
def _features(image: ViT, pixels: Tensor) -> Tensor:
    image.eval()
    return torch.cat([image(part) for part in pixels.split(250)])


@torch.no_grad()
def _right(made: PaLI3, test: world.Signs) -> dict[str, float]:
    """The share of boxes that overlap the true one by a half at least, of digits read, of large things named."""
    asked, wanted = world.questions(test)
    said = []
    for rows in torch.arange(len(asked)).split(400):
        given = {"pixels": test.pixels[rows[::4] // 4], "owners": torch.arange(len(rows)) // 4, "tokens": asked[rows]}
        batch = {**given, "mask": asked[rows] != world.PAD}
        written = generate(cast(Any, made), batch, eos_id=world.END, pad_id=world.PAD, max_new_tokens=5)
        said.append(F.pad(written, (0, 5 - written.shape[1]), value=world.PAD))
    answers, true = torch.cat(said).unflatten(0, (-1, 4)), wanted.unflatten(0, (-1, 4))
    same = ((answers == true) | (true < 0)).all(dim=2).float().mean(dim=0)
    boxes = [_overlap(row[:4], box) for rows, pair in zip(answers, test.boxes, strict=True)
             for row, box in zip(rows[:2], pair, strict=True)]  # fmt: skip
    return {"boxes": float(np.mean(np.array(boxes) >= _OVERLAP)), "reading": float(same[2]), "naming": float(same[3])}


def _overlap(tokens: Tensor, true: np.ndarray) -> float:
    """Intersection over union; 0 of what is no box."""
    if bool((tokens < world.PLACES).any()):
        return 0.0
    box = world.BIN * (tokens - world.PLACES).double().numpy()
    common = np.clip(np.minimum(box[2:], true[2:]) - np.maximum(box[:2], true[:2]), 0, None).prod()
    both = sum(float(np.clip(one[2:] - one[:2], 0, None).prod()) for one in (box, true))
    return float(common / (both - common)) if both > common else 0.0


BUDGET = Budget()


def pali3(budget: Budget = BUDGET) -> Claim:
    settings = (NONE, CLASSES, THINGS, CAPTIONS)
    return Claim(
        name="pali3",
        paper="Chen et al., 2023 (PaLI-3), Sec. 4.1: contrastively pretrained against classification pretrained "
        "image encoders (recalled).",
        says="Frozen in the same model, SigLIP encoders are worse at few-shot classification by a linear layer than "
        "those pretrained on JFT's classes, a little better at captions and questions, and far better at text in "
        "images and at finding what is referred to; so in three sizes.",
        here="The library's ViT (three layers, width 64) learns 5,000 images of two coloured shapes and a sign with a "
        "digit, a patch for each: by the class of the large shape, or by SigLIP's loss and captions that name each "
        "thing with its place, and the digit, in two of three times; at equal steps. Frozen, it is the image encoder "
        "of the library's PaLI-3, whose encoder-decoder learns to find each shape (IoU at least 0.5), to read the "
        "digit and to name the large shape.",
        settings=settings,
        seeds=(1, 2, 3),
        budget=budget,
        measure=measure,
        table=(*TASKS, "probe"),
        statements=(
            Statement(
                "By contrast with captions an encoder is better at finding things than by class labels.",
                Read(CAPTIONS, "boxes"),
                Read(CLASSES, "boxes"),
                least=0.05,
            ),
            Statement("And at reading.", Read(CAPTIONS, "reading"), Read(CLASSES, "reading"), least=0.1),
            Statement(
                "By class labels it is better for a linear probe of these classes.",
                Read(CLASSES, "probe"),
                Read(CAPTIONS, "probe"),
            ),
            Statement(
                "What helps is what the captions say: without places and digits it reads worse.",
                Read(CAPTIONS, "reading"),
                Read(THINGS, "reading"),
                least=0.1,
            ),
            Statement(
                "And finds worse.",
                Read(CAPTIONS, "boxes"),
                Read(THINGS, "boxes"),
                least=0.05,
            ),
        ),
        plots=(
            Plot(
                title="PaLI-3: frozen image encoders",
                x="pretraining",
                y="accuracy",
                lines=tuple(
                    Line(figure, tuple((setting, Read(setting, figure)) for setting in settings))
                    for figure in (*TASKS, "probe")
                ),
            ),
        ),
        minutes=12.4,
    )
