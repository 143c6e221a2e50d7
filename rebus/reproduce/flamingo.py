"""Flamingo: text and images in turn teach a frozen language model to learn from examples that it sees.

Alayrac et al., "Flamingo: a Visual Language Model for Few-Shot Learning", 2022.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from rebus.backbones.text.llama import Llama, LlamaConfig
from rebus.core.config import to_dict
from rebus.core.labels import IGNORED
from rebus.core.system import Part
from rebus.models.frozen_lm.bridge import CrossConfig, ResamplerConfig
from rebus.models.frozen_lm.flamingo import Flamingo
from rebus.models.frozen_lm.flamingo_config import FlamingoConfig
from rebus.objectives import InterleavedLoss
from rebus.reproduce.claim import Claim, Line, Plot, Read, Statement
from rebus.reproduce.train_in_memory import fit
from rebus.train.config import Optim

DOCUMENTS, PAIRS, TUNED, SCRATCH, OPEN = "documents", "pairs", "tuned text", "untrained text", "open gates"
SETTINGS = (DOCUMENTS, PAIRS, TUNED, SCRATCH, OPEN)
SHOTS = (0, 1, 2, 4, 8, 16)
CLASSES = 4  # of an episode
_NUMBER = 8  # colours, and shapes
_NAMES = 16  # made-up words
_PAD, _BEGIN, _WORD = 0, 1, 2  # the first colour, which shapes and names follow
_NAME = _WORD + 2 * _NUMBER
_VOCAB = _NAME + _NAMES
_END, _IMAGE = _VOCAB, _VOCAB + 1
_OPEN = 3.0  # tanh of it is 0.995
_WIDTH = 48  # of what stands for an image


@dataclass(frozen=True, kw_only=True)
class Budget:
    text_steps: int = 1500
    steps: int = 800
    early: int = 50  # the step after which the first losses are compared
    batch_size: int = 32
    images: int = 8  # of a document, or text in their place
    test: int = 400  # episodes
    lr: float = 4e-3
    width: int = 64
    noise: float = 0.3


class Items(NamedTuple):
    """Rows of K things, each of one of its row's `CLASSES`: `colours`, `shapes` and `names` int64 (B, K)."""

    colours: Tensor
    shapes: Tensor
    names: Tensor

    def images(self, noise: float, random: torch.Generator) -> Tensor:
        """(B, K, 3, 4, 4): a fixed random vector for each colour and each shape, added up, and noise."""
        fixed = torch.Generator().manual_seed(0)
        colours, shapes = (torch.randn(_NUMBER, _WIDTH, generator=fixed) for _ in range(2))
        shown = colours[self.colours] + shapes[self.shapes]
        return (shown + noise * torch.randn(shown.shape, generator=random)).unflatten(2, (3, 4, 4))


class Described(nn.Module):
    """The frozen image encoder: images are described and not drawn, so that nothing is left to see."""

    width = _WIDTH

    def feature_map(self, pixels: Tensor) -> Tensor:
        """One vector an image, as a grid."""
        return pixels.flatten(1)[:, :, None, None]


def episodes(random: torch.Generator, rows: int, number: int, classes: int, novel: bool) -> Items:
    """The first things show each class once, in random order; the others show any. Of the pairs of colour and shape
    one in eight, one of each colour and of each shape, is in novel episodes alone."""
    shape = torch.rand(rows, _NUMBER, generator=random).argsort(dim=1)[:, :classes]
    step = torch.zeros_like(shape) if novel else torch.randint(1, _NUMBER, shape.shape, generator=random)
    colour = (shape + step) % _NUMBER
    name = torch.rand(rows, _NAMES, generator=random).argsort(dim=1)[:, :classes]
    each = torch.rand(rows, classes, generator=random).argsort(dim=1)
    more = torch.randint(classes, (rows, max(number - classes, 0)), generator=random)
    order = torch.cat([each, more], dim=1)[:, :number]
    return Items(*(table.gather(1, order) for table in (colour, shape, name)))


