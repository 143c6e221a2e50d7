"""Compare models on your own images: answers, quality, time, memory, as a report.

Each model runs in a process of its own and sees the images in the same order. With --truth the report says which
differences are more than chance; without it, where the models disagree.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rebus import catalog
from rebus.cli.arguments import add_images, add_list, listed
from rebus.cli.choose_model import cached_names, where
from rebus.cli.image_arguments import find_images, hopeless
from rebus.cli.output import bar, bold, emit, note, say, table
from rebus.cli.output_files import check_folder
from rebus.core.card import PHOTOS
from rebus.core.errors import MissingFile, UsageError

if TYPE_CHECKING:
    from rebus.compare import Comparison

EXAMPLE = 'rebus compare photos/ --models asif/starter,clip/b32 --task classify --labels "a cat,a dog" --out report'


def arguments(parser: argparse.ArgumentParser) -> None:
    from rebus.compare.question import NEEDS

    add_images(parser)
    parser.add_argument("--task", metavar="TASK", required=True, help=", ".join(NEEDS))
    add_list(parser, "models", "catalogue names, directories or Hub ids (all on this machine that do it on photos)")
    add_list(parser, "labels", "classify, detect: the labels")
    parser.add_argument("--question", metavar="TEXT", help="ask: the question")
    parser.add_argument("--phrase", metavar="TEXT", help="segment: what to find")
    parser.add_argument("--threshold", metavar="S", type=float, help="detect: only boxes of this score or more (0.3)")
    parser.add_argument(
        "--truth", metavar="CSV", help="the ground truth: a table with a column image; or the word folders"
    )
    parser.add_argument("--budget", metavar="TIME", type=_seconds, help="for each model's answers, such as 60s or 5m")
    parser.add_argument("--out", metavar="REPORT", type=Path, help="a new folder for the report and all answers")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="of the order of images (%(default)s)")
    parser.add_argument("--device", metavar="DEVICE", help="cpu, cuda, mps, … (default: the GPU where there is one)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="of the weights")
    parser.add_argument("--quantize", choices=("int8", "int4"), help="integer weights")


def run(args: argparse.Namespace) -> int:
    from rebus.compare import compare

    models = listed(args, "models") or _models_here(args.task)
    for name in models:
        card = catalog.find(name)  # a misspelt name is found out now
        if card is not None and args.task not in card.tasks:
            raise UsageError(
                f"{name} cannot {args.task}; models that can: {', '.join(catalog.models_that_can(args.task))}"
            )
    if args.out is not None:
        from rebus.evaluate.report import check_free

        check_free(args.out)
        check_folder(args.out.absolute().parent, create=True)
    found = find_images(args.images)
    code = hopeless(found, args)
    if code is not None:
        return code
    for image in found:
        if image.error is not None:
            note(str(image.error))
    paths = [image.path for image in found if image.error is None]
    with bar("images", len(paths) * len(models)) as progress:
        comparison = compare(
            paths,
            models,
            args.task,
            labels=listed(args, "labels") or (),
            question=args.question,
            phrase=args.phrase,
            threshold=args.threshold,
            truth=args.truth,
            device=args.device,
            dtype=args.dtype,
            quantize=args.quantize,
            budget=args.budget,
            seed=args.seed,
            tell=progress.advance,
        )
    summary = comparison.save(args.out) if args.out is not None else comparison.summary()
    if args.json:
        emit({**summary, "answers": [*comparison.answers()]})
    else:
        _show(comparison, summary)
    if args.out is not None:
        note(f"the report is in {args.out / 'report.html'}")
    return 1 if len(paths) < len(found) or any(run.error is not None or run.faults for run in comparison.runs) else 0


def _models_here(task: str) -> list[str]:
    """Those that know photos and need no download."""
    cached = cached_names()
    able = [card for card in catalog.cards() if task in card.tasks and card.ready and card.domain == PHOTOS]
    here = [card.name for card in able if where(card, cached) in ("cached", "installed")]
    if not here:
        raise MissingFile(f"no model on this machine can {task} photos; name some: --models A,B")
    note(f"comparing {', '.join(here)}: all on this machine that can {task} photos")
    return here


def _seconds(text: str) -> float:
    units = {"s": 1, "m": 60, "h": 3600}
    number, unit = (text[:-1], units[text[-1]]) if text[-1:] in units else (text, 1)
    try:
        value = float(number) * unit
    except ValueError:
        value = 0.0
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"expected a time such as 60s, 5m or 1h; got {text!r}")
    return value


def _show(comparison: "Comparison", summary: dict[str, Any]) -> None:
    scored = summary["score"] is not None
    head = ["model", *([summary["score"]] if scored else []), "an image", "first answer", "peak memory", ""]
    rows = []
    for model in summary["models"]:
        state = model["status"] if model["status"] != "complete" else "★" if model["pareto"] else ""
        score = [_said(model["score"], "{:.3f}")] if scored else []
        rows.append(
            [
                model["model"],
                *score,
                _said(model["seconds_per_image"], "{:.3f} s"),
                _said(model["first_answer_seconds"], "{:.1f} s"),
                _said(model["peak_memory_bytes"], "{:,.0f} MB", 1e-6),
                state,
            ]
        )
    for line in table(head, rows, right=range(1, len(head) - 1)):
        say(line)
    say()
    for line in summary["conclusions"]:
        say(line)
    if len(comparison.images) <= 3:
        for number in comparison.by_disagreement():
            say()
            say(bold(comparison.images[number]))
            for run in comparison.runs:
                answer = run.answers.get(number)
                said = comparison.question.said(answer) if answer is not None else run.faults.get(number, "no answer")
                say(f"  {run.model:<24}{said}")


def _said(value: float | None, form: str, scale: float = 1) -> str:
    return "–" if value is None else form.format(value * scale)
