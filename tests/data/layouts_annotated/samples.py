"""Small data sets in the form of the released ones."""

import copy
import json
from pathlib import Path
from typing import Any

from PIL import Image

SQUARE = [[10.0, 10.0, 30.0, 10.0, 30.0, 30.0, 10.0, 30.0]]
RUNS = {"size": [48, 64], "counts": [100, 20, 2952]}

PICTURES: list[dict[str, Any]] = [
    {"id": 139, "file_name": "000000000139.jpg", "width": 64, "height": 48, "license": 2},
    {"id": 285, "file_name": "000000000285.jpg", "width": 64, "height": 48, "license": 2},
    {"id": 632, "file_name": "000000000632.jpg", "width": 64, "height": 48, "license": 2},
]
CATEGORIES: list[dict[str, Any]] = [
    {"id": 18, "name": "dog", "supercategory": "animal"},
    {"id": 1, "name": "person", "supercategory": "person"},
    {"id": 3, "name": "Käfer", "supercategory": "animal"},
]
THINGS: list[dict[str, Any]] = [
    {
        "id": 7,
        "image_id": 285,
        "category_id": 18,
        "bbox": [10, 10, 20, 20],
        "area": 400.0,
        "iscrowd": 0,
        "segmentation": SQUARE,
    },
    {
        "id": 8,
        "image_id": 139,
        "category_id": 1,
        "bbox": [1.5, 2, 3, 4],
        "area": 12.0,
        "iscrowd": 0,
        "segmentation": SQUARE,
    },
    {"id": 9, "image_id": 285, "category_id": 3, "bbox": [2, 4, 1, 20], "area": 20, "iscrowd": 1, "segmentation": RUNS},
]
CAPTIONS: list[dict[str, Any]] = [
    {"id": 1, "image_id": 139, "caption": "A person in a room."},
    {"id": 2, "image_id": 285, "caption": "Ein Käfer und ein Hund, „nah“."},
    {"id": 3, "image_id": 139, "caption": "Somebody stands."},
    {"id": 4, "image_id": 632, "caption": "A bed."},
]


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return path


def picture(path: Path, size: tuple[int, int] = (64, 48)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (200, 30, 90)).save(path)
    return path


def instances() -> dict[str, Any]:
    return copy.deepcopy({"info": {"year": 2017}, "images": PICTURES, "annotations": THINGS, "categories": CATEGORIES})


def captions() -> dict[str, Any]:
    return copy.deepcopy({"info": {"year": 2017}, "images": PICTURES, "annotations": CAPTIONS})
