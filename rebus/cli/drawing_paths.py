"""`--out` of the commands that draw: the file of each drawing, checked to be writable before a model is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rebus.cli.image_arguments import Draw, ImageArgument
from rebus.cli.output_files import check_folder, check_image
from rebus.core.answers import Mask
from rebus.core.atomic_write import write_bytes_atomically
from rebus.core.errors import UsageError

if TYPE_CHECKING:
    from PIL import Image


def drawing_paths(out: Path | None, arguments: Sequence[ImageArgument]) -> dict[str, Path] | None:
    """The file of each drawing: `out` for one image, `out/<name>.png` for several. Raises before any work."""
    if out is None:
        return None
    if len(arguments) == 1 and not out.is_dir():
        check_image(out)
        return {arguments[0].path: out}
    if out.suffix and not out.is_dir():
        raise UsageError(f"--out {out}: {len(arguments)} images need a folder")
    check_folder(out, create=True)
    paths: dict[str, Path] = {}
    for argument in arguments:
        stem, number = Path(argument.path).stem, 2
        target = out / f"{stem}.png"
        while target in paths.values() and argument.path not in paths:  # a file of this name in another folder
            target, number = out / f"{stem}-{number}.png", number + 1
        paths.setdefault(argument.path, target)
    return paths


def drawer(paths: Mapping[str, Path] | None) -> Draw | None:
    """Draws boxes or masks on a copy of the image and writes it."""
    if paths is None:
        return None

    def draw(name: str, image: Image.Image, answer: Any) -> None:
        from rebus.tasks.draw import draw_boxes, draw_masks, encoded

        drawn = draw_masks(image, answer) if any(isinstance(a, Mask) for a in answer) else draw_boxes(image, answer)
        write_bytes_atomically(paths[name], encoded(drawn, paths[name].suffix))

    return draw
