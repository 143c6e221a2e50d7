"""MAGIC: a dual encoder steers a language model by choosing among its words, without gradients.

Su et al., "Language Models Can See: Plugging Visual Controls in Text Generation", 2022.
"""

import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rebus.backbones.text.gpt2 import GPT2, GPT2Config
from rebus.core.config import to_dict
from rebus.core.labels import IGNORED
from rebus.core.system import Part
from rebus.generation import generate, score
from rebus.models.contrastive.clip import CLIP
from rebus.models.training_free.magic import MAGIC, MAGICConfig
from rebus.objectives import ContrastiveTokenLoss, SoftmaxLoss
from rebus.reproduce import clip, gradient_guided
from rebus.reproduce import shapes_world as shapes
from rebus.reproduce.claim import Claim, Line, Plot, Read, Statement
from rebus.reproduce.train_in_memory import fit, rows_at
from rebus.train.config import Optim

CAPTIONS = "captions"  # the only setting: all ways of decoding are timed in one process
UNGUIDED, GUIDED, ELSEWHERE, GRADIENTS = "unguided", "MAGIC", "MAGIC, another image", "gradient-guided"
_WORDS = {number: word for word, number in shapes.IDS.items()}
_LONGEST = 8  # words of the longest phrase


@dataclass(frozen=True, kw_only=True)
class Budget:
    clip_steps: int = 1000
    text_steps: int = 400
    batch_size: int = 64
    train: int = 8000
    test: int = 100
    bent: int = 25  # of the test images, those that are decoded by gradients
    lr: float = 2e-3
    width: int = 64
    k: int = 16
    alpha: float = 0.1
    beta: float = 2.0
    guide_scale: float = 20.0
    bending: gradient_guided.Bending = field(default_factory=gradient_guided.Bending)


def measure(budget: Budget, setting: str, seed: int) -> dict[str, float]:
    """The figures of all ways of decoding, with networks that were trained from this seed. Seconds are the processor's,
    of one thread: what else a machine does changes the clock on the wall."""
    train = shapes.images(2 * seed, budget.train)
    test = shapes.images(2 * seed + 1, budget.test)
    guide, judge = (dual_encoder(budget, train, 10 * seed + number) for number in range(2))
    network = joined(budget, language_model(budget, train, 10 * seed + 2), guide)
    tokens = torch.full((budget.test, 1), shapes.START)
    found = {"judge's own captions": _fit(judge, test.pixels, test.captions)}
    for name, pixels, beta in (
        (UNGUIDED, test.pixels, 0.0),
        (GUIDED, test.pixels, budget.beta),
        (ELSEWHERE, test.pixels.roll(1, dims=0), budget.beta),
    ):
        began = time.process_time()
        texts = [_caption(budget, network, pixels[i : i + 1], tokens[i : i + 1], beta) for i in range(budget.test)]
        seconds = (time.process_time() - began) / budget.test
        found |= _figures(name, judge, network.text, test, texts, seconds)
    began = time.process_time()
    texts = [_bent(budget, network, test.pixels[i : i + 1]) for i in range(budget.bent)]
    seconds = (time.process_time() - began) / budget.bent
    return found | _figures(GRADIENTS, judge, network.text, test, texts, seconds)


def dual_encoder(budget: Budget, train: shapes.ImageSet, seed: int) -> CLIP:
    torch.manual_seed(seed)
    network = clip.network(clip.Budget(width=budget.width))
    texts = shapes.tokens(train.captions)

    def batch_at(index: int) -> dict[str, Tensor]:
        rows = rows_at(seed, index, budget.batch_size, budget.train)
        return {"pixels": train.pixels[rows], "tokens": texts[rows]}

    fit(network, SoftmaxLoss(), batch_at, _optim(budget, budget.clip_steps), budget.clip_steps)
    return network


def language_model(budget: Budget, train: shapes.ImageSet, seed: int) -> GPT2:
    """It reads the captions and sees no image."""
    torch.manual_seed(seed)
    width = budget.width
    network = GPT2(
        GPT2Config(
            width=width,
            num_layers=2,
            num_heads=2,
            mlp_width=2 * width,
            vocab_size=shapes.VOCAB_SIZE,
            context=shapes.CONTEXT + 1,
            act="gelu",
        )
    )
    texts = shapes.tokens(train.captions)
    targets = texts[:, 1:].masked_fill(texts[:, 1:] == shapes.PAD, IGNORED)

    def batch_at(index: int) -> dict[str, Tensor]:
        rows = rows_at(seed, index, budget.batch_size, budget.train)
        return {"tokens": texts[rows, :1], "targets": targets[rows]}

    fit(network, ContrastiveTokenLoss(), batch_at, _optim(budget, budget.text_steps), budget.text_steps)
    return network


def joined(budget: Budget, text: GPT2, guide: CLIP) -> MAGIC:
    config = MAGICConfig(
        text=Part(system="gpt2", config=to_dict(text.cfg)),
        guide=Part(system="clip", config=to_dict(guide.cfg)),
        guide_scale=budget.guide_scale,
    )
    return MAGIC(config, text=text, guide=guide)


