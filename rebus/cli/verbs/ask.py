"""Answer a question about each image."""

import argparse

from rebus.cli.arguments import add_decoding, add_images, add_model, add_regions, decoding
from rebus.cli.choose_model import open_model
from rebus.cli.example_arguments import add_examples, read_examples, shots_for
from rebus.cli.image_arguments import find_images, hopeless, work_through
from rebus.cli.output import say, shown
from rebus.cli.output_files import ResultFiles, add_results
from rebus.core.errors import UsageError

EXAMPLE = 'rebus ask kitchen.jpg "how many chairs are there?"'


def arguments(parser: argparse.ArgumentParser) -> None:
    add_images(parser)
    add_regions(parser)
    parser.add_argument("question", metavar="QUESTION", help="the question")
    add_examples(parser)
    add_results(parser)
    add_decoding(parser)
    add_model(parser, batch_size=1)


def run(args: argparse.Namespace) -> int:
    if not args.question.strip():
        raise UsageError("the question is empty")
    files = find_images(args.images)
    results = ResultFiles(args, [file.path for file in files])
    code = hopeless(files, args)
    if code is not None:
        return code
    examples = read_examples(args, "ask")
    model = open_model(args, "ask", by_examples=examples is not None)
    shots = shots_for(model, "ask", args, examples)
    batch = work_through(
        files,
        lambda images: model.ask(images, [args.question] * len(images), examples=shots, **decoding(args)),
        lambda path, text: say(text if len(files) == 1 else f"{shown(path)}: {text}"),
        lambda text: {"answer": text},
        args,
        size=args.batch_size,
        files=results,
    )
    return batch.finish(args, model.card, question=args.question)
