"""ASIF: pairs alone make two networks comparable that never met, the more the better, and what is deleted is gone.

Norelli et al., "ASIF: Coupled Data Turns Unimodal Models to Multimodal Without Training", 2023.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rebus.core.outputs import Embeddings
from rebus.models.training_free.pairs import Pairs
from rebus.objectives import SoftmaxLoss
from rebus.reproduce.claim import Claim, Line, Plot, Read, Statement
from rebus.reproduce.train_in_memory import fit, rows_at
from rebus.train.config import Optim

NUMBERS = (50, 200, 1_000, 5_000, 20_000)
DENSE, SHUFFLED, TRAINED, DELETED = "without sparsity", "shuffled", "trained dual encoder", "a class deleted"


def anchors(number: int) -> str:
    """The setting of so many anchors."""
    return f"{number:,} anchors"


@dataclass(frozen=True, kw_only=True)
class Budget:
    classes: int = 100
    latent: int = 32
    content: float = 0.8  # spread of what both sides of a pair share, around its class
    private: float = 0.6  # of what each has alone
    hidden: int = 256
    widths: tuple[int, int] = (96, 128)
    queries: int = 2_000
    numbers: tuple[int, ...] = NUMBERS
    k: int = 200
    p: float = 8.0
    dense: int = 5_000  # anchors with and without sparsity, shuffled, for the trained one and the deletion
    steps: int = 600  # of the trained one
    batch_size: int = 256
    embed: int = 64
    lr: float = 2e-3


class World(NamedTuple):
    """What the two frozen networks make of the same things: vectors (n, D), (n, E), classes (n,)."""

    image: Tensor
    text: Tensor
    label: Tensor


class Encoders:
    """Two different random networks of two layers that never met, over the same hidden world."""

    def __init__(self, budget: Budget, seed: int):
        draw = torch.Generator().manual_seed(seed)
        self.budget = budget
        self.centres = torch.randn(budget.classes, budget.latent, generator=draw)
        self.layers = [
            (
                torch.randn(budget.latent, budget.hidden, generator=draw) / budget.latent**0.5,
                torch.randn(budget.hidden, width, generator=draw) / budget.hidden**0.5,
            )
            for width in budget.widths
        ]

    def see(self, x: Tensor, side: int) -> Tensor:
        first, second = self.layers[side]
        return torch.tanh(torch.tanh(x @ first) @ second)

    def draw(self, number: int, seed: int) -> World:
        """Random pairs: a class, what both sides share of it, and on each side something of its own."""
        budget, draw = self.budget, torch.Generator().manual_seed(seed)
        label = torch.randint(budget.classes, (number,), generator=draw)
        shared = self.centres[label] + budget.content * torch.randn(number, budget.latent, generator=draw)
        sides = [shared + budget.private * torch.randn(number, budget.latent, generator=draw) for _ in range(2)]
        return World(self.see(sides[0], 0), self.see(sides[1], 1), label)

    def prompts(self) -> Tensor:
        """The text of each class's name: its centre, with nothing of its own."""
        return self.see(self.centres, 1)


class Heads(nn.Module):
    """A dual encoder on the same frozen networks: two layers on either side, trained by matching pairs."""

    def __init__(self, budget: Budget):
        super().__init__()
        self.sides = nn.ModuleList(
            nn.Sequential(nn.Linear(w, budget.hidden), nn.GELU(), nn.Linear(budget.hidden, budget.embed))
            for w in budget.widths
        )
        self.log_scale = nn.Parameter(torch.tensor(1 / 0.07).log())

    def embed(self, vectors: Tensor, side: int) -> Tensor:
        return nn.functional.normalize(self.sides[side](vectors), dim=-1)

    def forward(self, image: Tensor, text: Tensor) -> Embeddings:
        return Embeddings(self.embed(image, 0), self.embed(text, 1), self.log_scale.exp())


def measure(budget: Budget, setting: str, seed: int) -> dict[str, float]:
    """Accuracy of naming held-out images among all classes, in one setting."""
    encoders = Encoders(budget, 10 * seed)
    test, prompts = encoders.draw(budget.queries, 10 * seed + 1), encoders.prompts()
    number = next((n for n in budget.numbers if anchors(n) == setting), budget.dense)
    pairs = encoders.draw(number, 10 * seed + 2)
    if setting == TRAINED:
        return {"accuracy": _accuracy(_trained(budget, pairs, seed)(test.image, prompts), test.label)}
    text = pairs.text
    if setting == SHUFFLED:
        text = text[torch.randperm(number, generator=torch.Generator().manual_seed(10 * seed + 3))]
    k, p = (number, 1.0) if setting == DENSE else (budget.k, budget.p)
    table = Pairs.of(pairs.image, text, k=k, p=p)
    scores = table(test.image, prompts)
    found = {"accuracy": _accuracy(scores, test.label), "chance": 1 / budget.classes}
    if setting == SHUFFLED:
        found["three times chance"] = 3 / budget.classes
    return found | (_deletion(table, pairs, test, prompts, scores) if setting == DELETED else {})


