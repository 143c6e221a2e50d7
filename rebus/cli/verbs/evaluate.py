"""Evaluate a model on a benchmark, on held-out data.

`scenes` renders its own images; the others read data sets from disk: rebus eval MODEL BENCHMARK --help says which.
"""

import argparse
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rebus.cli.arguments import add_placement, positive
from rebus.cli.choose_model import open_model
from rebus.cli.dataset_arguments import add_root, name_damaged
from rebus.cli.output import bold, emit, note, say
from rebus.cli.output_files import check_folder
from rebus.core.errors import MissingFile, UsageError, unknown
from rebus.evaluate import BENCHMARKS
from rebus.evaluate.benchmarks import BENCHMARKS as ON_DISK

if TYPE_CHECKING:
    from rebus.api import Model
    from rebus.evaluate.measure import Result

EXAMPLE = "rebus eval asif/starter retrieval --data flickr8k --split val --out report"

_SCENES = 1000
_SHOWN = 12  # rows of a group on the terminal
_WHERE = ("data", "layout", "split", "root", "number", "seed", "batch_size")  # of every benchmark on disk
_OPTIONS = (  # of some
    "templates", "labels", "captions", "prompt", "num_beams", "max_new_tokens", "by", "together", "images", "support",
    "shots", "draws", "yes_no",
)  # fmt: skip
_FLAGS = {"labels": "labels_file", "together": "labels_at_once"}  # where an option is called otherwise


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="catalogue name, directory or Hub id")
    parser.add_argument("benchmark", metavar="BENCHMARK", help=", ".join(BENCHMARKS))
    parser.add_argument("--out", metavar="DIR", type=Path, help="a new folder for results.json, report.md and images")
    add_placement(parser)
    where = parser.add_argument_group("data")
    where.add_argument(
        "--data", metavar="PATH", help="the data set: a folder or a file; pope, spatial, zeroshot: or scenes"
    )
    where.add_argument("--layout", metavar="LAYOUT", help="its layout (default: auto-detected)")
    where.add_argument("--split", metavar="SPLIT", help="the split; scenes: test, val or novel (scenes: test)")
    add_root(where)
    where.add_argument(
        "--number", metavar="N", type=positive, help=f"number of records, random sample (all; scenes: {_SCENES})"
    )
    where.add_argument("--seed", metavar="N", type=int, help="random seed of the sample, and of few-shot draws (0)")
    where.add_argument("--batch-size", metavar="N", type=positive, help="images per batch (32)")
    some = parser.add_argument_group("options of some benchmarks")
    some.add_argument(
        "--objects",
        metavar="N",
        type=positive,
        help="scenes: alternate between 1 to N objects (default: 1 to 5 at random)",
    )
    some.add_argument(
        "--templates", metavar="NAME", help="zeroshot, fewshot: a published set, or a prompt template with {}"
    )
    some.add_argument(
        "--labels-file", metavar="FILE", help="zeroshot, fewshot: all labels, one per line; or label, tab, name"
    )
    some.add_argument("--captions", metavar="N", type=positive, help="retrieval: captions per image (5)")
    some.add_argument("--prompt", metavar="TEXT", help="captions, chair: the prompt (default: the model's own)")
    some.add_argument("--num-beams", metavar="N", type=positive, help="captions, chair: beam search")
    some.add_argument("--max-new-tokens", metavar="N", type=positive, help="captions, chair, vqa: max number of tokens")
    some.add_argument("--by", choices=("boxes", "masks"), help="detection, lvis (boxes), referring (both)")
    some.add_argument("--labels-at-once", metavar="N", type=positive, help="detection, lvis: labels per call (all)")
    some.add_argument("--images", metavar="DIR", help="pope, spatial: folder of the images, if elsewhere")
    some.add_argument(
        "--yes-no", choices=("official", "any-case"), help="pope: how answers are parsed (official: as its script does)"
    )
    some.add_argument("--support", metavar="SPLIT", help="fewshot, linear_probe: the training split (train)")
    some.add_argument("--shots", metavar="N,N", type=_numbers, help="fewshot: images per label (0,1,2,4,8,16)")
    some.add_argument("--draws", metavar="N", type=positive, help="fewshot: number of random draws (3)")


def more_help(words: Sequence[str]) -> None:
    """What a named benchmark reads."""
    from rebus.evaluate.measure import find

    for name in [word for word in words if word in ON_DISK]:
        say()
        say(f"{bold(name)} reads {find(name).READS}")


