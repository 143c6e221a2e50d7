"""CLIP: captions alone make a classifier of any words, for combinations too that were never seen together.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rebus.backbones.text.encoder import TextConfig
from rebus.models.contrastive.clip import CLIP, CLIPConfig
from rebus.models.contrastive.clip_config import clip_vit
from rebus.objectives import SoftmaxLoss
from rebus.objectives.losses import Losses
from rebus.reproduce import shapes_world as shapes
from rebus.reproduce.claim import Claim, Line, Plot, Read, Statement
from rebus.reproduce.train_in_memory import fit, rows_at
from rebus.train.config import Optim

TRANSFER, CONTRASTIVE, WORDS = "48 of 64 pairs", "contrastive", "bag of words"
CHANCE = 1 / len(shapes.PAIRS)


@dataclass(frozen=True, kw_only=True)
class Budget:
    steps: int = 1000  # of the transfer
    race: int = 2000  # most steps of the two that are timed
    every: int = 50  # steps between measurements of the race
    goal: float = 0.6  # accuracy that ends the race
    batch_size: int = 64
    train: int = 8000
    test: int = 3000
    lr: float = 2e-3
    width: int = 64


class WordsOf(nn.Module):
    """The same image encoder, and the probability of each word of the vocabulary to be in the caption."""

    def __init__(self, clip: CLIP):
        super().__init__()
        self.clip = clip
        self.head = nn.Linear(clip.cfg.embed, shapes.VOCAB_SIZE)
        clip.text.requires_grad_(False)
        clip.text_proj.requires_grad_(False)
        clip.log_scale.requires_grad_(False)

    def forward(self, pixels: Tensor) -> Tensor:
        scores: Tensor = self.head(self.clip.image_proj(self.clip.image(pixels)[:, 0]))
        return scores


def words_loss(network: Callable[..., Any], batch: Mapping[str, Tensor]) -> Losses:
    """Binary cross entropy for each word, in the caption or not (Joulin et al., 2016; the baseline of Sec. 2.3)."""
    scores = network(batch["pixels"])
    present = torch.zeros_like(scores).scatter_(1, batch["tokens"], 1.0)
    present[:, : shapes.END + 1] = 0
    loss = F.binary_cross_entropy_with_logits(scores, present, reduction="sum") / len(scores)
    return Losses(loss, {})


def network(budget: Budget) -> CLIP:
    width = budget.width
    return CLIP(
        CLIPConfig(
            image=clip_vit(
                width=width,
                num_layers=2,
                num_heads=2,
                mlp_width=2 * width,
                patch_size=4,
                image_size=shapes.SIZE,
                act="gelu",
            ),
            text=TextConfig(
                width=width,
                num_layers=2,
                num_heads=2,
                mlp_width=2 * width,
                vocab_size=shapes.VOCAB_SIZE,
                context=shapes.CONTEXT,
                act="gelu",
            ),
            embed=64,
            end_id=shapes.END,
        )
    )


def measure(budget: Budget, setting: str, seed: int) -> dict[str, float]:
    """The figures of one network: after all its steps for the transfer, when it reached the goal for the race."""
    torch.manual_seed(seed)
    clip = network(budget)
    seen = [pair for pair in shapes.PAIRS if pair not in shapes.HELD_OUT]
    train = shapes.images(2 * seed, budget.train, tuple(seen) if setting == TRANSFER else shapes.PAIRS)
    test = shapes.images(2 * seed + 1, budget.test)
    texts = shapes.tokens(train.captions)

    def batch_at(index: int) -> dict[str, Tensor]:
        rows = rows_at(seed, index, budget.batch_size, budget.train)
        return {"pixels": train.pixels[rows], "tokens": texts[rows]}

    if setting == TRANSFER:
        fit(clip, SoftmaxLoss(), batch_at, _optim(budget, budget.steps), budget.steps)
        return _transferred(clip, test)
    learner: nn.Module = clip if setting == CONTRASTIVE else WordsOf(clip)
    score = _by_texts if setting == CONTRASTIVE else _by_words
    return _raced(budget, learner, SoftmaxLoss() if setting == CONTRASTIVE else words_loss, batch_at, score, test)


def _optim(budget: Budget, steps: int, **fields: Any) -> Optim:
    return Optim(lr=budget.lr, warmup=min(50, steps // 2), **fields)


def _transferred(clip: CLIP, test: shapes.ImageSet) -> dict[str, float]:
    novel = torch.tensor([pair in shapes.HELD_OUT for pair in shapes.PAIRS])[test.pairs]
    hits, single = (_by_texts(clip, test.pixels, one) == test.pairs for one in (False, True))
    return {
        "seen pairs": float(hits[~novel].float().mean()),
        "held-out pairs": float(hits[novel].float().mean()),
        "one prompt": float(single.float().mean()),
        "18 prompts": float(hits.float().mean()),
        "chance": CHANCE,
    }


def _raced(
    budget: Budget,
    learner: nn.Module,
    objective: Callable[[Any, Mapping[str, Tensor]], Losses],
    batch_at: Callable[[int], dict[str, Tensor]],
    score: Callable[[Any, Tensor], Tensor],
    test: shapes.ImageSet,
) -> dict[str, float]:
    """Steps to the goal; who never gets there is given the most steps, which makes the other's lead look smaller.

    The rate is constant, since nobody knows beforehand when the goal is reached.
    """
    found = {"steps to the goal": float(budget.race), "reached": 0.0}

    def check(step: int) -> bool:
        if step % budget.every:
            return False
        accuracy = float((score(learner, test.pixels) == test.pairs).float().mean())
        found["accuracy"] = accuracy
        if accuracy >= budget.goal:
            found.update({"steps to the goal": float(step), "reached": 1.0})
        return accuracy >= budget.goal

    fit(learner, objective, batch_at, _optim(budget, budget.race, schedule="constant"), budget.race, check)
    return found


@torch.no_grad()
def _by_texts(clip: CLIP, pixels: Tensor, one: bool = False) -> Tensor:
    """The pair whose texts, each embedded and then averaged, are nearest; `one`: a single text of each."""
    prompts = shapes.prompt_tokens(one)
    texts = clip.embed_text(prompts.flatten(0, 1))
    means = F.normalize(texts.unflatten(0, prompts.shape[:2]).mean(dim=1), dim=-1)
    return (clip.embed_image(pixels) @ means.T).argmax(dim=1)


@torch.no_grad()
def _by_words(words: WordsOf, pixels: Tensor) -> Tensor:
    """The pair whose colour and names have the highest sum of log probabilities."""
    sure = F.logsigmoid(words(pixels))
    scores = [
        sure[:, shapes.IDS[shapes.COLOUR_NAMES[colour]]]
        + torch.stack([sure[:, shapes.IDS[name]] for name in shapes.SHAPES[shape]]).mean(dim=0)
        for shape, colour in shapes.PAIRS
    ]
    return torch.stack(scores, dim=1).argmax(dim=1)


BUDGET = Budget()


def clip(budget: Budget = BUDGET) -> Claim:
    return Claim(
        name="clip",
        paper="Radford et al., 2021 (CLIP), abstract and figure 2.",
        says="Captions alone give a classifier of any names without a labelled image (76.2% of ImageNet with the "
        "largest model), and matching captions learns about 4 times as fast as predicting their bag of words "
        "(figure 2; recalled).",
        here="A CLIP of 0.15M weights reads 8,000 images of 16 pixels, of 8 shapes in 8 colours, with captions of "
        "six phrases and three names for each shape. 16 of the 64 pairs of shape and colour never occur; all 64 are "
        "to be distinguished. For the second figure no pair is left out, and the same image encoder predicts words.",
        settings=(TRANSFER, CONTRASTIVE, WORDS),
        seeds=(1, 2, 3),
        budget=budget,
        measure=measure,
        table=(
            "seen pairs",
            "held-out pairs",
            "chance",
            "one prompt",
            "18 prompts",
            "steps to the goal",
            "reached",
            "accuracy",
        ),
        statements=(
            Statement(
                "Pairs that never occurred are named ten times as often as by chance, or more.",
                Read(TRANSFER, "held-out pairs"),
                Read(TRANSFER, "chance"),
                by="times",
                least=10.0,
            ),
            Statement(
                "Many prompts and names are better than one.",
                Read(TRANSFER, "18 prompts"),
                Read(TRANSFER, "one prompt"),
            ),
            Statement(
                f"Predicting words takes twice as many steps as matching captions to {budget.goal:.0%}, or more.",
                Read(WORDS, "steps to the goal"),
                Read(CONTRASTIVE, "steps to the goal"),
                by="times",
                least=2.0,
            ),
        ),
        plots=(
            Plot(
                title="CLIP: pairs seen and never seen",
                x="pairs of shape and colour",
                y="accuracy",
                lines=(
                    Line(
                        TRANSFER,
                        (
                            ("seen", Read(TRANSFER, "seen pairs")),
                            ("held out", Read(TRANSFER, "held-out pairs")),
                            ("chance", Read(TRANSFER, "chance")),
                        ),
                    ),
                ),
            ),
            Plot(
                title=f"Steps to {budget.goal:.0%}",
                x="objective",
                y="steps",
                lines=(
                    Line(
                        "steps",
                        tuple((name, Read(name, "steps to the goal")) for name in (CONTRASTIVE, WORDS)),
                    ),
                ),
            ),
        ),
        minutes=7.0,
    )
