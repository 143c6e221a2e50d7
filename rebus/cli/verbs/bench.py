"""How fast a model is on this machine: pictures, texts and tokens a second, medians over repeated runs."""

import argparse

from rebus.cli.arguments import add_placement, positive
from rebus.cli.choosing import open_model
from rebus.cli.output import bold, emit, say

EXAMPLE = "rebus bench clip/b32 --dtype bfloat16 --batch-size 16"
_SAID = {
    "prepared_pictures_per_second": ("photo to tensor", "{:,.0f} pictures/s"),
    "pictures_per_second": ("embed pictures", "{:,.1f} pictures/s"),
    "one_picture_ms": ("one picture", "{:,.1f} ms"),
    "texts_per_second": ("embed texts", "{:,.1f} texts/s"),
    "first_token_ms": ("first token", "{:,.1f} ms"),
    "tokens_per_second": ("write", "{:,.1f} tokens/s"),
    "batch_tokens_per_second": ("write, in batches", "{:,.1f} tokens/s"),
}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="catalogue name, directory or Hub id")
    parser.add_argument("--batch-size", metavar="N", type=positive, default=8, help="rows at a time (%(default)s)")
    parser.add_argument("--runs", metavar="N", type=positive, default=5, help="runs for each median (%(default)s)")
    add_placement(parser)


def run(args: argparse.Namespace) -> int:
    model = open_model(args, None)
    from rebus.evaluate.bench import bench

    found = bench(model, batch_size=args.batch_size, runs=args.runs)
    if args.json:
        emit({"model": model.card.name, "quantize": args.quantize, "compile": args.compile, **found})
        return 0
    changes = [args.quantize or "", "compiled" if args.compile else ""]
    how = ", ".join(part for part in (found["device"], found["dtype"], *changes) if part)
    say(bold(f"{model.card.name} ({how}; {found['threads']} threads, batches of {found['batch_size']})"))
    for name, (title, form) in _SAID.items():
        if name in found:
            say(f"  {title:<20}{form.format(found[name])}")
    say(f"  {'peak memory':<20}{found['peak_memory_bytes'] / 2**20:,.0f} MiB, the whole process")
    return 0
