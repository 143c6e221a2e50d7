"""LVIS: things, what is absent, what is not marked everywhere, and how frequent labels are."""

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest

from rebus.core.errors import RebusError, UsageError
from rebus.data.layouts import open_layout
from rebus.data.layouts.lvis import Lvis
from rebus.data.record import BadRecord
from tests.data.layouts_annotated.samples import SQUARE, picture, write

URL = "http://images.cocodataset.org/train2017/000000000009.jpg"
SAMPLE: dict[str, Any] = {
    "info": {},
    "annotations": [
        {"id": 1, "image_id": 9, "category_id": 2, "bbox": [1, 2, 3, 4], "area": 9.5, "segmentation": SQUARE},
        {"id": 2, "image_id": 9, "category_id": 1, "bbox": [0, 0, 64, 48], "area": 99, "segmentation": SQUARE},
    ],
    "images": [
        {
            "id": 9,
            "coco_url": URL,
            "width": 64,
            "height": 48,
            "neg_category_ids": [3],
            "not_exhaustive_category_ids": [2],
        },
        {
            "id": 10,
            "coco_url": "http://x/val2017/10.jpg",
            "width": 64,
            "height": 48,
            "neg_category_ids": [],
            "not_exhaustive_category_ids": [],
        },
    ],
    "categories": [
        {"id": 1, "name": "acorn", "frequency": "r", "synset": "acorn.n.01", "synonyms": ["acorn"]},
        {"id": 3, "name": "wall_socket", "frequency": "f", "synset": "x", "synonyms": []},
        {"id": 2, "name": "aerosol_can", "frequency": "c", "synset": "x", "synonyms": []},
    ],
}


@pytest.fixture
def content() -> dict[str, Any]:
    return copy.deepcopy(SAMPLE)


@pytest.fixture
def folder(tmp_path: Path, content: dict[str, Any]) -> Path:
    write(tmp_path / "lvis_v1_val.json", content)
    picture(tmp_path / "train2017" / "000000000009.jpg")
    return tmp_path


def test_labels_frequencies_and_what_was_looked_for(folder: Path) -> None:
    reader = pickle.loads(pickle.dumps(open_layout(folder)))
    assert reader.sizes == (2,)
    assert reader.labels == ("acorn", "aerosol_can", "wall_socket")
    assert reader.frequencies == {"acorn": "r", "aerosol_can": "c", "wall_socket": "f"}
    record = reader.read(0, 0)
    assert record.image == folder / "train2017" / "000000000009.jpg"
    assert [(thing.label, thing.box, thing.outline) for thing in record.things] == [
        ("aerosol_can", (1, 2, 4, 6), SQUARE),
        ("acorn", (0, 0, 64, 48), SQUARE),
    ]
    assert (record.absent, record.incomplete) == (("wall_socket",), ("aerosol_can",))
    with pytest.raises(BadRecord, match=r"lvis_v1_val.json:10: val2017/10.jpg is missing"):
        reader.read(0, 1)


def test_splits(folder: Path, content: dict[str, Any]) -> None:
    for picture_of_test in content["images"]:
        del picture_of_test["neg_category_ids"], picture_of_test["not_exhaustive_category_ids"]
    write(folder / "annotations" / "lvis_v1_train.json", content)
    record = Lvis(folder, "train").read(0, 0)
    assert (record.key, record.absent) == ("lvis_v1_train.json:9", ())
    assert open_layout(folder / "annotations" / "lvis_v1_train.json").read(0, 0) == record
    with pytest.raises(UsageError, match=r"no lvis_v1_minival.json; there are the splits train, val"):
        Lvis(folder, "minival")


def test_damage(folder: Path, content: dict[str, Any]) -> None:
    content["images"][0]["neg_category_ids"] = [3, 44]
    write(folder / "lvis_v1_val.json", content)
    with pytest.raises(BadRecord, match=r"lvis_v1_val.json:9: neg_category_ids: there is no category 44"):
        Lvis(folder).read(0, 0)
    content["images"][0]["neg_category_ids"] = [3]
    content["annotations"][1]["bbox"] = "wide"
    write(folder / "lvis_v1_val.json", content)
    with pytest.raises(BadRecord, match=r'lvis_v1_val.json:9: annotation 2: "bbox" should be four finite numbers'):
        Lvis(folder).read(0, 0)
    content["categories"][0]["frequency"] = "often"
    write(folder / "lvis_v1_val.json", content)
    with pytest.raises(RebusError, match='category 1 expects a frequency "r", "c" or "f"; got \'often\''):
        Lvis(folder)
    (folder / "lvis_v1_val.json").write_text('{"images"\n: nought}')
    with pytest.raises(RebusError, match=r"lvis_v1_val.json:2:4: damaged JSON"):
        Lvis(folder)
