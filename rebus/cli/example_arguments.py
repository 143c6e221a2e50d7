"""`--examples` of the commands with few-shot prompts: records of a data set, put before each image."""

import argparse
import random
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from rebus.cli.arguments import positive
from rebus.cli.choose_model import choose
from rebus.cli.output import note
from rebus.core.errors import RebusError, UsageError

if TYPE_CHECKING:
    from rebus.api import Model
    from rebus.data.record import Record

SHOTS = 4
_CANDIDATES = 500  # records that the nearest are looked for among, or labels drawn from
_WANTED = {"caption": "a caption", "ask": "a question with an answer", "classify": "a label"}


def add_examples(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--examples",
        metavar="PATH",
        help="few-shot examples for the prompt: a folder per label, a table of images and texts, or any data set "
        "that `rebus data inspect` reads",
    )
    parser.add_argument("--shots", metavar="N", type=positive, help=f"number of examples per prompt ({SHOTS})")
    parser.add_argument(
        "--rices", action="store_true", help="choose for each image the most similar examples, most similar last"
    )


def read_examples(args: argparse.Namespace, task: str) -> list[tuple[Any, ...]] | None:
    """What `--examples` holds for a task: (image, caption), (image, question, answer) or (image, label), a fixed
    random sample; labels as balanced as possible. None where none was asked for.

    One that cannot be read is left out, saying so. Raises `UsageError` where there is none, or what `open_layout`
    raises.
    """
    if args.examples is None:
        if args.shots is not None or args.rices:
            raise UsageError("--shots and --rices need --examples PATH")
        return None
    found = _opened(args.examples, task)
    if not args.rices:
        number = SHOTS if args.shots is None else args.shots
        found = islice(_spread(found) if task == "classify" else found, number)
    examples = list(found)
    if not examples:
        raise UsageError(f"--examples {args.examples}: none of its records has an image and {_WANTED[task]}")
    return examples


def shots_for(model: "Model", task: str, args: argparse.Namespace, examples: Any, **how: Any) -> Any:
    """The examples for the prompt; with `--rices` those most similar to an image, by the best model on this
    machine that compares images."""
    if examples is None:
        return None
    if args.rices:
        from rebus.api import load

        name, why = choose("match")
        note(f"similarity by {name} ({why})")
        how |= {"encoder": load(name, device=args.device), "number": SHOTS if args.shots is None else args.shots}
    return model.shots(task, examples, **how)


def _opened(path: str, task: str) -> Iterator[tuple[Any, ...]]:
    """Examples with their images open, in an order drawn by lot."""
    from rebus.codec.images import open_image

    for record in _records(path):
        texts = _texts(record, task)
        if record.image is None or texts is None:
            continue
        try:
            yield open_image(record.image), *texts
        except RebusError as error:
            note(f"--examples: {record.key} is left out: {error}")


def _records(path: str) -> "Iterator[Record]":
    """Some records of a data set: of its training split, where it has one."""
    from rebus.data.inspecting import chosen
    from rebus.data.layouts import open_layout
    from rebus.data.record import BadRecord

    try:
        reader = open_layout(path, split="train")
    except UsageError:  # no splits, or none of this name
        reader = open_layout(path)
    places = chosen(reader.sizes, _CANDIDATES, seed=0)
    random.Random(0).shuffle(places)
    for block, row in places:
        try:
            yield reader.read(block, row)
        except BadRecord as error:
            note(f"--examples: left out: {error}")


def _texts(record: "Record", task: str) -> tuple[str, ...] | None:
    if task == "caption":
        return record.captions[:1] or None
    if task == "classify":
        return None if record.label is None else (record.label,)
    return next(((asked.text, asked.answers[0]) for asked in record.questions if asked.answers), None)


def _spread(examples: Iterator[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    """One of each label, then another of each, and so on."""
    by_label: dict[str, list[tuple[Any, ...]]] = {}
    for example in examples:
        by_label.setdefault(example[-1], []).append(example)
    longest = max(map(len, by_label.values()), default=0)
    return (own[turn] for turn in range(longest) for own in by_label.values() if turn < len(own))
