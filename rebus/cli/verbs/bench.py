"""Measure the speed of a model on this machine: images, texts and tokens per second, medians over repeated runs.

With --train: complete training steps on synthetic batches, with the model's own objective, and their utilisation of the
machine.
"""

import argparse
from typing import TYPE_CHECKING, Any

from rebus.cli.arguments import add_placement, positive
from rebus.cli.choose_model import check_device, open_model
from rebus.cli.output import bold, emit, say
from rebus.core.errors import UsageError

if TYPE_CHECKING:
    from rebus.api import Model

EXAMPLE = "rebus bench clip/b32 --dtype bfloat16 --batch-size 16"
_SAID = {
    "prepared_images_per_second": ("photo to tensor", "{:,.0f} images/s"),
    "images_per_second": ("embed images", "{:,.1f} images/s"),
    "one_image_ms": ("one image", "{:,.1f} ms"),
    "texts_per_second": ("embed texts", "{:,.1f} texts/s"),
    "first_token_ms": ("first token", "{:,.1f} ms"),
    "tokens_per_second": ("write", "{:,.1f} tokens/s"),
    "batch_tokens_per_second": ("write, in batches", "{:,.1f} tokens/s"),
}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="catalogue name, directory or Hub id")
    parser.add_argument("--batch-size", metavar="N", type=positive, default=8, help="batch size (%(default)s)")
    parser.add_argument("--runs", metavar="N", type=positive, default=5, help="runs for each median (%(default)s)")
    parser.add_argument("--train", action="store_true", help="time training steps; needs no weights")
    parser.add_argument("--accumulate", metavar="N", type=positive, help="train: gradient accumulation steps (1)")
    parser.add_argument("--steps", metavar="N", type=positive, help="train: steps for the median (5)")
    add_placement(parser)


def run(args: argparse.Namespace) -> int:
    if args.train:
        return _train(args)
    for name in ("accumulate", "steps"):
        if getattr(args, name) is not None:
            raise UsageError(f"--{name} goes with --train")
    model = open_model(args, None)
    from rebus.evaluate.bench import bench

    found = bench(model, batch_size=args.batch_size, runs=args.runs)
    if args.json:
        emit({"model": model.card.name, "quantize": args.quantize, "compile": args.compile, **found})
        return 0
    changes = [args.quantize or "", "compiled" if args.compile else ""]
    how = ", ".join(part for part in (found["device"], found["dtype"], *changes) if part)
    say(bold(f"{model.card.name} ({how}; {_threads(found['threads'])}, batches of {found['batch_size']})"))
    say(f"  {'threads':<20}{found['threads']}: {found['threads_from']}")
    for name, (title, form) in _SAID.items():
        if name in found:
            say(f"  {title:<20}{form.format(found[name])}")
    say(f"  {'peak memory':<20}{found['peak_memory_bytes'] / 2**20:,.0f} MiB, the whole process")
    return 0


def _train(args: argparse.Namespace) -> int:
    if args.quantize or args.dtype == "float16":
        what = "--quantize" if args.quantize else "--dtype float16"
        raise UsageError(f"--train does not go with {what}: train in float32, or in bfloat16 (autocast)")
    model = _untrained(args)
    from rebus.cli.training_speed import training_speed

    found = training_speed(
        model.network,
        model.system,
        model.config,
        batch_size=args.batch_size,
        accumulate=args.accumulate or 1,
        steps=args.steps or 5,
        compile=args.compile,
        bf16=args.dtype == "bfloat16",
    )
    if args.json:
        emit({"model": model.card.name, "compile": args.compile, **found})
        return 0
    parts = "" if found["accumulate"] == 1 else f" in {found['accumulate']} parts"
    compiled = ", compiled" if args.compile else ""
    how = f"{found['device']}, {found['dtype']}{compiled}; {_threads(found['threads'])}"
    say(bold(f"training {model.card.name} ({how}, batches of {found['batch_size']}{parts})"))
    for title, text in _lines(found):
        say(f"  {title:<20}{text}")
    return 0


def _threads(number: int) -> str:
    return f"{number} thread{'s' * (number > 1)}"


def _lines(found: dict[str, Any]) -> list[tuple[str, str]]:
    peak, example = found["peak_flops"], found["flops_per_example"]
    return [
        ("objective", f"{found['objective']}, then AdamW on {found['trained']:,} numbers"),
        ("step", f"{found['seconds_per_step']:,.3f} s, the median of {found['steps']}"),
        ("examples", f"{found['examples_per_second']:,.2f} a second"),
        ("products", f"{example / 1e9:,.1f} GFLOP an example, {found['flops_per_second'] / 1e9:,.1f} GFLOP/s"),
        ("utilisation", f"{found['utilisation']:.0%} of {peak / 1e9:,.0f} GFLOP/s ({found['peak_from']})"),
        ("peak memory", f"{found['peak_memory_bytes'] / 1e9:,.2f} GB, {found['memory_of']}"),
        ("planned", f"{found['planned_memory_bytes'] / 1e9:,.2f} GB of weights, gradients, moments, activations"),
    ]


def _untrained(args: argparse.Namespace) -> "Model":
    """A catalogue name as it begins, so that nothing is fetched; anything else is loaded."""
    from rebus import catalog

    if args.device is not None:
        check_device(args.device)
    if args.model not in {card.name for card in catalog.cards()}:
        args.compile, args.dtype, kept = False, None, (args.compile, args.dtype)
        model = open_model(args, None)
        args.compile, args.dtype = kept
        return model.to(dtype=_float32())
    import torch

    from rebus.api import create

    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    with torch.device(device):
        return create(args.model)


def _float32() -> Any:
    import torch

    return torch.float32
