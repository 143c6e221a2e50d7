"""MS COCO as unpacked: `annotations/instances_val2017.json`, `annotations/captions_val2017.json`, `val2017/*.jpg`.

Lin et al., "Microsoft COCO: Common Objects in Context", 2014; https://cocodataset.org/#format-data. Any data set in
that form will do: a single file of annotations given as the path, or `instances.json`, Label Studio's `result.json`
beside `images/`, and Roboflow's `train/_annotations.coco.json`.
"""

import re
from pathlib import Path
from typing import Any

from rebus.core.errors import RebusError, UsageError
from rebus.data.reading.annotations import Annotations, categories, thing
from rebus.data.reading.checked_fields import count, words
from rebus.data.reading.media_paths import MediaPaths
from rebus.data.reading.shard_files import NoSplits
from rebus.data.record import BadRecord, Record

NAME = "coco"
WHAT = "MS COCO and what is written like it: captions, boxes and outlines in annotations/*.json"
# Forms that are read, and what each was checked against: a public reader, a dataset card, or memory
CHECKED = (
    (
        "`annotations/instances_*.json`, `captions_*.json`, one such file as the path",
        "pycocotools, for outlines and scores; the rest memory",
    ),
    ("`instances.json` beside `images/`", "memory; samples written by hand"),
    (
        "Label Studio's `result.json` beside `images/`",
        "label-studio-converter's `convert_to_coco`; samples written by hand",
    ),
    ("Roboflow's `train/_annotations.coco.json`", "memory; samples written by hand"),
)

_FILE = re.compile(r"(captions|instances|image_info)_(.+)\.json")
_ROBOFLOW = "_annotations.coco.json"  # in a folder for each split
_ONLY = ""  # the split of a single file: instances.json, or Label Studio's result.json
_HEAD = 1 << 16


def recognises(path: Path) -> bool:
    if path.is_dir():
        return bool(_files(path))
    return path.suffix == ".json" and not path.name.startswith("lvis_") and _looks_alike(path)


def open(path: Path, split: str | None = None) -> "Coco":
    return Coco(path, split)


class Coco:
    """One record an image: its captions and its things, as far as there are files of them.

    `split`: "val" by default; "train" means the newest year there is, "train2014" that year. A file given as the path
    is the split. Raises `UsageError` for a split that is not there, `RebusError` for damaged JSON.
    """

    def __init__(self, path: Path, split: str | None = None):
        files = [path] if path.is_file() else _chosen(path, split)
        self._annotations = Annotations(files)
        self._names: dict[int | str, dict[str, Any]] = {}
        for file, rest in zip(files, self._annotations.rest):
            self._names = self._names or categories(file, rest)
        self.labels = tuple(dict.fromkeys(item["name"] for item in self._names.values()))
        self.sizes = (len(self._annotations),)
        self._places = MediaPaths(_folders(files[0]))

    def read(self, block: int, row: int) -> Record:
        key, image, annotations = self._annotations.read(row)
        captions, things = [], []
        try:
            for item in (item for items in annotations for item in items):
                if "caption" in item:
                    captions.append(words(item, "caption"))
                if "bbox" in item or "caption" not in item:
                    things.append(thing(item, self._names))
            return Record(
                key=key,
                image=self._places.find(words(image, "file_name")),
                captions=tuple(captions),
                things=tuple(things),
                facts=image_facts(image),
            )
        except BadRecord:
            raise
        except RebusError as error:
            raise BadRecord(key, str(error)) from None


def image_facts(image: dict[str, Any]) -> dict[str, Any]:
    """What an image's entry says of it. Raises `RebusError` for a width or height that cannot be."""
    facts = {"image_id": image["id"]}
    if "file_name" in image:
        facts["file_name"] = image["file_name"]
    for side in ("width", "height"):
        if side in image:
            facts[side] = count(image, side)
    return facts


def _files(path: Path) -> dict[str, dict[str, Path]]:
    """Split with its year → kind → file. Of the same split, files of things come first."""
    found: dict[str, dict[str, Path]] = {}
    for file in sorted((path / "annotations").glob("*.json")):
        match = _FILE.fullmatch(file.name)
        if match:
            found.setdefault(match[2], {})[match[1]] = file
    if not found:
        for file in sorted(path.glob(f"*/{_ROBOFLOW}")):
            found[{"valid": "val"}.get(file.parent.name, file.parent.name)] = {"instances": file}
    if not found and not any(path.glob("refs*")):  # instances.json is RefCOCO's where it is
        for name in (_ROBOFLOW, "instances.json", "result.json"):
            if (path / name).is_file() and _looks_alike(path / name):
                return {_ONLY: {"instances": path / name}}
    return found


def _chosen(path: Path, split: str | None) -> list[Path]:
    files = _files(path)
    if not files:
        raise UsageError(f"{path}: no annotations/instances_*.json or annotations/captions_*.json here")
    if list(files) == [_ONLY]:
        if split is not None:
            raise NoSplits(f"{path}: one annotation file, which has no splits; leave the split out")
        return list(files[_ONLY].values())
    wanted = split or "val"
    years = [name for name in files if re.fullmatch(re.escape(wanted) + r"(\d{4})?", name)]
    if not years and split is None and len(files) == 1:
        years = list(files)
    if not years:
        raise UsageError(f'{path}: no split "{wanted}"; there are {", ".join(sorted(files))}')
    kinds = files[wanted if wanted in years else max(years)]
    return [kinds[kind] for kind in ("instances", "captions", "image_info") if kind in kinds]


def _folders(file: Path) -> list[Path]:
    """Where the images of a file of annotations may be."""
    root = file.parent.parent if file.parent.name == "annotations" else file.parent
    match = _FILE.fullmatch(file.name)
    names = [match[2], match[2].replace("-dev", "")] if match else []
    return [
        *(root / base / name for name in names for base in ("", "images")),
        root / "images",
        root,
        file.parent,
        *(root / name for name in ("train2017", "val2017", "train2014", "val2014")),
    ]


def _looks_alike(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(_HEAD)
    has = {name: b'"%s"' % name.encode() in head for name in ("file_name", "image_id", "bbox", "caption", "sentences")}
    alike = has["file_name"] or (has["image_id"] and (has["bbox"] or has["caption"]))
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") and alike and not has["sentences"]