def text_batch(budget: Budget, seed: int, index: int) -> dict[str, Tensor]:
    """The input of the language model: the same episodes as text, `red circle dax red square wug …`, of which the names
    are learned; and, in every other row, repeated words, from which copying is learned fastest."""
    random = torch.Generator().manual_seed(seed * 1_000_003 + index)
    half = budget.batch_size // 2
    classes = int(torch.randint(2, CLASSES + 1, (), generator=random))
    told = torch.stack(_spelled(episodes(random, half, budget.images, classes, novel=False)), dim=2).flatten(1)
    learned = told.masked_fill(torch.arange(told.shape[1]) % 3 != 2, IGNORED)
    period = int(torch.randint(4, 13, (), generator=random))
    some = torch.randint(_WORD, _VOCAB, (half, period), generator=random)
    rote = some.repeat(1, -(-told.shape[1] // period))[:, : told.shape[1]]
    again = rote.masked_fill(torch.arange(rote.shape[1]) < period, IGNORED)
    rows, labels = torch.cat([told, rote]), torch.cat([learned, again])
    return {"tokens": nn.functional.pad(rows[:, :-1], (1, 0), value=_BEGIN), "labels": labels}


def _spelled(items: Items) -> tuple[Tensor, Tensor, Tensor]:
    """The tokens of each thing: its colour, its shape, its name."""
    return items.colours + _WORD, items.shapes + _WORD + _NUMBER, items.names + _NAME


def image_batch(budget: Budget, items: Items, random: torch.Generator, told: int = 0) -> dict[str, Tensor]:
    """Documents: `image dax end image wug end …`, of which names and ends are learned. The first `told` things are
    text: `red circle dax`."""
    name = items.names + _NAME
    rows = torch.stack([torch.full_like(name, _IMAGE), name, torch.full_like(name, _END)], dim=2)
    learned = rows != _IMAGE
    rows[:, :told] = torch.stack(_spelled(items), dim=2)[:, :told]
    learned[:, :told] = False
    tokens = nn.functional.pad(rows.flatten(1), (1, 0), value=_BEGIN)
    labels = nn.functional.pad(rows.masked_fill(~learned, IGNORED).flatten(1), (0, 1), value=IGNORED)
    return {"pixels": items.images(budget.noise, random)[:, told:], "tokens": tokens, "labels": labels}


def measure(budget: Budget, setting: str, seed: int) -> dict[str, float]:
    """Accuracy on pairs of colour and shape never seen, after 0 to 16 examples; the loss early on; and how often names
    are correct in text-only episodes."""
    torch.manual_seed(seed)
    text = Llama(_text(budget))
    if setting != SCRATCH:
        text.load_state_dict(_read(budget, seed))
    torch.manual_seed(seed)
    network = Flamingo(_config(budget), text=text, image=Described())
    network.text.requires_grad_(setting in (TUNED, SCRATCH))
    if setting == OPEN:
        for block in network.cross:
            for gate in (block.attn_gate, block.mlp_gate):
                nn.init.constant_(cast(Tensor, gate), _OPEN).requires_grad_(False)

    def batch_at(index: int) -> dict[str, Tensor]:
        random = torch.Generator().manual_seed(seed * 1_000_003 + index)
        rows, images = budget.batch_size, budget.images
        if setting == PAIRS:  # as many images, each with names of its own
            return image_batch(budget, episodes(random, rows * images, 1, 2, novel=False), random)
        classes = int(torch.randint(2, CLASSES + 1, (), generator=random))
        told = max(0, int(torch.randint(1 - images, images, (), generator=random)))  # in half of the batches none
        return image_batch(budget, episodes(random, rows, images, classes, novel=False), random, told)

    early: list[float] = []

    def check(step: int) -> bool:
        if step == budget.early:
            with torch.no_grad():
                early.append(float(InterleavedLoss()(network, _test_batch(budget, budget.images)).total))
        return False

    fit(network, InterleavedLoss(), batch_at, Optim(lr=budget.lr, matrices="muon", warmup=50), budget.steps, check)
    found = {f"right, {shots} shots": _accuracy(budget, network, shots) for shots in SHOTS}
    return {**found, "early loss": early[0], "right in words": _in_words(budget, network)}


def _test_batch(budget: Budget, number: int) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(0)
    return image_batch(budget, episodes(random, budget.test, number, CLASSES, novel=True), random)


@torch.no_grad()
def _accuracy(budget: Budget, network: Flamingo, shots: int) -> float:
    """Of the names in the episode, the query's own is the likeliest."""
    random = torch.Generator().manual_seed(1)
    shown = episodes(random, budget.test, max(shots, CLASSES) + 1, CLASSES, novel=True)
    items = Items(*(torch.cat([part[:, :shots], part[:, -1:]], dim=1) for part in shown))
    batch = image_batch(budget, items, random)
    logits = network(pixels=batch["pixels"], tokens=batch["tokens"][:, :-2]).logits[:, -1]
    return _likeliest(logits, shown)


@torch.no_grad()
def _in_words(budget: Budget, network: Flamingo) -> float:
    """The same in episodes of eight told examples, without any image."""
    shown = episodes(torch.Generator().manual_seed(2), budget.test, 9, CLASSES, novel=True)
    told = nn.functional.pad(torch.stack(_spelled(shown), dim=2).flatten(1), (1, 0), value=_BEGIN)
    return _likeliest(network(tokens=told[:, :-1]).logits[:, -1], shown)


def _likeliest(logits: Tensor, shown: Items) -> float:
    names = shown.names[:, :CLASSES] + _NAME  # the first things are of all classes
    best = names.gather(1, logits.gather(1, names).argmax(dim=1, keepdim=True))[:, 0]
    return float((best == shown.names[:, -1] + _NAME).float().mean())


@lru_cache(maxsize=4)
def _read(budget: Budget, seed: int) -> Mapping[str, Tensor]:
    """The weights of a language model that has read."""
    torch.manual_seed(seed)
    text = Llama(_text(budget))
    optim = Optim(lr=budget.lr, matrices="muon", warmup=50)
    fit(text, InterleavedLoss(), partial(text_batch, budget, seed), optim, budget.text_steps)
    return {name: value.clone() for name, value in text.state_dict().items()}


def _text(budget: Budget) -> LlamaConfig:
    width = budget.width
    return LlamaConfig(
        width=width,
        num_layers=2,
        num_heads=4,
        num_kv_heads=4,
        head_width=width // 4,
        mlp_width=2 * width,
        vocab_size=_VOCAB,
        context=128,
        tied=True,
    )


def _config(budget: Budget) -> FlamingoConfig:
    return FlamingoConfig(
        text=Part(system="llama", config=to_dict(_text(budget))),
        image=Part(system="described", config={}),
        resampler=ResamplerConfig(num_layers=1, num_heads=2, head_width=24, num_latents=2),
        cross=CrossConfig(num_heads=4, head_width=budget.width // 4, mlp_width=2 * budget.width),
    )


BUDGET = Budget()


def flamingo(budget: Budget = BUDGET) -> Claim:
    def right(setting: str, shots: int) -> Read:
        return Read(setting, f"right, {shots} shots")

    return Claim(
        name="flamingo",
        paper="Alayrac et al., 2022 (Flamingo).",
        says="A frozen language model that learns to look at text and images in turn learns new tasks from examples in "
        "its prompt, better the more there are, more of them than in training too. Without interleaved data it is far "
        "worse (of a score of 70.7 over its development tasks 53.4 remain), so it is with a language model that is "
        "tuned too (62.7) or starts from nothing (57.8), and without gates that begin closed (66.5); these figures are "
        "recalled.",
        here="A language model of two layers reads text-only episodes, in which made-up names stand for pairs of "
        "colour and shape, and texts that repeat themselves. Then cross-attention learns, from documents of eight "
        "images (described, not drawn), in every other batch with text in place of the first, and names that change "
        "from document to document; from as many single images with such names; with the language model "
        "learning too; with one that never read; and with gates open from the start. What is measured: of the four "
        "names of an episode the right one is likeliest, for pairs of colour and shape that were in no document and "
        "no text, after 0 to 16 examples.",
        settings=SETTINGS,
        seeds=(4, 5, 6),  # those before were seen with documents of images alone
        budget=budget,
        measure=measure,
        table=(*(f"right, {shots} shots" for shots in (0, 4, 8, 16)), "right in words", "early loss"),
        statements=(
            Statement(
                "Examples teach: eight are better than none by 30 points or more.",
                right(DOCUMENTS, 8),
                right(DOCUMENTS, 0),
                least=0.3,
            ),
            Statement(
                "More examples than any document had still help: sixteen are better than four.",
                right(DOCUMENTS, 16),
                right(DOCUMENTS, 4),
            ),
            Statement(
                "Documents are what teaches it: eight examples are worth 30 points more than to a model of pairs.",
                right(DOCUMENTS, 8),
                right(PAIRS, 8),
                least=0.3,
            ),
            Statement(
                "A frozen language model learns better from examples than one that is tuned.",
                right(DOCUMENTS, 8),
                right(TUNED, 8),
            ),
            Statement(
                "And than one that starts from nothing.",
                right(DOCUMENTS, 8),
                right(SCRATCH, 8),
            ),
            Statement(
                "Frozen, it forgets nothing of what it did with words alone; tuned, it loses 5 points or more.",
                Read(DOCUMENTS, "right in words"),
                Read(TUNED, "right in words"),
                least=0.05,
            ),
            Statement(
                "Gates that begin closed end better than open ones.",
                right(DOCUMENTS, 8),
                right(OPEN, 8),
            ),
            Statement(
                "And begin better.",
                Read(OPEN, "early loss"),
                Read(DOCUMENTS, "early loss"),
            ),
        ),
        plots=(
            Plot(
                title="Held-out pairs of colour and shape, of four names",
                x="examples in the prompt",
                y="right",
                lines=tuple(Line(s, tuple((shots, right(s, shots)) for shots in SHOTS)) for s in SETTINGS),
            ),
        ),
        minutes=12,
    )
