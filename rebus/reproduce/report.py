"""The results of a claim as a table, a page and an image."""

import io
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from rebus.reproduce.claim import Claim, Measured, Plot, Verdict, centre, judge, together
from rebus.reproduce.run_claim import table

NO_PLOT = 'matplotlib is not installed, so the plots are left out: pip install "rebus-vlm[report]"'


def verdicts(claim: Claim, found: dict[str, Any]) -> list[Verdict]:
    """Each statement of the claim, judged."""
    measured = table(found)
    return [judge(statement, measured, claim.seeds) for statement in claim.statements]


def summary(claim: Claim, found: dict[str, Any]) -> dict[str, Any]:
    """The one document: everything measured, and what follows from it."""
    judged = verdicts(claim, found)
    return {
        **found,
        "paper": claim.paper,
        "says": claim.says,
        "here": claim.here,
        "statements": [
            {
                "says": v.statement.says,
                "rule": v.statement.rule,
                "values": dict(zip(map(str, claim.seeds), v.values, strict=True)),
                "mean": v.mean,
                "spread": v.spread,
                "outcome": v.outcome,
            }
            for v in judged
        ],
        "verdict": together(judged),
        "holds": all(v.outcome == "holds" for v in judged),
        "cpu_minutes": round(sum(cell["cpu_seconds"] for cell in found["cells"]) / 60, 2),
    }


def figures(claim: Claim, found: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """(setting, figure, mean ± spread, every seed's value) of those that the claim prints."""
    measured = table(found)
    for setting in claim.settings:
        for name in claim.table:
            values = [measured[setting][seed][name] for seed in claim.seeds if name in measured[setting][seed]]
            if values:
                yield setting, name, spread_out(values), " ".join(number(v) for v in values)


def spread_out(values: Sequence[float]) -> str:
    mean, spread = centre(values)
    return f"{number(mean)} ± {number(spread)}"


def number(value: float) -> str:
    """Three decimals for shares, whole numbers where those say enough."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"


def page(claim: Claim, found: dict[str, Any], plot: str | None) -> str:
    """Markdown. `plot` is the name of the image beside it."""
    judged = verdicts(claim, found)
    minutes = sum(cell["cpu_seconds"] for cell in found["cells"]) / 60
    rows = ["| " + " | ".join(row) + " |" for row in figures(claim, found)]
    lines = [
        f"# {claim.name}: {together(judged)}",
        "",
        f"**The paper.** {claim.paper} {claim.says}",
        "",
        f"**Here.** {claim.here}",
        "",
        *[f"- **{v.outcome}**: {v.statement.says} {told(v)}" for v in judged],
        "",
        "A statement holds where every seed is above the bound and the mean still is with the spread taken off.",
        "",
        "| setting | figure | mean ± spread | each seed |",
        "| --- | --- | --- | --- |",
        *rows,
        "",
        f"![the figures]({plot})" if plot else NO_PLOT,
        "",
        f"`rebus reproduce {claim.name}` · seeds {', '.join(map(str, claim.seeds))} · {minutes:.1f} minutes of one "
        f"core · rebus {found['rebus']}, torch {found['torch']}",
    ]
    return "\n".join(lines) + "\n"


def told(verdict: Verdict) -> str:
    """The numbers behind an outcome."""
    return f"({verdict.statement.rule}: {number(verdict.mean)} ± {number(verdict.spread)})"


def image(claim: Claim, found: dict[str, Any]) -> bytes | None:
    """PNG; None without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    measured = table(found)
    sheet = Figure(figsize=(4.6 * len(claim.plots), 3.4), layout="constrained")
    for place, plot in enumerate(claim.plots, start=1):
        _draw(sheet.add_subplot(1, len(claim.plots), place), plot, measured, claim.seeds)
    buffer = io.BytesIO()
    sheet.savefig(buffer, format="png", dpi=75)
    return buffer.getvalue()


def _draw(axes: Any, plot: Plot, measured: Measured, seeds: Sequence[int]) -> None:
    beside = any(isinstance(x, str) for line in plot.lines for x, _ in line.points)
    for line in plot.lines:
        points = [centre([read.of(measured, seed) for seed in seeds]) for _, read in line.points]
        across = [x for x, _ in line.points]
        means, spreads = zip(*points, strict=True)
        axes.errorbar(
            across, means, spreads, label=line.label, marker="o", capsize=3, linestyle="none" if beside else "-"
        )
        if beside:  # names do not run into each other
            axes.set_xticks(range(len(across)), [textwrap.fill(str(x), 11) for x in across], fontsize="small")
    if beside and not plot.log_y and axes.get_ylim()[0] > 0:  # numbers that are compared by eye begin at nothing
        axes.set_ylim(bottom=0)  # after the last line, or what is above the first would be cut off
    axes.set(title=plot.title, xlabel=plot.x, ylabel=plot.y)
    if plot.log_x:
        axes.set_xscale("log", base=2)
    if plot.log_y:
        axes.set_yscale("log")
    axes.grid(alpha=0.3)
    if len(plot.lines) > 1:
        axes.legend(frameon=False, fontsize="small")
