"""Boxes of a column `objects`: told apart where anything tells, and said where nothing does."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from rebus.data.layouts import open_layout
from rebus.data.reading.box_form import has_corners

SAYS = "may be left, top, width, height or left, top, right, bottom: taken for the first"


@pytest.mark.parametrize(
    "box, size, corners, said",
    [
        ([10, 20, 5, 30], (100, 100), False, False),  # would end before it begins
        ([60, 20, 70, 30], (100, 100), True, False),  # would leave the image
        ([10, 60, 15, 70], (100, 100), True, False),
        ([10, 20, 30, 40], (100, 100), False, True),
        ([60, 20, 70, 30], (None, None), False, True),
        ([60, 20, 40.5, 80], (100, 100), False, False),  # up to the border, rounded
    ],
)
def test_what_tells(
    box: list[float], size: tuple[Any, Any], corners: bool, said: bool, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{"objects": {"bbox": [box]}, "width": size[0], "height": size[1]}]
    assert has_corners(rows, "a.parquet") is corners
    assert (SAYS in caplog.text) is said
    assert has_corners([{"objects": [{"bbox": box}], "width": str(size[0]), "height": str(size[1])}], "") is corners


def test_nothing_is_said_where_there_are_no_boxes(caplog: pytest.LogCaptureFixture) -> None:
    rows = [{"objects": ["dog", "cat"]}, {"objects": None}, {}, {"objects": {"bbox": []}}, {"objects": "a dog"}]
    assert not has_corners(rows, "")
    assert not caplog.text


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_objects_in_tables(tmp_path: Path, ending: str) -> None:
    """A folder of images with `objects` in its table, once by corners and once as the guide of Hugging Face has it."""
    for (
        name,
        box,
    ) in (("corners", [60, 20, 90, 80]), ("coco", [60, 20, 30, 60])):
        (tmp_path / name).mkdir()
        Image.new("RGB", (100, 100)).save(tmp_path / name / "1.png")
        other = {"bbox": [[70, 10, 71, 20] if name == "corners" else [70, 10, 1, 10]], "categories": ["cat"]}
        cells = [json.dumps(other), json.dumps({"bbox": [box], "categories": ["dog"]})]
        if ending == "csv":
            quoted = ['"' + cell.replace('"', '""') + '"' for cell in cells]
            lines = ["file_name,width,height,objects,caption", *(f"1.png,100,100,{cell},a dog" for cell in quoted)]
        else:
            row = {"file_name": "1.png", "width": 100, "height": 100, "caption": "a dog"}
            lines = [json.dumps(row | {"objects": json.loads(cell)}) for cell in cells]
        (tmp_path / name / f"metadata.{ending}").write_text("\n".join(lines))
        things = open_layout(tmp_path / name).read(0, 0).things
        assert [(thing.label, thing.box) for thing in things] == [
            ("cat", (70.0, 10.0, 71.0, 20.0)),
            ("dog", (60.0, 20.0, 90.0, 80.0)),
        ]


def test_names_in_objects_are_facts(tmp_path: Path) -> None:
    Image.new("RGB", (10, 10)).save(tmp_path / "1.png")
    (tmp_path / "captions.jsonl").write_text('{"file": "1.png", "caption": "x", "objects": ["dog", "cat"]}')
    record = open_layout(tmp_path).read(0, 0)
    assert (record.things, record.facts) == ((), {"objects": ["dog", "cat"]})
