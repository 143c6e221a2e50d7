"""Continue a document of interleaved images and text."""

import argparse
from pathlib import Path
from typing import Any

from rebus.cli.arguments import add_decoding, add_model, decoding
from rebus.cli.choose_model import domain_warning, open_model
from rebus.cli.image_arguments import find_images
from rebus.cli.output import emit, note, say
from rebus.cli.output_files import check_folder
from rebus.core.atomic_write import write_bytes_atomically
from rebus.core.errors import UsageError

EXAMPLE = 'rebus complete cat.jpg "Output:a cat on a sofa" dog.jpg "Output:" --model flamingo/open-3b'
_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".heic", ".avif")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "parts", metavar="IMAGE|TEXT", nargs="+", help="the document: a file is an image, anything else is text"
    )
    parser.add_argument("--out", metavar="DIR", type=Path, help="folder for generated images (.)")
    add_decoding(parser)
    add_model(parser)


def run(args: argparse.Namespace) -> int:
    parts = [_part(word) for word in args.parts]
    if not any(isinstance(part, Path) or part.strip() for part in parts):
        raise UsageError("the document is empty: give images and text")
    folder = args.out or Path()
    if args.out is not None:
        check_folder(folder, create=True)
    document = _opened(parts)  # before a model is loaded
    model = open_model(args, "complete")
    answer: Any = model.complete(document, **decoding(args))
    written = [answer] if isinstance(answer, str) else answer
    shown = [{"text": part} if isinstance(part, str) else {"image": _kept(folder, part)} for part in written]
    if args.json:
        warning = domain_warning(model.card)
        emit({"model": model.card.name, "parts": shown, **({} if warning is None else {"warning": warning})})
    else:
        for part in shown:
            say(str(part.get("text", part.get("image"))))
    return 0


def _part(word: str) -> str | Path:
    """A file is an image; what only sounds like one is a mistake, and everything else text."""
    if Path(word).suffix.lower() in _ENDINGS and len(word.split()) == 1:
        (found,) = find_images([word])
        if found.error is not None:
            raise found.error
        return Path(found.path)
    try:
        return Path(word) if Path(word).is_file() else word
    except (OSError, ValueError):  # a text too long for a name, or with a NUL
        return word


def _opened(parts: list[str | Path]) -> list[Any]:
    from rebus.codec.images import open_images

    images = iter(open_images([part for part in parts if isinstance(part, Path)])[0])
    return [next(images) if isinstance(part, Path) else part for part in parts]


def _kept(folder: Path, image: Any) -> str:
    """The file that an image of the answer was written to: the next free number."""
    from rebus.tasks.draw import encoded

    number = 1
    while (path := folder / f"image-{number}.png").exists():
        number += 1
    write_bytes_atomically(path, encoded(image, path.suffix))
    note(f"an image: {path}")
    return str(path)
