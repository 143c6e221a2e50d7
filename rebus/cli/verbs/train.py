"""Train a model from a recipe. --out receives config.json, metrics.jsonl, checkpoints/ and final/.

The same command on the same directory resumes an interrupted run. On several GPUs, with the same recipe:
torchrun --nproc-per-node 8 -m rebus.cli train RECIPE --out DIR
"""

import argparse
import dataclasses
import json
import os
import sys
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rebus.cli.output import bar, bold, emit, note, say
from rebus.cli.output_files import check_folder
from rebus.core.errors import UsageError
from rebus.recipes import RECIPES, recipe

EXAMPLE = "rebus train clip_scenes --out runs/clip --set steps=500 --set optim.lr=1e-3"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", metavar="RECIPE", help=f"one of {', '.join(RECIPES)}")
    parser.add_argument("--out", metavar="DIR", type=Path, help="folder of the run")
    parser.add_argument(
        "--set", metavar="FIELD=VALUE", action="append", default=[], help="change one setting; may repeat"
    )
    parser.add_argument("--show", action="store_true", help="print the resolved settings as JSON and exit")
    parser.add_argument("--fields", action="store_true", help="list the fields of --set and exit")


def more_help(recipes: Sequence[str]) -> None:
    """`rebus train RECIPE --help` lists the recipe's fields too."""
    for name in [word for word in recipes if word in RECIPES][:1]:
        say()
        say(bold(f"fields of {name}:"))
        for path, kind, value in _fields(recipe(name)):
            say(f"  {path:<28}{value!s:<24}{kind}")


def run(args: argparse.Namespace) -> int:
    config: Any = recipe(args.recipe)
    from rebus.core.config import to_dict
    from rebus.train import override

    config = override(config, args.set)
    if args.show:
        emit(to_dict(config))
        return 0
    if args.fields:
        rows = list(_fields(config))
        if args.json:
            emit([{"field": path, "type": kind, "value": value} for path, kind, value in rows])
        else:
            for path, kind, value in rows:
                say(f"{path:<28}{value!s:<24}{kind}")
        return 0
    if args.out is None:
        raise UsageError(f"train needs --out DIR, the folder of the run: rebus train {args.recipe} --out runs/mine")
    check_folder(args.out, create=True)
    return _train(args, config)


def _train(args: argparse.Namespace, config: Any) -> int:
    from rebus.train import train
    from rebus.train.forgetting import shown
    from rebus.train.run_directory import check_claim
    from rebus.train.setup import resolved

    leads = os.environ.get("RANK", "0") == "0"  # the other ranks of torchrun keep silent
    folder = args.out / "checkpoints"
    done = _newest(folder)
    if done and leads:
        check_claim(resolved(config), args.out)
        after = "all" if done == config.steps else f"resuming after step {done:,} of"
        end = " steps are done already" if done == config.steps else ""
        note(f"{args.out}: {after} {config.steps:,}{end}")
    every = max(1, config.steps // 20)
    last: dict[str, Any] = {}
    try:
        with bar(args.recipe, config.steps, done=done, when=leads) as progress:

            def report(line: Mapping[str, Any]) -> None:
                last.update(line)
                progress.advance(_said(line))
                if not sys.stderr.isatty() and (line["step"] % every == 0 or line["step"] == config.steps):
                    held_out = f", held out {line['val_loss']:.4f}" if "val_loss" in line else ""
                    note(f"step {line['step']:,} of {config.steps:,}: loss {line['loss']:.4f}{held_out}")

            final = train(config, args.out, report)
    except KeyboardInterrupt:
        kept = _newest(folder)
        where = f"the checkpoint of step {kept:,} is saved. Run the same command to resume"
        if not kept:
            where = "there is no checkpoint yet. Run the same command to start again"
        if leads:
            note(f"interrupted at step {last.get('step', done):,}; {where}")
        return 130
    if not leads:
        return 0
    last = last or _last_line(args.out / "metrics.jsonl")
    changed = _changed(args.out)
    if args.json:
        emit({"recipe": args.recipe, "out": str(args.out), "final": str(final), **last, **changed})
    else:
        for name, both in changed.get("before_and_after", {}).items():
            changes = (f"{m} {shown(both['before'][m])} → {shown(value)}" for m, value in both["after"].items())
            note(f"{name}: {', '.join(changes)}")
        say(f"{final}")
        note(
            f"loss {shown(last['loss'])} at step {last['step']:,}. Load it: rebus.load({str(final)!r})"
            if last
            else "done"
        )
    return 0


def _newest(folder: Path) -> int:
    from rebus.train import checkpoint

    found = checkpoint.steps(folder) if folder.is_dir() else []
    return found[-1] if found else 0


def _said(line: Mapping[str, Any]) -> str:
    """What the bar tells of a step."""
    parts = [f"loss {line['loss']:.4f}", f"norm {line['norm']:.2f}", f"rate {line['lr']:.1e}"]
    parts += [f"{line['examples_per_second']:,.0f}/s"] if "examples_per_second" in line else []
    parts += [f"{line['mfu']:.0%} of the peak"] if "mfu" in line else []
    parts += [f"{line['memory_gb']:.1f} GB"] if "memory_gb" in line else []
    return " · ".join(parts)


def _changed(out: Path) -> dict[str, Any]:
    """What a fine-tuning changed."""
    file = out / "report.json"
    return {"before_and_after": json.loads(file.read_text())} if file.is_file() else {}


def _last_line(metrics: Path) -> dict[str, Any]:
    """Of a run that was finished before, so that nothing was reported."""
    try:
        found: dict[str, Any] = json.loads(metrics.read_text().splitlines()[-1])
    except (OSError, ValueError, IndexError):
        return {}
    return found


def _fields(config: Any, prefix: str = "") -> Iterator[tuple[str, str, Any]]:
    """(path, type, value) of every field, nested ones by their paths."""
    hints = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            yield from _fields(value, f"{prefix}{field.name}.")
        else:
            hint = hints[field.name]
            yield (
                prefix + field.name,
                hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", ""),
                value,
            )