def run(args: argparse.Namespace) -> int:
    if args.benchmark not in BENCHMARKS:
        raise unknown("benchmark", args.benchmark, BENCHMARKS, f"Benchmarks: {', '.join(BENCHMARKS)}.")
    options = _scenes_options(args) if args.benchmark == "scenes" else _disk_options(args)
    if args.out is not None:
        from rebus.evaluate.report import check_free

        check_free(args.out)
        check_folder(args.out.absolute().parent, create=True)
    model = open_model(args, None)
    from rebus.evaluate.measure import measure, measure_scenes

    if args.benchmark == "scenes":
        if "imagine" in model.tasks:
            options["detector"] = _judge()
        result = measure_scenes(model, **options)
    else:
        result = measure(model, args.benchmark, options.pop("data"), **options)
    result.document.update(source=args.model, command=_command(args))
    if args.out is not None:
        from rebus.evaluate.report import write_report

        write_report(result, args.out)
        note(f"the report is in {args.out}")
    if args.json:
        emit(result.document)
    else:
        _show(result)
    return 0


def _scenes_options(args: argparse.Namespace) -> dict[str, Any]:
    given = [
        name for name in (*_WHERE, *_OPTIONS) if name not in ("number", "split") and _value(args, name) is not None
    ]
    if given:
        raise UsageError(
            f"{_flag(given[0])} does not apply to scenes, which renders its own images; it has --number, "
            "--split, --objects"
        )
    found = {"number": args.number or _SCENES, "split": args.split or "test"}
    return found if args.objects is None else {**found, "objects": args.objects}


def _judge() -> "Model":
    """Who says what is in a drawing."""
    from rebus.api import load
    from rebus.catalog import scene_judge

    name = scene_judge()
    note(f"generated images are checked by {name}")
    return load(name)


def _disk_options(args: argparse.Namespace) -> dict[str, Any]:
    """What was given, known to fit before a model is loaded."""
    from rebus.data.held_out_scenes import SCENES
    from rebus.evaluate.measure import find, of_scenes, options_of

    module = find(args.benchmark)
    options = {name: value for name in _OPTIONS if (value := _value(args, name)) is not None}
    has = [name for name in _OPTIONS if name in module.Options.__dataclass_fields__]
    for name in options:
        if name not in has:
            flags = ", ".join(map(_flag, has)) or "none of its own"
            raise UsageError(f"{_flag(name)} is not for {args.benchmark}, which has {flags}")
    if args.objects is not None:
        raise UsageError(f"--objects is for scenes, not for {args.benchmark}")
    if args.data is None:
        raise UsageError(f"{args.benchmark} needs --data PATH; it reads {module.READS}")
    if args.data == SCENES:
        of_scenes(args.benchmark, args.split)
    elif not os.path.exists(args.data):
        raise MissingFile(f"--data {args.data}: no such file or folder")
    if "labels" in options:
        options["labels"] = _labels(options["labels"])
    options_of(args.benchmark, options)
    return {name: value for name in _WHERE if (value := getattr(args, name)) is not None} | options


def _value(args: argparse.Namespace, name: str) -> Any:
    return getattr(args, _FLAGS.get(name, name))


def _flag(name: str) -> str:
    return "--" + _FLAGS.get(name, name).replace("_", "-")


def _labels(file: str) -> list[str] | dict[str, str]:
    """Candidates, one a line, or a table of labels and their names."""
    from rebus.cli.arguments import read_lines

    lines = [line for line in read_lines(file) if line]
    if not lines:
        raise UsageError(f"--labels-file {file}: it is empty")
    pairs = [line.split("\t") for line in lines]
    if all(len(pair) == 1 for pair in pairs):
        return lines
    for number, pair in enumerate(pairs, 1):
        if len(pair) != 2:
            raise UsageError(f"--labels-file {file}: label {number} should be a label, a tab and a name")
    return {label.strip(): name.strip() for label, name in pairs}


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected whole numbers, separated by commas; got {text!r}") from None


def _command(args: argparse.Namespace) -> str:
    """The command that repeats this one."""
    words = ["rebus", "eval", args.model, args.benchmark]
    for name, value in vars(args).items():
        if name in ("model", "benchmark", "out", "json", "help") or value is None or value is False:
            continue
        words.append(f"--{name.replace('_', '-')}")
        if value is not True:
            words.append(",".join(map(str, value)) if isinstance(value, tuple) else str(value))
    return shlex.join(words)


def _show(result: "Result") -> None:
    from rebus.evaluate.report import number

    document = result.document
    data = document["data"]
    of = f" of {data['split']!r}" if data["split"] else ""
    say(bold(f"{document['model']} on {document['benchmark']}, {data.get('used', data['records'])} images{of}"))
    for name, value in document["scores"].items():
        if isinstance(value, Mapping):
            say(f"  {name}")
            for kind, one in list(value.items())[:_SHOWN]:
                say(f"    {kind:<22}{number(one)}")
            if len(value) > _SHOWN:
                say(f"    … {len(value) - _SHOWN} more with --json or --out")
        else:
            say(f"  {name:<24}{number(value)}")
    for text in document["notes"]:
        say(f"  {text}")
    damaged = data.get("damaged", {"count": 0})
    if damaged["count"]:
        note(f"{damaged['count']:,} damaged records were skipped; the first: {damaged['first'][0]}")
    note(f"measured in {document['seconds']:.0f} s")
    name_damaged(data.get("damaged_files", ()))