def _optim(budget: Budget, steps: int) -> Optim:
    return Optim(lr=budget.lr, warmup=min(50, steps // 2))


def _caption(budget: Budget, network: MAGIC, pixels: Tensor, tokens: Tensor, beta: float) -> list[int]:
    written = generate(
        network,  # type: ignore[arg-type]
        {"pixels": pixels, "tokens": tokens},
        eos_id=shapes.END,
        pad_id=shapes.PAD,
        decode=_decode,
        read=_read,
        max_new_tokens=_LONGEST + 1,
        strategy="contrastive",
        k=budget.k,
        alpha=budget.alpha,
        beta=beta,
    )
    return [int(token) for token in written[0]]


@torch.no_grad()
def _bent(budget: Budget, network: MAGIC, pixels: Tensor) -> list[int]:
    image = network.guide.embed_image(pixels)

    def judge(texts: list[list[int]]) -> Tensor:
        read = network.guide.embed_text(**_read([_decode(text) for text in texts]))
        return budget.guide_scale * (read @ image[0])

    return gradient_guided.gradient_guided(network.text, shapes.START, shapes.END, _LONGEST + 1, judge, budget.bending)


def _decode(ids: list[int]) -> str:
    return " ".join(_WORDS[i] for i in ids if i in _WORDS)


def _read(texts: list[str]) -> dict[str, Tensor]:
    return {"tokens": shapes.tokens([" ".join(text.split()[:_LONGEST]) for text in texts])}


@torch.no_grad()
def _fit(judge: CLIP, pixels: Tensor, texts: list[str]) -> float:
    """Mean cosine of each image with its own text."""
    return float((judge.embed_image(pixels) * judge.embed_text(**_read(texts))).sum(-1).mean())


def _figures(
    name: str, judge: CLIP, text: Any, test: shapes.ImageSet, written: list[list[int]], seconds: float
) -> dict[str, float]:
    number = len(written)
    texts = [_decode(ids) for ids in written]
    pairs = [shapes.PAIRS[pair] for pair in test.pairs[:number].tolist()]
    colours = [shapes.COLOUR_NAMES[colour] in said.split() for said, (_, colour) in zip(texts, pairs, strict=True)]
    forms = [bool({*shapes.SHAPES[shape]} & {*said.split()}) for said, (shape, _) in zip(texts, pairs, strict=True)]
    rows = shapes.tokens([" ".join(said.split()[:_LONGEST]) for said in texts])
    targets = rows[:, 1:].masked_fill(rows[:, 1:] == shapes.PAD, IGNORED)
    likely = score(text, {"tokens": rows[:, :1]}, targets)
    figures = {
        "judge": _fit(judge, test.pixels[:number], texts),
        "colour": sum(colours) / number,
        "shape": sum(forms) / number,
        "log-likelihood of a token": float((likely.total / likely.length).mean()),
        "seconds": seconds,
    }
    return {f"{figure}, {name}": value for figure, value in figures.items()}


BUDGET = Budget()


def magic(budget: Budget = BUDGET) -> Claim:
    def read(figure: str, name: str) -> Read:
        return Read(CAPTIONS, f"{figure}, {name}")

    def bars(figure: str, names: tuple[str, ...]) -> Line:
        return Line(figure, tuple((name, read(figure, name)) for name in names))

    ways = (UNGUIDED, GUIDED, ELSEWHERE, GRADIENTS)
    return Claim(
        name="magic",
        paper="Su et al., 2022 (MAGIC), tables 1 and 5.",
        says="A language model that never saw an image describes one where a dual encoder helps to choose its words, "
        "better than by gradients (CIDEr 49.3 against ZeroCap's 34.9 on COCO) and nearly 27 times as fast.",
        here="Two dual encoders of 0.15M weights from different seeds, one to guide and one that only judges, and a "
        "language model of two layers read 8,000 images of 16 pixels or their captions. 100 held-out images are "
        "captioned without guidance, by MAGIC, by MAGIC shown another image, and 25 of them by gradients in the "
        "manner of ZeroCap (five steps a token), one image at a time in one process.",
        settings=(CAPTIONS,),
        seeds=(1, 2, 3),
        budget=budget,
        measure=measure,
        table=tuple(f"{figure}, {name}" for figure in ("judge", "colour", "shape", "seconds") for name in ways),
        statements=(
            Statement(
                "By a dual encoder that had no part in it, guided captions fit their images better, by 0.3 or more.",
                read("judge", GUIDED),
                read("judge", UNGUIDED),
                least=0.3,
            ),
            Statement(
                "What helps is the image: guided by another one they fit worse, by 0.3 or more.",
                read("judge", GUIDED),
                read("judge", ELSEWHERE),
                least=0.3,
            ),
            Statement(
                "The right colour is named three times as often as without guidance, or more.",
                read("colour", GUIDED),
                read("colour", UNGUIDED),
                by="times",
                least=3.0,
            ),
            Statement(
                "Guiding by gradients takes ten times as long, or more.",
                read("seconds", GRADIENTS),
                read("seconds", GUIDED),
                by="times",
                least=10.0,
            ),
            Statement(
                "And its captions fit no better.",
                read("judge", GUIDED),
                read("judge", GRADIENTS),
            ),
        ),
        plots=(
            Plot(title="How well captions fit", x="decoding", y="cosine by the judge", lines=(bars("judge", ways),)),
            Plot(title="Time", x="decoding", y="seconds a caption", lines=(bars("seconds", ways),), log_y=True),
        ),
        minutes=3.0,
    )
