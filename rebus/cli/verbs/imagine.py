"""Generate images from text. The same --seed gives the same images."""

from __future__ import annotations

import argparse
import re
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rebus.cli.arguments import add_model, positive
from rebus.cli.choose_model import domain_warning, open_model
from rebus.cli.output import bar, emit, note, say
from rebus.cli.output_files import check_folder, check_image
from rebus.core.atomic_write import write_bytes_atomically
from rebus.core.errors import CannotWrite, UsageError

if TYPE_CHECKING:
    from rebus.api import Model

EXAMPLE = 'rebus imagine "a lighthouse at dusk" --count 4 --out drawn/ --model chameleon/anole-7b'
_SEEDS = 2**31  # above every seed that is chosen by chance
_MOST_SEED = 2**62
_OPTIONS = ("guidance", "best_of", "temperature", "top_k", "top_p")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "prompts", metavar="PROMPT", nargs="+", help="description of an image; may repeat, one image per prompt"
    )
    parser.add_argument("--out", metavar="PATH", type=Path, required=True, help="file of a single image, or a folder")
    parser.add_argument("--count", metavar="N", type=positive, default=1, help="images per prompt (%(default)s)")
    parser.add_argument(
        "--seed", metavar="N", type=_seed, help="random seed of the first image of each prompt; the next ones count up"
    )
    parser.add_argument("--guidance", metavar="G", type=float, help="classifier-free guidance scale; 1: none")
    parser.add_argument("--temperature", metavar="T", type=float, help="below 1 less random, above 1 more")
    parser.add_argument("--top-k", metavar="K", type=positive, help="sample from the K most probable codes")
    parser.add_argument(
        "--top-p", metavar="P", type=float, help="sample from the most probable codes of total probability P"
    )
    parser.add_argument(
        "--best-of",
        metavar="N",
        type=positive,
        help="generate N images and keep the one for which the model finds the prompt the likeliest caption",
    )
    parser.add_argument("--overwrite", action="store_true", help="overwrite existing files")
    add_model(parser, batch_size=4)


def _seed(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) >= _MOST_SEED:
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 to below 2^62; got {text!r}")
    return int(text)


def run(args: argparse.Namespace) -> int:
    if not all(prompt.strip() for prompt in args.prompts):
        raise UsageError("a prompt is empty")
    first = secrets.randbelow(_SEEDS) if args.seed is None else args.seed
    wanted = [(prompt, first + k) for prompt in args.prompts for k in range(args.count)]
    paths = image_paths(args.out, [prompt for prompt, _ in wanted], args.overwrite)
    model = open_model(args, "imagine")
    rows = [
        {"prompt": prompt, "seed": seed, "image": str(path)} for (prompt, seed), path in zip(wanted, paths, strict=True)
    ]
    done: list[dict[str, Any]] = []
    try:
        _draw(model, rows, done, args)
    except KeyboardInterrupt:
        note(f"interrupted after {len(done)} of {len(rows)} images")
    if args.json:
        warning = domain_warning(model.card)
        document: dict[str, Any] = {"model": model.card.name, "results": done}
        document |= {"warning": warning} if warning is not None else {}
        emit(document | ({"interrupted": True} if len(done) < len(rows) else {}))
    return 0 if len(done) == len(rows) else 130


def _draw(model: Model, rows: list[dict[str, Any]], done: list[dict[str, Any]], args: argparse.Namespace) -> None:
    """Draw and write the images, some at a time; what is written is added to `done`."""
    from rebus.tasks.draw import encoded

    options = {name: getattr(args, name) for name in _OPTIONS if getattr(args, name) is not None}
    with bar("images", len(rows), when=len(rows) > 1 or args.json) as progress:
        for at in range(0, len(rows), args.batch_size):
            some = rows[at : at + args.batch_size]
            prompts = [row["prompt"] for row in some]
            images = model.imagine(prompts, seed=[row["seed"] for row in some], **options)
            for row, image in zip(some, images, strict=True):
                path = Path(row["image"])
                write_bytes_atomically(path, encoded(image, path.suffix))
                if not args.json:
                    say(row["image"])
                done.append(row)
                progress.advance()


def image_paths(out: Path, prompts: list[str], overwrite: bool) -> list[Path]:
    """The file of each image: `out` for a single one, else `out/<first words of the prompt>.png`, the next ones
    numbered. Raises `CannotWrite` where one of them is there already, before any work."""
    if len(prompts) == 1 and out.suffix and not out.is_dir():
        check_image(out)
        paths = [out]
    elif out.suffix and not out.is_dir():
        raise UsageError(f"--out {out}: {len(prompts)} images need a folder")
    else:
        check_folder(out, create=True)
        paths = []
        for prompt in prompts:
            stem, number = _stem(prompt), 2
            path = out / f"{stem}.png"
            while path in paths:
                path, number = out / f"{stem}-{number}.png", number + 1
            paths.append(path)
    there = [str(path) for path in paths if path.exists()]
    if there and not overwrite:
        raise CannotWrite(f"{there[0]} exists already ({len(there)} of {len(paths)}): --overwrite replaces it")
    return paths


def _stem(prompt: str) -> str:
    """The first words of a prompt as the name of a file, in any script."""
    words = re.findall(r"\w+", prompt.lower())
    return "-".join(words)[:60].strip("-") or "image"
