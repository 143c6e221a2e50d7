"""Test a paper's central claim at small scale, with several seeds, by a rule fixed in advance.

Results are saved as they come, in --out or in the cache: the same command resumes an interrupted run.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rebus.cli.arguments import positive
from rebus.cli.output import bar, bold, emit, note, say, table
from rebus.cli.output_files import check_folder
from rebus.reproduce import CLAIMS, find

EXAMPLE = "rebus reproduce siglip --out reproduced/siglip"
_MOST_JOBS = 4  # each takes half a gigabyte


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("claim", metavar="CLAIM", nargs="?", help=f"one of {', '.join(CLAIMS)}; without it, a list")
    parser.add_argument("--list", action="store_true", help="list the claims and exit")
    parser.add_argument(
        "--out", metavar="DIR", type=Path, help="where results.json, report.md and figures.png are written"
    )
    parser.add_argument(
        "--jobs", metavar="N", type=positive, help="processes, one thread each (default: number of cores, up to 4)"
    )


def more_help(claims: Sequence[str]) -> None:
    """`rebus reproduce CLAIM --help` describes the claim and the measurement."""
    for name in [word for word in claims if word in CLAIMS][:1]:
        claim = find(name)
        say()
        say(bold(claim.paper))
        say(claim.says)
        say(claim.here)
        for statement in claim.statements:
            say(f"  {statement.says} ({statement.rule})")


def run(args: argparse.Namespace) -> int:
    if args.claim is None or args.list:
        return _list(args.json)
    claim = find(args.claim)
    if args.out is not None:
        check_folder(args.out, create=True)
    return _reproduce(args, claim, args.out or _cache(claim))


def _list(as_json: bool) -> int:
    if as_json:
        emit([{"name": name, "claim": what} for name, what in CLAIMS.items()])
        return 0
    for line in table(("claim", "what is claimed"), CLAIMS.items()):
        say(line)
    return 0


def _cache(claim: Any) -> Path:
    """Of its own for each version of a claim, so that numbers of different code never mix."""
    from rebus.core.cache import cache_home
    from rebus.reproduce.run_claim import stamp

    return cache_home() / "reproduce" / f"{claim.name}-{stamp(claim)}"


def _reproduce(args: argparse.Namespace, claim: Any, folder: Path) -> int:
    from rebus.reproduce.report import summary
    from rebus.reproduce.run_claim import begun, run

    number = len(claim.settings) * len(claim.seeds)
    done = len(begun(claim, folder)["cells"])
    if done:
        what = "all measured already" if done == number else "resuming"
        note(f"{folder}: {what}, {done} of {number} cells are done")
    else:
        measured = claim.minutes is not None
        lasts = f"about {claim.minutes:.0f} minutes of one core" if measured else "not run at this size yet"
        note(f"{number} cells; {lasts}. Kept in {folder}")
    kept = done
    try:
        with bar(claim.name, number, done=done) as progress:

            def report(cell: tuple[str, int], cells: int) -> None:
                nonlocal kept
                kept = cells
                progress.advance(f"{cell[0]}, seed {cell[1]}")

            found = run(claim, folder, args.jobs or _jobs(number - done), report)
    except KeyboardInterrupt:
        note(f"interrupted; {kept} of {number} cells are saved in {folder}. Run the same command to resume")
        return 130
    _write(args.out, claim, found)
    if args.json:
        emit(summary(claim, found))
    else:
        _say(claim, found)
    return 0


def _jobs(cells: int) -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, cells, _MOST_JOBS))


def _write(out: Path | None, claim: Any, found: dict[str, Any]) -> None:
    from rebus.reproduce.report import NO_PLOT, image, page, summary
    from rebus.reproduce.run_claim import RESULTS, document, write

    if out is None:
        return
    drawn = image(claim, found)
    if drawn is None:
        note(NO_PLOT)
    else:
        write(out / "figures.png", drawn)
    write(out / "report.md", page(claim, found, "figures.png" if drawn else None).encode())
    write(out / RESULTS, document(summary(claim, found)))


def _say(claim: Any, found: dict[str, Any]) -> None:
    from rebus.reproduce.claim import together
    from rebus.reproduce.report import figures, told, verdicts

    rows = list(figures(claim, found))
    for line in table(("setting", "figure", "mean ± spread", "each seed"), rows):
        say(line)
    say()
    say(f"{bold('the paper')}  {claim.paper} {claim.says}")
    say(f"{bold('here')}  {claim.here}")
    judged = verdicts(claim, found)
    for verdict in judged:
        say(f"  {verdict.outcome:<14}{verdict.statement.says} {told(verdict)}")
    say(f"{bold(claim.name)}: {together(judged)}")
