"""A claim that costs nothing, for what all claims share. In a file of its own, since processes of cells import it."""

from dataclasses import dataclass

import torch

from rebus.core.errors import RebusError
from rebus.reproduce.claim import Claim, Line, Plot, Read, Statement


@dataclass(frozen=True)
class Budget:
    numbers: int = 4
    fails: bool = False


def measure(budget: Budget, setting: str, seed: int) -> dict[str, float]:
    if budget.fails and seed == 2:
        raise RebusError("no such luck")
    drawn = torch.randn(budget.numbers).mean().item()
    return {"score": drawn / 100 + (1.0 if setting == "ours" else 0.5), "threads": float(torch.get_num_threads())}


def claim(budget: Budget | None = None, seeds: tuple[int, ...] = (1, 2, 3), least: float = 0.0) -> Claim:
    scores = Read("ours", "score"), Read("theirs", "score")
    return Claim(
        name="made_up",
        paper="Nobody, 1999.",
        says="Ours is better.",
        here="Numbers drawn by lot.",
        settings=("ours", "theirs"),
        seeds=seeds,
        budget=budget or Budget(),
        measure=measure,
        table=("score",),
        statements=(
            Statement("Ours is above theirs.", *scores, least=least),
            Statement("Ours is 1.5 times theirs.", *scores, by="times", least=1.5),
        ),
        plots=(
            Plot("Scores", "way", "score", (Line("score", (("ours", scores[0]), ("theirs", scores[1]))),)),
            Plot("Again", "x", "score", (Line("a", ((1, scores[0]), (2, scores[1]))), Line("b", ((1, scores[1]),)))),
        ),
        minutes=0.1,
    )
