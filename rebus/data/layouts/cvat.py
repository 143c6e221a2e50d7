"""CVAT for images 1.1: `annotations.xml` with boxes, polygons, ellipses, masks and tags, beside `images/`.

https://docs.cvat.ai/docs/manual/advanced/xml_format/. Polylines, points, cuboids and skeletons enclose no area: they
are left out, and a record's `facts["left_out"]` names them.
"""

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np

from rebus.core.errors import RebusError, UsageError
from rebus.core.limits import check
from rebus.data.outlines import outline_of
from rebus.data.reading.media_paths import MediaPaths
from rebus.data.reading.shard_files import NoSplits, names_of
from rebus.data.record import XYXY, BadRecord, Record, Thing

NAME = "cvat"
WHAT = "CVAT for images 1.1: annotations.xml beside images/"
# Forms that are read, and what each was checked against: a public reader, a dataset card, or memory
CHECKED = (
    (
        "CVAT for images 1.1: `annotations.xml` beside `images/`",
        "CVAT's documentation of the format and `cvat_sdk/masks.py`; samples written by hand",
    ),
)

MAX_BYTES = 1 << 30  # of a file, whose images are held in memory
_FILE = "annotations.xml"
_HEAD = 1 << 16
_CORNERS = 64  # of an ellipse's outline
_AREAS = ("box", "polygon", "ellipse", "mask")

Points = np.ndarray  # float64 (corners, 2)


class _Image(NamedTuple):
    about: Mapping[str, str]
    shapes: tuple[tuple[str, Mapping[str, str]], ...]  # kind, what it says


def recognises(path: Path) -> bool:
    file = path / _FILE if path.is_dir() else path
    if file.suffix.lower() != ".xml" or not file.is_file():
        return False
    with file.open("rb") as opened:
        return re.search(rb"<annotations[\s>]", opened.read(_HEAD)) is not None


def open(path: Path, split: str | None = None) -> "Cvat":
    return Cvat(path / _FILE if path.is_dir() else path, split)


class Cvat:
    """One record an image, with what is drawn in it, and its tag as label where it has one.

    `split`: the `subset` of a project's images; all by default. Turned boxes, ellipses and masks have outlines.
    Raises `UsageError` for no such split and for CVAT's format for videos, `RebusError` for damaged XML.
    """

    def __init__(self, file: Path, split: str | None = None):
        self._name = file.name
        images, labels = _parsed(file)
        subsets = sorted({image.about["subset"] for image in images if image.about.get("subset")})
        if split is not None:
            if not subsets:
                raise NoSplits(f"{file}: its images name no subset; leave the split out")
            images = [image for image in images if image.about.get("subset", "").lower() in names_of(split)]
            if not images:
                raise UsageError(f'{file}: no split "{split}"; it has {", ".join(subsets)}')
        self._images = images
        self.labels = tuple(labels)
        self.sizes = (len(images),)
        root = file.parent
        folders = [root / "images", root, *(root / "images" / name for name in subsets)]
        self._places = MediaPaths(folders, [root])

    def read(self, block: int, row: int) -> Record:
        image = self._images[row]
        key = f"{self._name}:{image.about.get('id', f'image {row}')}"
        try:
            size = _count(image.about, "width"), _count(image.about, "height")
            tags = [_said(said, "label") for kind, said in image.shapes if kind == "tag"]
            facts: dict[str, Any] = {"file_name": _said(image.about, "name"), "width": size[0], "height": size[1]}
            left_out = sorted({kind for kind, _ in image.shapes if kind not in (*_AREAS, "tag")})
            facts |= {"left_out": left_out} if left_out else {}
            facts |= {"tags": tags} if len(tags) > 1 else {}
            return Record(
                key=key,
                image=self._places.find(facts["file_name"]),
                label=tags[0] if len(tags) == 1 else None,
                things=tuple(_thing(kind, said, size) for kind, said in image.shapes if kind in _AREAS),
                facts=facts,
            )
        except RebusError as error:
            raise BadRecord(key, str(error)) from None


def _parsed(file: Path) -> tuple[list[_Image], list[str]]:
    """The images of a file, and the labels that its head names."""
    if file.stat().st_size > MAX_BYTES:
        raise RebusError(f"{file}: larger than {MAX_BYTES:,} bytes; export the tasks separately")
    with file.open("rb") as opened:
        if b"<!" in opened.read(_HEAD).replace(b"<!--", b""):
            raise RebusError(f"{file}: declares a document type or entities, which CVAT does not write")
    images: list[_Image] = []
    labels: dict[str, None] = {}
    try:
        for element in _elements(file):
            if element.tag == "image":
                shapes = tuple((shape.tag, dict(shape.attrib)) for shape in element)
                images.append(_Image(dict(element.attrib), shapes))
            elif element.tag == "track":
                raise UsageError(f'{file}: CVAT for video; export the task as "CVAT for images 1.1"')
            else:
                labels |= dict.fromkeys(name.text for name in element.iterfind(".//label/name") if name.text)
    except ElementTree.ParseError as error:
        raise RebusError(f"{file}: damaged XML: {error}") from None
    if not images:
        raise RebusError(f"{file}: no images: CVAT for images 1.1 has <image> elements")
    drawn = {said["label"] for image in images for kind, said in image.shapes if kind != "tag" and "label" in said}
    return images, [*labels, *sorted(drawn - labels.keys())]


