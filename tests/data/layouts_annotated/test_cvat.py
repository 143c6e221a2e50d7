"""CVAT for images 1.1: boxes, turned boxes, polygons, ellipses, masks, tags."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from rebus.core.errors import RebusError, UsageError
from rebus.data.layouts import open_layout
from rebus.data.outlines import mask_of
from rebus.data.reading.shard_files import NoSplits
from rebus.data.record import BadRecord, Record
from tests.data.layouts_annotated.samples import picture

HEAD = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version>
<meta><task><labels><label><name>cat</name></label><label><name>dog</name></label></labels></task></meta>
"""
SHAPES = """
<box label="dog" occluded="0" xtl="1.5" ytl="2" xbr="3" ybr="4.25" z_order="0"/>
<box label="dog" xtl="2" ytl="2" xbr="6" ybr="4" rotation="90.0"><attribute name="a">b</attribute></box>
<polygon label="cat" points="0.00,0.00;4.00,0.00;4.00,2.00"/>
<ellipse label="cat" cx="4" cy="3" rx="2" ry="1"/>
<mask label="cat" rle="1, 2, 2, 1" left="5" top="1" width="3" height="2"/>
<polyline label="cat" points="0,0;1,1"/>
<tag label="cat"/>
"""


def written(folder: Path, *images: str, head: str = HEAD) -> Path:
    for name in ("a.jpg", "in/b.jpg"):
        picture(folder / "images" / name)
    (folder / "annotations.xml").write_text(head + "".join(images) + "</annotations>")
    return folder


def image(shapes: str, name: str = "a.jpg", more: str = "") -> str:
    return f'<image id="7" name="{name}" width="8" height="6" {more}>{shapes}</image>'


def read(path: Path, row: int = 0) -> Record:
    return pickle.loads(pickle.dumps(open_layout(path))).read(0, row)


def test_what_is_drawn(tmp_path: Path) -> None:
    folder = written(tmp_path, image(SHAPES), image("", "in/b.jpg"))
    record = read(folder)
    assert (record.key, record.image, record.label) == ("annotations.xml:7", folder / "images/a.jpg", "cat")
    box, turned, polygon, ellipse, mask = record.things
    assert (box.label, box.box, box.outline) == ("dog", (1.5, 2.0, 3.0, 4.25), None)
    assert turned.box == pytest.approx((3, 1, 5, 5))  # 4 × 2 about (4, 3), upright after a quarter turn
    assert (polygon.box, polygon.outline) == ((0, 0, 4, 2), [[0, 0, 4, 0, 4, 2]])
    assert ellipse.box == pytest.approx((2, 2, 6, 4))
    expected = np.zeros((6, 8), dtype=bool)
    expected[1, 6] = expected[1, 7] = expected[2, 7] = True  # rows of three: .XX, ..X
    assert (mask.box, mask.area) == ((5, 1, 8, 3), 3)
    assert np.array_equal(mask_of(mask.outline, 6, 8), expected)
    assert record.facts == {"file_name": "a.jpg", "width": 8, "height": 6, "left_out": ["polyline"]}
    empty = read(folder, 1)
    assert (empty.image, empty.things, empty.label) == (folder / "images/in/b.jpg", (), None)
    assert open_layout(folder / "annotations.xml").labels == ("cat", "dog")


def test_subsets_are_splits(tmp_path: Path) -> None:
    folder = written(tmp_path, image("", more='subset="Train"'), image("", "in/b.jpg", 'subset="Validation"'))
    assert open_layout(folder).sizes == (2,)
    assert open_layout(folder, split="val").read(0, 0).image == folder / "images/in/b.jpg"
    with pytest.raises(UsageError, match='no split "test"; it has Train, Validation'):
        open_layout(folder, split="test")
    with pytest.raises(NoSplits):
        open_layout(written(tmp_path, image("")), split="train")


@pytest.mark.parametrize(
    "shape, reason",
    [
        ('<box label="dog" xtl="nan" ytl="2" xbr="3" ybr="4"/>', "box 'dog': xtl should be a number"),
        ('<polygon label="dog" points="1,2;3"/>', "polygon 'dog': points should be x,y;x,y"),
        ('<mask label="dog" rle="1,9" left="0" top="0" width="3" height="2"/>', "runs of 10 pixels in 3 x 2"),
        ('<mask label="dog" rle="0,6" left="6" top="0" width="3" height="2"/>', "runs of 6 pixels in 3 x 2 of 8 x 6"),
        ('<box xtl="1" ytl="2" xbr="3" ybr="4"/>', "has no label"),
    ],
)
def test_a_damaged_shape_is_its_record_s(tmp_path: Path, shape: str, reason: str) -> None:
    folder = written(tmp_path, image(shape), image("", "in/b.jpg"))
    with pytest.raises(BadRecord, match=f"annotations.xml:7: .*{reason}"):
        read(folder)
    assert read(folder, 1).things == ()


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match='CVAT for video; export the task as "CVAT for images'):
        open_layout(written(tmp_path, '<track id="0" label="dog"></track>'))
    with pytest.raises(RebusError, match="no images"):
        open_layout(written(tmp_path))
    with pytest.raises(RebusError, match="damaged XML"):
        open_layout(written(tmp_path, "<image>"))
    bomb = '<!DOCTYPE a [<!ENTITY x "y">]>'
    with pytest.raises(RebusError, match="document type"):
        open_layout(written(tmp_path, image(""), head=HEAD.replace("<annotations>", f"{bomb}<annotations>")))
