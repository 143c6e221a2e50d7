"""Encode a captioned folder and write a model with its pairs as anchors, without training; k and p by cross-validation.

Encoders can come from any model: an image encoder (vit, resnet, efficientnet), a text encoder (bert), a dual encoder.
"""

import argparse
import time
from pathlib import Path

from rebus.cli.arguments import add_placement, positive
from rebus.cli.choose_model import choose, open_model
from rebus.cli.dataset_arguments import add_source, share
from rebus.cli.output import bar, bold, emit, note, say, table
from rebus.core.errors import UsageError

EXAMPLE = "rebus asif build photos/ --out mine --image-encoder siglip/b16-224"
_TRIALS = 5  # settings that are shown
_NAMED = 5


def arguments(parser: argparse.ArgumentParser) -> None:
    add_source(parser)
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="a new folder for the model")
    parser.add_argument(
        "--image-encoder", metavar="NAME", help="model whose image encoder is used (default: the best on this machine)"
    )
    parser.add_argument(
        "--text-encoder", metavar="NAME", help="model whose text encoder is used (default: that of --image-encoder)"
    )
    parser.add_argument(
        "--k", metavar="N", type=positive, help="number of nearest anchors used (default: cross-validated)"
    )
    parser.add_argument(
        "--p", metavar="P", type=float, help="exponent of their similarities (default: cross-validated)"
    )
    parser.add_argument("--captions", metavar="N", type=positive, help="max captions per image (all)")
    parser.add_argument("--whiten", action="store_true", help="whiten the text embeddings")
    parser.add_argument("--batch-size", metavar="N", type=positive, help="images per batch")
    parser.add_argument(
        "--max-bad",
        metavar="FRACTION",
        type=share,
        default=0.1,
        help="stop at this fraction of unusable records (%(default)s)",
    )
    add_placement(parser)


def run(args: argparse.Namespace) -> int:
    if args.p is not None and not 0 < args.p < float("inf"):
        raise UsageError(f"--p: expected a number above 0; got {args.p:g}")
    from rebus.data.layouts import open_layout
    from rebus.recipes.asif import FOLDS, build, check_free

    check_free(args.out)
    if args.path != Path("scenes"):
        open_layout(args.path, args.layout, args.split, args.root)  # before any model is loaded
    image_name = args.image_encoder
    if image_name is None:
        image_name, why = choose("match")
        note(f"using the encoders of {image_name} ({why})")
    text_name = args.text_encoder or image_name
    args.model = image_name
    image_encoder = open_model(args, None)
    args.model = text_name
    text_encoder = image_encoder if text_name == image_name else open_model(args, None)
    began = time.monotonic()
    with bar("choosing k and p", FOLDS, when=args.k is None or args.p is None) as progress:
        built = build(
            str(args.path),
            args.out,
            image_encoder,
            text_encoder,
            layout=args.layout,
            split=args.split,
            root=args.root,
            k=args.k,
            p=args.p,
            captions_each=args.captions,
            whiten=args.whiten,
            most_damaged=args.max_bad,
            batch_size=args.batch_size,
            tick=progress.advance,
        )
    seconds = time.monotonic() - began
    for text in built.left_out[:_NAMED]:
        note(f"left out: {text}")
    if len(built.left_out) > _NAMED:
        note(f"and {len(built.left_out) - _NAMED:,} more were skipped; --json lists all")
    if args.json:
        trials = [trial._asdict() | {"overlap": trial.overlap._asdict()} for trial in built.trials]
        emit({**built._asdict(), "folder": str(built.folder), "trials": trials, "seconds": round(seconds, 1)})
        return 0
    if built.trials:
        say(bold(f"k and p, {FOLDS} folds: recall@1 of images and their captions"))
        rows = [
            (str(t.k), f"{t.p:g}", f"{t.image_to_text:.3f}", f"{t.text_to_image:.3f}", f"{t.overlap.mean_shared:.0f}")
            for t in built.trials[:_TRIALS]
        ]
        for line in table(("k", "p", "image to text", "text to image", "shared anchors"), rows, right=range(5)):
            say(line)
    say(
        f"{built.folder}: {built.anchors:,} anchors of {built.images:,} images, k {built.k:,}, p {built.p:g}, "
        f"scale {built.scale:g}, in {seconds:.0f} s"
    )
    note(f"use it: rebus classify photo.jpg --labels a,b --model {built.folder}")
    return 0
