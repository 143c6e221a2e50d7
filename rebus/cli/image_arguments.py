"""IMAGE… on the command line: finding the images, and processing them so that one bad image fails alone."""

from __future__ import annotations

import difflib
import glob
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rebus.cli.choose_model import domain_warning
from rebus.cli.output import bar, emit, note
from rebus.cli.output_files import ResultFiles
from rebus.codec.image_files import images_in
from rebus.core.card import ModelCard
from rebus.core.errors import BadImage, LimitExceeded, MissingFile, NotFinite, RebusError

if TYPE_CHECKING:
    from PIL import Image

Work = Callable[[list[Any]], Any]
Draw = Callable[[str, "Image.Image", Any], None]


@dataclass(frozen=True)
class ImageArgument:
    """An image to be opened, or why there is none."""

    path: str
    error: RebusError | None = None


def find_images(words: Sequence[str]) -> list[ImageArgument]:
    """Files, the images of folders, and patterns that the shell did not expand, in this order.

    A path that cannot be read gives an argument with an error, and so does each unreadable folder below it.
    """
    found: list[ImageArgument] = []
    for word in words:
        path = _path(word)
        try:
            kind = os.stat(path).st_mode
        except (FileNotFoundError, NotADirectoryError):
            found += _absent(word, path)
        except (OSError, ValueError) as error:
            found.append(ImageArgument(word, BadImage(f"{word}: {_reason(error)}")))
        else:
            found += _in_folder(word, path) if stat.S_ISDIR(kind) else [ImageArgument(str(path))]
    return found


def _path(word: str) -> Path:
    """`~` and `~name` are home folders where there is such a person, and no file of that name."""
    path = Path(word)
    if not word.startswith("~") or os.path.lexists(path):
        return path
    try:
        return path.expanduser()
    except RuntimeError:
        return path


def _in_folder(word: str, folder: Path) -> list[ImageArgument]:
    unread: list[ImageArgument] = []

    def failed(error: OSError) -> None:
        path = str(error.filename or word)
        unread.append(ImageArgument(path, BadImage(f"{path}: {_reason(error)}")))

    found = [ImageArgument(str(path)) for path in images_in(folder, failed)] + unread
    return found or [ImageArgument(word, MissingFile(f"{word}: no images in this folder"))]


def _absent(word: str, path: Path) -> list[ImageArgument]:
    if glob.has_magic(word):
        matching = sorted(p for p in glob.glob(str(path), recursive=True) if os.path.isfile(p))
        return [ImageArgument(p) for p in matching] or [
            ImageArgument(word, MissingFile(f"{word}: no file matches this pattern"))
        ]
    if "://" in word:
        return [ImageArgument(word)]  # the codec says why web addresses are refused
    return [ImageArgument(word, MissingFile(f"{word}: no such file.{_nearest(path)}"))]


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _nearest(path: Path) -> str:
    try:
        beside = os.listdir(path.parent)
    except OSError:
        return f" There is no folder {path.parent} either"
    near = difflib.get_close_matches(path.name, beside, n=2, cutoff=0.6)
    return f" Did you mean {' or '.join(str(path.parent / name) for name in near)}?" if near else ""


@dataclass
class Batch:
    """What came of a run over images."""

    total: int
    rows: list[dict[str, Any]] = field(default_factory=list)
    files: ResultFiles | None = None
    failed: int = 0
    interrupted: bool = False

    def finish(self, args: Any, card: ModelCard | None, **more: Any) -> int:
        """Report what failed, write the files of results and the JSON document that are wanted, give the exit code.

        `card`: of the model that answered, if there was one.
        """
        if self.files is not None:
            self.files.finish(self.rows)
        if args.json:
            document = {"model": card and card.name, **more, "results": self.rows, "failed": self.failed}
            warning = domain_warning(card) if card is not None else None
            document |= {"warning": warning} if warning is not None else {}
            emit(document | ({"interrupted": True} if self.interrupted else {}))
        if self.interrupted:
            note(f"interrupted after {len(self.rows)} of {self.total} images")
            return 130
        if self.failed and self.total > 1:
            note(f"{self.failed} of {self.total} images failed")
        return 1 if self.failed else 0


