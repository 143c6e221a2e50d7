"""Caption images."""

import argparse

from rebus.cli.arguments import add_decoding, add_images, add_model, decoding
from rebus.cli.choose_model import open_model
from rebus.cli.example_arguments import add_examples, read_examples, shots_for
from rebus.cli.image_arguments import find_images, hopeless, work_through
from rebus.cli.output import say, shown
from rebus.cli.output_files import ResultFiles, add_results

EXAMPLE = "rebus caption photos/*.jpg --model paligemma/3b-mix-224"


def arguments(parser: argparse.ArgumentParser) -> None:
    add_images(parser)
    parser.add_argument("--prompt", metavar="TEXT", help="the prompt (default: the model's own)")
    add_examples(parser)
    add_results(parser)
    add_decoding(parser)
    add_model(parser, batch_size=1)


def run(args: argparse.Namespace) -> int:
    files = find_images(args.images)
    results = ResultFiles(args, [file.path for file in files])
    code = hopeless(files, args)
    if code is not None:
        return code
    examples = read_examples(args, "caption")
    model = open_model(args, "caption", by_examples=examples is not None)
    shots = shots_for(model, "caption", args, examples, prompt=args.prompt)
    batch = work_through(
        files,
        lambda images: model.caption(images, prompt=args.prompt, examples=shots, **decoding(args)),
        lambda path, text: say(text if len(files) == 1 else f"{shown(path)}: {text}"),
        lambda text: {"caption": text},
        args,
        size=args.batch_size,
        files=results,
    )
    return batch.finish(args, model.card)
