"""Conversions: nothing lost, nothing doubled, wherever they are killed; images untouched unless asked."""

import io
import json
import os

import numpy as np
import pytest
from PIL import Image

from rebus.core.errors import RebusError, UsageError
from rebus.data.converting import Conversion, Converter
from rebus.data.layouts import open_layout
from rebus.data.record import BadRecord, Phrase, Question, Record, Thing
from rebus.data.resize_images import Fitting, fit
from tests.data.dying import Dead, killed_at


def jpeg(number: int, size=(9, 6), **save) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "JPEG", **save)
    return file.getvalue()


class ImageSet:
    """A reader of some images in two blocks; those in `bad` are damaged."""

    labels = ()

    def __init__(self, number: int, bad=()):
        self.sizes, self.bad = [number // 2, number - number // 2], bad

    def read(self, block, row):
        number = block * self.sizes[0] + row
        if number in self.bad:
            raise BadRecord(f"image {number}", "is torn")
        return Record(key=f"image {number}", image=jpeg(number), captions=(f"text {number}",), facts={"n": number})


def converter(reader, folder, **more) -> Converter:
    return Converter(reader, folder, {"work": "convert"}, Conversion(**{"shard_size": 4, "most_damaged": 0.5, **more}))


def numbers_in(folder) -> list[int]:
    reader = open_layout(folder)
    return [reader.read(block, row).facts["n"] for block, size in enumerate(reader.sizes) for row in range(size)]


@pytest.mark.parametrize("to", ["webdataset", "folder"])
def test_killed_at_every_step_of_writing(tmp_path, monkeypatch, to):
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # slow, and of no use to a test
    for step in range(1, 100):
        out = tmp_path / f"{to}{step}"
        try:
            with killed_at(step, monkeypatch):
                converter(ImageSet(10, bad=(2, 7)), out, to=to).run()
            break
        except Dead:
            pass
        counts = converter(ImageSet(10, bad=(2, 7)), out, to=to).run()
        assert (counts.written, counts.skipped) == (8, 2)
        assert numbers_in(out) == [0, 1, 3, 4, 5, 6, 8, 9]
        names = [json.loads(line)["key"] for line in (out / "skipped.jsonl").read_text().splitlines()]
        assert names == ["image 2", "image 7"]
        assert not [path for path in out.rglob("*") if path.name.endswith(".draft")]
        assert not (out / "units").exists()
    assert step > 15


def test_what_was_finished_is_not_done_again(tmp_path):
    outcomes = []
    counts = converter(ImageSet(10, bad=(2,)), tmp_path / "out").run(outcomes.append)
    assert outcomes.count("written") == 9
    assert outcomes[2] == "is torn"
    assert converter(ImageSet(10, bad=(2,)), tmp_path / "out").run(outcomes.append) == counts
    assert len(outcomes) == 10
    assert converter(ImageSet(10), tmp_path / "out").done == 10


def test_nothing_good_is_an_error(tmp_path):
    with pytest.raises(RebusError, match="none of 6 records could be written; the first: image 0: is torn"):
        converter(ImageSet(6, bad=range(6)), tmp_path / "out").run()


def test_too_many_damaged_stop_after_a_hundred(tmp_path):
    work = converter(ImageSet(400, bad=range(150, 400, 2)), tmp_path / "out", shard_size=50, most_damaged=0.1)
    with pytest.raises(RebusError, match=r"damaged, more than the fraction 0\.1; the last: image 1"):
        work.run()
    assert 100 <= work.done < 250
    again = converter(ImageSet(400, bad=range(150, 400, 2)), tmp_path / "out", shard_size=50, most_damaged=0.9)
    assert again.run().written == 400 - 125
    assert numbers_in(tmp_path / "out") == [n for n in range(400) if n < 150 or n % 2]


@pytest.mark.parametrize("to", ["folder", "webdataset"])
def test_all_that_a_record_has_comes_back(tmp_path, to):
    thing = Thing(label="cat", box=(1.0, 2.0, 5.0, 6.0), area=16.0, crowd=True, outline=[[1, 2, 5, 2, 5, 6]])
    record = Record(
        key="k",
        image=jpeg(1),
        captions=("one\nline", "two", "two"),
        label="animal",
        questions=(
            Question(text="", answers=("a cat",), is_prompt=True),
            Question(text="What?", answers=("cat", "a cat", "cat"), id="7", kind="other"),
            Question(text="How many?", answers=("1",)),
        ),
        things=(thing,),
        phrases=(Phrase(text="the cat", thing=thing),),
        absent=("dog",),
        incomplete=("ant",),
        facts={"score": 0.5, "file": "elsewhere.jpg"},
    )
    unmarked = Record(key="l", image=jpeg(2), captions=("a",), facts={"boxes": None, "score": [1, 2]})
    records = [record, unmarked]
    reader = type("Two", (), {"sizes": [2], "labels": (), "read": lambda self, block, row: records[row]})()
    converter(reader, tmp_path / "out", to=to).run()
    read = open_layout(tmp_path / "out")
    assert sum(read.sizes) == 2
    assert list(read.labels) == ["animal", "cat"]
    for row, true in enumerate(records):
        back = read.read(0, row)
        for name in ("captions", "label", "questions", "things", "phrases", "absent", "incomplete"):
            assert getattr(back, name) == getattr(true, name), name
        assert back.facts["score"] == true.facts["score"]
        assert ("boxes" in back.facts) == ("boxes" in true.facts)


def test_texts_alone_are_no_pictures(tmp_path):
    reader = type("One", (), {"sizes": [1], "labels": (), "read": lambda *a: Record(key="k", captions=("a",))})()
    with pytest.raises(RebusError, match="k: it has no image"):
        converter(reader, tmp_path / "out").run()
    with pytest.raises(UsageError, match="Parquet"):
        converter(reader, tmp_path / "other", to="parquet")


def test_pictures_stay_as_they_are_unless_asked():
    data = jpeg(1, (90, 60))
    assert fit(data, Fitting()).data is data
    assert fit(data, Fitting(resize=60)).data is data
    small = fit(data, Fitting(resize=20))
    with Image.open(io.BytesIO(small.data)) as picture:
        assert picture.size == small.size == (30, 20)
    assert small.original == (90, 60)


def test_a_turned_picture_becomes_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    fitted = fit(jpeg(1, (90, 60), exif=exif), Fitting(resize=20))
    assert (fitted.size, fitted.original) == ((20, 30), (60, 90))
    with Image.open(io.BytesIO(fitted.data)) as picture:
        assert picture.size == (20, 30)
        assert 0x0112 not in picture.getexif()


@pytest.mark.parametrize("progressive", [False, True])
def test_a_cut_picture_is_found_without_decoding_it_in_full(progressive):
    data = jpeg(1, (900, 600), progressive=progressive)
    assert fit(data, Fitting()).size == (900, 600)
    with pytest.raises(RebusError, match="ends early"):
        fit(data[:-2000], Fitting())