def _deletion(table: Pairs, pairs: World, test: World, prompts: Tensor, before: Tensor) -> dict[str, float]:
    """The figures of a class, the first, and of the others, before and after its pairs are removed."""
    table.remove([str(row) for row in (pairs.label == 0).nonzero()[:, 0].tolist()])
    after = table(test.image, prompts)
    mine = test.label == 0
    return {
        "accuracy": _accuracy(after, test.label),
        "its recall before": _accuracy(before[mine], test.label[mine]),
        "its recall after": _accuracy(after[mine], test.label[mine]),
        "others before": _accuracy(before[~mine], test.label[~mine]),
        "others after": _accuracy(after[~mine], test.label[~mine]),
    }


def _trained(budget: Budget, pairs: World, seed: int) -> Any:
    """Scores of a dual encoder whose heads learned from the same pairs."""
    heads = Heads(budget)

    def batch_at(index: int) -> dict[str, Tensor]:
        rows = rows_at(seed, index, budget.batch_size, len(pairs.image))
        return {"image": pairs.image[rows], "text": pairs.text[rows]}

    fit(heads, SoftmaxLoss(), batch_at, Optim(lr=budget.lr, warmup=min(50, budget.steps // 2)), budget.steps)

    @torch.no_grad()
    def scores(image: Tensor, text: Tensor) -> Tensor:
        return heads.embed(image, 0) @ heads.embed(text, 1).T

    return scores


def _accuracy(scores: Tensor, label: Tensor) -> float:
    return float((scores.argmax(1) == label).float().mean())


BUDGET = Budget()


def asif(budget: Budget = BUDGET) -> Claim:
    few, some, many = anchors(budget.numbers[0]), anchors(budget.dense), anchors(budget.numbers[-1])
    settings = (*map(anchors, budget.numbers), DENSE, SHUFFLED, TRAINED, DELETED)
    return Claim(
        name="asif",
        paper="Norelli et al., 2023 (ASIF), Table 1 and Sec. 3.",
        says="Two frozen encoders and 1.6 million pairs, nothing trained, name 60.9% of ImageNet; accuracy grows "
        "with the pairs and has not levelled off; keeping few similarities and raising them to a power helps; "
        "removing pairs makes the model forget what they showed.",
        here=f"Two different random networks of two layers look at the same {budget.classes} classes in "
        f"{budget.latent} hidden dimensions, each with noise of its own. Held-out images are named among all "
        f"classes by the text of each class's centre. k {budget.k} (all, where there are fewer), p "
        f"{budget.p:g}. The dual encoder is two layers on either frozen network, trained by a softmax over "
        f"{budget.dense:,} pairs, which ASIF has, too.",
        settings=settings,
        seeds=(1, 2, 3),
        budget=budget,
        measure=measure,
        table=("accuracy", "chance", "its recall before", "its recall after", "others before", "others after"),
        statements=(
            Statement(
                f"{some} name 30 points more than {few}, or better.",
                Read(some, "accuracy"),
                Read(few, "accuracy"),
                least=0.3,
            ),
            Statement(f"{many} name still more than {some}.", Read(many, "accuracy"), Read(some, "accuracy")),
            Statement(
                "Keeping the nearest alone, raised to a power, is better than all similarities as they are.",
                Read(some, "accuracy"),
                Read(DENSE, "accuracy"),
            ),
            Statement(
                "Not more than ten points behind a dual encoder trained on the same pairs.",
                Read(some, "accuracy"),
                Read(TRAINED, "accuracy"),
                least=-0.1,
            ),
            Statement(
                "A class whose pairs are removed loses 60 points of its recall, or more.",
                Read(DELETED, "its recall before"),
                Read(DELETED, "its recall after"),
                least=0.6,
            ),
            Statement(
                "The other classes lose no more than one point.",
                Read(DELETED, "others after"),
                Read(DELETED, "others before"),
                least=-0.01,
            ),
            Statement(
                "With captions shuffled among the images, no more than three times chance is left.",
                Read(SHUFFLED, "three times chance"),
                Read(SHUFFLED, "accuracy"),
            ),
        ),
        plots=(
            Plot(
                title="ASIF: accuracy and anchors",
                x="anchors",
                y="accuracy",
                lines=(
                    Line("ASIF", tuple((float(n), Read(anchors(n), "accuracy")) for n in budget.numbers)),
                    Line(DENSE, ((float(budget.dense), Read(DENSE, "accuracy")),)),
                    Line(TRAINED, ((float(budget.dense), Read(TRAINED, "accuracy")),)),
                    Line(SHUFFLED, ((float(budget.dense), Read(SHUFFLED, "accuracy")),)),
                ),
                log_x=True,
            ),
            Plot(
                title="A class forgotten",
                x="",
                y="accuracy",
                lines=(
                    Line("the class", tuple((w, Read(DELETED, f"its recall {w}")) for w in ("before", "after"))),
                    Line("the others", tuple((w, Read(DELETED, f"others {w}")) for w in ("before", "after"))),
                ),
            ),
        ),
        minutes=1.7,
    )
