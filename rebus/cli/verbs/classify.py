"""Zero-shot classification: each image with its most probable labels, best first.

--move-to, --copy-to and --link-to sort images into one folder per label and never overwrite a file. --move-to also
writes a script that undoes the move.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rebus.cli.arguments import add_images, add_list, add_model, listed, positive
from rebus.cli.choose_model import open_model
from rebus.cli.example_arguments import add_examples, read_examples, shots_for
from rebus.cli.image_arguments import find_images, hopeless, work_through
from rebus.cli.output import say, shown
from rebus.cli.output_files import ResultFiles, add_results
from rebus.cli.sort_into_folders import Sorter, add_sorting
from rebus.core.answers import Ranking
from rebus.core.errors import UsageError

EXAMPLE = 'rebus classify photos/ --labels "a cat,a dog,a bicycle"'


def arguments(parser: argparse.ArgumentParser) -> None:
    add_images(parser)
    add_list(parser, "labels", "the labels to choose from")
    parser.add_argument(
        "--templates",
        metavar="TEXT",
        action="append",
        help="a prompt template with {} for the label, or a published set; may repeat",
    )
    parser.add_argument(
        "--top", metavar="N", type=positive, default=3, help="number of labels to print per image (%(default)s)"
    )
    parser.add_argument(
        "--multi", action="store_true", help="independent probability of each label (models with a sigmoid)"
    )
    add_examples(parser)
    add_sorting(parser)
    add_results(parser)
    add_model(parser, batch_size=8)


def run(args: argparse.Namespace) -> int:
    labels = listed(args, "labels")
    if labels is None and args.examples is None:
        raise UsageError('classify needs labels: --labels "a cat,a dog", or --labels-file FILE with one per line')
    examples = read_examples(args, "classify")
    if labels is None:
        labels = sorted({label for _, label in examples or ()})
    sorter = Sorter(args, labels)
    if sorter.way and args.sidecar:
        raise UsageError(f"give --sidecar, which writes next to the image, or --{sorter.way}-to, not both")
    files = find_images(args.images)
    files = [file for file, outside in zip(files, sorter.outside([file.path for file in files])) if outside]
    if not files:
        return 0
    results = ResultFiles(args, [file.path for file in files], lambda row: [_cells(row)])
    code = hopeless(files, args)
    if code is not None:
        return code
    model = open_model(args, "classify", by_examples=examples is not None)
    shots = shots_for(model, "classify", args, examples)
    templates = args.templates[0] if args.templates and len(args.templates) == 1 else args.templates
    classifier = model.classifier(labels, templates, multi=args.multi, examples=shots)
    width = max(len(shown(p.path)) for p in files)

    places: dict[str, Path | None] = {}

    def place(path: str, image: Any, ranking: Ranking) -> None:
        if sorter.way:
            places[path] = sorter.place(path, ranking.top, ranking.probabilities[0])

    def show(path: str, ranking: Ranking) -> None:
        best = [f"{shown(label)} {p:.1%}" for label, p in list(ranking)[: args.top]]
        place = f"  → {shown(str(places[path]))}" if places.get(path) else ""
        say(f"{shown(path):<{width}}  {'  '.join(best)}{place}")

    batch = work_through(
        files,
        classifier,
        show,
        lambda ranking: {"label": ranking.top, "ranking": ranking.to_json()},
        args,
        size=args.batch_size,
        draw=place,
        files=results,
    )
    for row in batch.rows:
        if row["image"] in places and "error" not in row:
            placed = places[row["image"]]
            row["placed"] = placed and str(placed)
    sorter.say_what_was_done()
    return batch.finish(args, model.card)


def _cells(row: Mapping[str, Any]) -> dict[str, Any]:
    """The best label with its probability: the row of a table."""
    placed = {"placed": row["placed"]} if "placed" in row else {}
    return {"label": row["label"], "probability": row["ranking"][0]["probability"], **placed}
