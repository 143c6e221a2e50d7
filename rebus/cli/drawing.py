"""`--out` of the verbs that draw: where each drawing goes, known to be writable before a model is loaded."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from rebus.cli.pictures import Draw, Picture
from rebus.cli.writing import check_folder, check_picture, write_whole
from rebus.core.answers import Mask
from rebus.core.errors import UsageError


def drawing_paths(out: Path | None, pictures: Sequence[Picture]) -> list[Path] | None:
    """The file of each drawing: `out` for one picture, `out/<name>.png` for several. Raises before any work."""
    if out is None:
        return None
    if len(pictures) == 1 and not out.is_dir():
        check_picture(out)
        return [out]
    if out.suffix and not out.is_dir():
        raise UsageError(f"--out {out}: {len(pictures)} pictures want a folder")
    check_folder(out, create=True)
    taken: set[str] = set()
    paths = []
    for picture in pictures:
        stem, number = Path(picture.path).stem, 2
        name = stem
        while name in taken:
            name, number = f"{stem}-{number}", number + 1
        taken.add(name)
        paths.append(out / f"{name}.png")
    return paths


def drawer(paths: Sequence[Path] | None, pictures: Sequence[Picture]) -> Draw | None:
    """What draws an answer, boxes or masks, into a copy of its picture and writes that."""
    if paths is None:
        return None
    targets = {picture.path: path for picture, path in zip(pictures, paths, strict=True)}

    def draw(name: str, image: Image.Image, answer: Any) -> None:
        from rebus.tasks.draw import draw_boxes, draw_masks, encoded

        drawn = draw_masks(image, answer) if any(isinstance(a, Mask) for a in answer) else draw_boxes(image, answer)
        write_whole(targets[name], encoded(drawn, targets[name].suffix))

    return draw
