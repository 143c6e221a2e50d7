"""What a paper claims, what is measured here in its place, and the rule by which it holds: all fixed beforehand.

A rule compares two figures of the same seed. The statement holds where every seed's number is above `least` and the
mean still is with the spread taken off; it does not where the mean is not above; anything between is "unclear".
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

Figures = Mapping[str, float]
Measured = Mapping[str, Mapping[int, Figures]]  # by setting, then by seed
Outcome = Literal["holds", "unclear", "does not hold"]


class Read(NamedTuple):
    """Where a number stands: a figure of a setting."""

    setting: str
    figure: str

    def of(self, measured: Measured, seed: int) -> float:
        return measured[self.setting][seed][self.figure]


@dataclass(frozen=True)
class Statement:
    """`of` minus `against`, or divided by it ("times"), is above `least`. `against` may be a plain number."""

    says: str
    of: Read
    against: Read | float
    by: Literal["minus", "times"] = "minus"
    least: float = 0.0

    def value(self, measured: Measured, seed: int) -> float:
        one = self.of.of(measured, seed)
        other = self.against.of(measured, seed) if isinstance(self.against, Read) else self.against
        return one - other if self.by == "minus" else one / max(other, 1e-12)

    @property
    def rule(self) -> str:
        """The rule as text."""
        sign = "−" if self.by == "minus" else "/"
        other = " of ".join(reversed(self.against)) if isinstance(self.against, Read) else f"{self.against:g}"
        return f"{self.of.figure} of {self.of.setting} {sign} {other} > {self.least:g}"


@dataclass(frozen=True)
class Line:
    """A line of a plot: (x, where y is read). Where x is words, they stand side by side and nothing joins them."""

    label: str
    points: tuple[tuple[float | str, Read], ...]


@dataclass(frozen=True)
class Plot:
    title: str
    x: str
    y: str
    lines: tuple[Line, ...]
    log_x: bool = False
    log_y: bool = False


@dataclass(frozen=True)
class Claim:
    """One central claim of a paper, in miniature.

    `measure(budget, setting, seed)` gives the figures of one cell; it must depend on its arguments alone.
    """

    name: str
    paper: str
    says: str  # the paper's claim, its figures, and where they stand
    here: str  # what is done instead
    settings: tuple[str, ...]
    seeds: tuple[int, ...]
    budget: Any  # a frozen dataclass: steps, sizes, rates
    measure: Callable[[Any, str, int], dict[str, float]]
    table: tuple[str, ...]  # the figures that are printed; all of them are in results.json
    statements: tuple[Statement, ...]
    plots: tuple[Plot, ...]
    minutes: float | None  # of one core, measured; None: not run at this size yet
    revision: int = 1  # of the code behind `measure`: a new number where it gives other numbers, so that old and new
    # cells are never mixed


class Verdict(NamedTuple):
    statement: Statement
    values: tuple[float, ...]  # a seed each
    mean: float
    spread: float
    outcome: Outcome


def judge(statement: Statement, measured: Measured, seeds: Sequence[int]) -> Verdict:
    """Apply the rule."""
    values = tuple(statement.value(measured, seed) for seed in seeds)
    mean, spread = centre(values)
    outcome: Outcome = "unclear"
    if mean <= statement.least:
        outcome = "does not hold"
    elif min(values) > statement.least and mean - spread > statement.least:
        outcome = "holds"
    return Verdict(statement, values, mean, spread, outcome)


def together(verdicts: Sequence[Verdict]) -> str:
    """The claim as a whole: "holds", "does not hold", or "holds in part (2 of 3)"."""
    good = sum(v.outcome == "holds" for v in verdicts)
    if good == len(verdicts):
        return "holds"
    return f"holds in part ({good} of {len(verdicts)})" if good else "does not hold"


def centre(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and standard deviation of the sample; 0 for a lone value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0