def hopeless(arguments: Sequence[ImageArgument], args: Any) -> int | None:
    """The exit code where there is not one image to open, so that no model is loaded; else None."""
    if any(argument.error is None for argument in arguments):
        return None
    batch = Batch(len(arguments))
    for argument in arguments:
        _fail(batch, argument.path, str(argument.error))
    return batch.finish(args, None)


def work_through(
    arguments: Sequence[ImageArgument],
    work: Work,
    show: Callable[[str, Any], None],
    as_json: Callable[[Any], dict[str, Any]],
    args: Any,
    *,
    size: int = 1,
    draw: Draw | None = None,
    files: ResultFiles | None = None,
) -> Batch:
    """`work` on `size` images at a time; each answer is drawn, printed and saved as soon as it is there.

    An image that cannot be opened fails alone. Out of memory, the batch is halved, saying so. Ctrl-C ends the
    run; what was done stays in the result. With `args.regions`, a file or folder of region features, `work` is given
    those of each image in its place.
    """
    batch = Batch(len(arguments), files=files)
    seen = _seen(getattr(args, "regions", None))
    try:
        with bar("images", len(arguments), when=args.json and len(arguments) > 1) as progress:
            at = 0
            while at < len(arguments):
                chunk = arguments[at : at + size]
                try:
                    answers = _answers(chunk, work, seen)
                except Exception as error:
                    if not _out_of_memory(error) or len(chunk) == 1:
                        raise
                    size = len(chunk) // 2
                    note(f"not enough memory for {len(chunk)} images per batch: continuing with {size}")
                    continue
                for argument, (image, answer) in zip(chunk, answers, strict=True):
                    if image is None or isinstance(answer, RebusError):
                        _fail(batch, argument.path, str(answer))
                    else:
                        if draw is not None:
                            draw(argument.path, image, answer)
                        if not args.json:
                            show(argument.path, answer)
                        batch.rows.append({"image": argument.path, **as_json(answer)})
                        if files is not None:
                            files.add(batch.rows[-1])
                    progress.advance()
                at += len(chunk)
    except KeyboardInterrupt:
        batch.interrupted = True
    return batch


def _seen(regions: str | None) -> Callable[[str, Image.Image], Any]:
    """What a model is given of an image and its path: the image, or its regions in a file of them."""
    if regions is None:
        return lambda path, image: image
    from rebus.codec.region_files import RegionFiles

    files = RegionFiles(regions)
    return lambda path, image: files.of(path, image.size)


def _answers(
    chunk: Sequence[ImageArgument], work: Work, seen: Callable[[str, Image.Image], Any]
) -> list[tuple[Image.Image | None, Any]]:
    """Each image with its answer, or with the error that kept it from one."""
    from rebus.codec.images import open_images

    there = [i for i, argument in enumerate(chunk) if argument.error is None]
    images, failures = open_images([chunk[i].path for i in there], on_error="skip")
    found: list[tuple[Image.Image | None, Any]] = [(None, argument.error) for argument in chunk]
    for place, error in failures.items():
        found[there[place]] = None, BadImage(str(error).removeprefix(f"images[{place}]: "))
    opened = {i: image for i, image in zip(there, images, strict=True) if image is not None}
    if not opened:
        return found
    try:
        answers = work([seen(chunk[i].path, image) for i, image in opened.items()])
        for (i, image), answer in zip(opened.items(), answers, strict=True):
            found[i] = image, answer
    except (BadImage, LimitExceeded, NotFinite) as error:
        if len(opened) == 1:
            found[next(iter(opened))] = None, error
        else:  # one of them, but which?
            for i in opened:
                found[i] = _answers([chunk[i]], work, seen)[0]
    return found


def _fail(batch: Batch, path: str, reason: str) -> None:
    batch.failed += 1
    batch.rows.append({"image": path, "error": reason})
    note(reason if path in reason else f"{path}: {reason}")


def _out_of_memory(error: Exception) -> bool:
    """Of the GPU, or too many large images opened at once: what is wrong with a single image fails its row."""
    return type(error).__name__ == "OutOfMemoryError" or isinstance(error, LimitExceeded)