def _elements(file: Path) -> Iterator[ElementTree.Element]:
    """The elements right below the root, each forgotten when the next is asked for."""
    depth, root = 0, None
    for event, element in ElementTree.iterparse(file, events=("start", "end")):
        depth += 1 if event == "start" else -1
        if depth == 1 and root is None:
            root = element
        elif depth == 1 and root is not None:
            yield element
            root.clear()


def _thing(kind: str, said: Mapping[str, str], size: tuple[int, int]) -> Thing:
    label = _said(said, "label")
    try:
        if kind == "mask":
            return _mask(label, said, size)
        points = _points(kind, said)
    except RebusError as error:
        raise RebusError(f"{kind} {label!r}: {error}") from None
    plain = kind == "box" and not float(said.get("rotation") or 0)  # `_points` has read it
    box: XYXY = (*(float(v) for v in points.min(0)), *(float(v) for v in points.max(0)))  # type: ignore[assignment]
    outline = None if plain else [[round(float(v), 2) for v in points.reshape(-1)]]
    return Thing(label=label, box=box, outline=outline)


def _points(kind: str, said: Mapping[str, str]) -> Points:
    """The corners of a shape in pixels, turned by its `rotation` in degrees clockwise about its middle."""
    if kind == "polygon":
        pairs = [pair.split(",") for pair in _said(said, "points").split(";")]
        try:
            points = np.array([[float(x), float(y)] for x, y in pairs])
        except ValueError:
            raise RebusError(f"points should be x,y;x,y;…; got {said['points'][:40]!r}") from None
        if len(points) < 3 or not np.isfinite(points).all():
            raise RebusError("a polygon has three corners or more, with finite numbers")
        return points
    if kind == "box":
        left, top, right, bottom = (_number(said, name) for name in ("xtl", "ytl", "xbr", "ybr"))
        points = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
    else:
        angles = np.arange(_CORNERS) * (2 * math.pi / _CORNERS)
        radii = [_number(said, "rx"), _number(said, "ry")]
        points = np.stack([np.cos(angles), np.sin(angles)], 1) * radii + [_number(said, "cx"), _number(said, "cy")]
    turn = math.radians(_number(said, "rotation") if said.get("rotation") else 0.0)
    if not turn:
        return points
    middle = (points.min(0) + points.max(0)) / 2
    x, y = (points - middle).T
    turned = np.stack([x * math.cos(turn) - y * math.sin(turn), x * math.sin(turn) + y * math.cos(turn)], 1)
    return np.asarray(turned + middle)


def _mask(label: str, said: Mapping[str, str], size: tuple[int, int]) -> Thing:
    """A mask by its runs along the rows of its own rectangle, the first outside."""
    left, top, width, height = (_count(said, name, least=0) for name in ("left", "top", "width", "height"))
    check("MAX_PIXELS", size[0] * size[1], f"a mask in an image of {size[0]} x {size[1]}")
    try:
        runs = np.array([int(run) for run in _said(said, "rle").split(",")], dtype=np.int64)
    except (ValueError, OverflowError):
        raise RebusError("rle should be whole numbers with commas between") from None
    if left + width > size[0] or top + height > size[1] or (runs < 0).any() or runs.sum() != width * height:
        raise RebusError(f"runs of {int(runs.sum()):,} pixels in {width} x {height} of {size[0]} x {size[1]}")
    mask = np.zeros((size[1], size[0]), dtype=bool)
    inside = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
    mask[top : top + height, left : left + width] = inside
    box = (float(left), float(top), float(left + width), float(top + height))
    return Thing(label=label, box=box, outline=outline_of(mask), area=float(inside.sum()))


def _said(item: Mapping[str, str], name: str) -> str:
    value = item.get(name)
    if not value:
        raise RebusError(f"has no {name}")
    return value


def _number(item: Mapping[str, str], name: str) -> float:
    try:
        value = float(_said(item, name))
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise RebusError(f"{name} should be a number; got {item[name][:40]!r}")
    return value


def _count(item: Mapping[str, str], name: str, least: int = 1) -> int:
    value = _number(item, name)
    if value != int(value) or not least <= value < 1 << 31:
        raise RebusError(f"{name} should be a whole number; got {item[name][:40]!r}")
    return int(value)
