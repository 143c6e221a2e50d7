"""What is told about a data set, and the sheet of examples."""

import io

import pytest
from PIL import Image

from rebus.cli.contact_sheet import contact_sheet
from rebus.data.inspecting import chosen, inspect, quantiles
from rebus.data.record import BadRecord, Question, Record, Thing


def png(size) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (200, 10, 10)).save(file, "PNG")
    return file.getvalue()


class Mixed:
    sizes = (3, 0, 4)
    labels = ("cat", "dog", "cow")
    faults = ("b.tar: cut",)

    def read(self, block, row):
        if (block, row) == (0, 1):
            raise BadRecord("a:1", "is torn")
        if (block, row) == (2, 3):
            return Record(key="b:3", image=b"<html>")
        if (block, row) == (2, 2):
            return Record(key="b:2", document=("words", png((5, 5)), "more"))
        thing = Thing(label="cat", box=(1.0, 1.0, 8.0, 8.0))
        return Record(
            key=f"{block}:{row}",
            image=png((10 + row, 20)),
            captions=("one two", "three"),
            things=(thing,),
            facts={"x": 1},
        )


def test_what_is_told():
    seen = inspect(Mixed())
    assert (seen.blocks, seen.records, seen.sampled) == (3, 7, 7)
    assert seen.fields == {"image": 5, "captions": 4, "things": 4, "document": 1}
    assert seen.facts == {"x": 4}
    assert seen.damaged == [("a:1", "is torn"), ("b:3", "its image cannot be read")]
    assert seen.faults == ["b.tar: cut"]
    assert seen.labels == [("cat", 4)]
    assert seen.known_labels == 3
    assert seen.caption_words["0"] == 1
    assert seen.caption_words["100"] == 2
    assert seen.heights["50"] == 20
    assert seen.to_json()["damaged"][0] == {"key": "a:1", "reason": "is torn"}


def test_the_seed_chooses():
    sizes = [10, 0, 30]
    assert chosen(sizes, 5, 0) == chosen(sizes, 5, 0) != chosen(sizes, 5, 1)
    assert len(set(chosen(sizes, 39, 3))) == 39
    assert chosen(sizes, 99, 0) == [(0, n) for n in range(10)] + [(2, n) for n in range(30)]
    many = chosen([10**9, 10**9], 100, 0)
    assert len(many) == 100
    assert {block for block, _ in many} == {0, 1}
    assert chosen([], 5, 0) == []


def test_quantiles():
    assert quantiles([]) == {}
    assert quantiles([1, 2, 3]) == pytest.approx({"0": 1, "5": 1.1, "25": 1.5, "50": 2, "75": 2.5, "95": 2.9, "100": 3})


def test_the_sheet_shows_pictures_boxes_words_and_what_is_wrong():
    records = [
        Mixed().read(0, 0),
        Mixed().read(2, 2),
        Record(key="bad", image=b""),
        Record(key="asked", image=png((400, 30)), questions=(Question(text="What is it?", answers=()),)),
        *(Record(key="k", label="a label") for _ in range(4)),
    ]
    sheet = contact_sheet(records)
    one = contact_sheet(records[:1])
    assert sheet.width > 5 * one.width
    assert sheet.height > 1.5 * one.height
    colours = {colour for _, colour in one.getcolors(1 << 20)}
    assert (200, 10, 10) in colours  # the image
    assert len(colours) > 10  # a box and letters
    assert contact_sheet([]).width > 0
