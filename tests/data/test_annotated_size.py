"""Boxes follow their image: scaled with it, and refused where the image is not the one that was annotated."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import rebus
from rebus.codec.boxes import LOC_1024
from rebus.core.answers import Box, Mask
from rebus.core.errors import RebusError
from rebus.core.specs import Prompts
from rebus.data.converting import Conversion, Converter
from rebus.data.file_records import Files, file_batches
from rebus.data.layouts import open_layout
from rebus.data.outlines import mask_of, outline_of
from rebus.data.record import Phrase, Record, Thing
from rebus.data.resize_images import Fitting
from rebus.evaluate.benchmarks import detection
from rebus.evaluate.benchmarks.walk import Source

BOX = [400, 300, 200, 150]
CORNERS = (400.0, 300.0, 600.0, 450.0)
POLYGON = [400, 300, 600, 300, 600, 450, 400, 450]


def coco(at: Path, said=(800, 600), file=(800, 600), orientation: int = 1, box=BOX) -> Path:
    """One image with one box, as a single file of annotations beside it."""
    at.mkdir()
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", file, (20, 90, 160)).save(at / "1.jpg", exif=exif)
    annotation = {"id": 5, "image_id": 1, "category_id": 3, "bbox": box, "area": 30_000, "segmentation": [POLYGON]}
    image = {"id": 1, "file_name": "1.jpg", "width": said[0], "height": said[1]}
    content = {"images": [image], "annotations": [annotation], "categories": [{"id": 3, "name": "dog"}]}
    (at / "things.json").write_text(json.dumps(content))
    return at / "things.json"


def converted(source: Any, out: Path, to: str, resize: int | None = 400) -> Record:
    settings = Conversion(to=to, fitting=Fitting(resize=resize), threads=1)  # type: ignore[arg-type]
    Converter(source, out, {}, settings).run()
    return open_layout(out).read(0, 0)


class Reads:
    """A reader of one record."""

    sizes, labels = (1,), ()

    def __init__(self, record: Record):
        self.record = record

    def read(self, block: int, row: int) -> Record:
        return self.record


@pytest.mark.parametrize("to", ["folder", "webdataset"])
def test_boxes_outlines_and_areas_are_resized_with_the_image(tmp_path: Path, to: str) -> None:
    record = converted(open_layout(coco(tmp_path / "in"), "coco"), tmp_path / "out", to)
    (thing,) = record.things
    assert thing.box == pytest.approx((800 / 3, 200, 400, 300))
    assert thing.area == pytest.approx(30_000 * 4 / 9)
    assert thing.outline == [pytest.approx([at * 2 / 3 for at in POLYGON])]
    assert (record.facts["width"], record.facts["height"]) == (533, 400)
    assert (record.facts["original_width"], record.facts["original_height"]) == (800, 600)
    data = record.image if isinstance(record.image, bytes) else record.image.read_bytes()
    assert Image.open(io.BytesIO(data)).size == (533, 400)


def test_runs_and_phrases_are_resized_and_boxes_stay_inside(tmp_path: Path) -> None:
    mask = np.zeros((600, 800), dtype=bool)
    mask[300:450, 400:600] = True
    image = Image.new("RGB", (800, 600))
    file = io.BytesIO()
    image.save(file, "PNG")
    runs = Thing(label="dog", box=(0.0, 0.0, 800.0, 600.0), outline=outline_of(mask))
    phrase = Phrase(text="the dog", thing=Thing(label="dog", box=CORNERS, area=30_000.0))
    record = Record(key="k", image=file.getvalue(), things=(runs,), phrases=(phrase,))
    small = converted(Reads(record), tmp_path / "out", "webdataset")
    assert small.things[0].box == (0.0, 0.0, 533.0, 400.0)
    drawn = mask_of(small.things[0].outline, 400, 533)
    rows, columns = np.flatnonzero(drawn.any(1)), np.flatnonzero(drawn.any(0))
    assert (rows[0], rows[-1] + 1) == (200, 300)
    assert abs(columns[0] - 266.7) < 1
    assert abs(columns[-1] + 1 - 400) < 1
    assert small.phrases[0].thing.box == pytest.approx((800 / 3, 200, 400, 300))
    assert small.phrases[0].thing.area == pytest.approx(30_000 * 4 / 9)


class Perfect:
    """A detector that sees the true boxes of images of one size."""

    tasks = frozenset({"detect"})

    def __init__(self, box: tuple[float, ...]):
        self.box = box

    def detect(self, images, labels):
        return [[Box(self.box, "dog", 1.0)] for _ in images]


class Drawn:
    """A model that segments the true outline, scaled."""

    tasks = frozenset({"segment"})

    def __init__(self, scale: float):
        self.scale = scale

    def segment(self, images, labels):
        masks = [mask_of([[self.scale * at for at in POLYGON]], image.height, image.width) for image in images]
        return [[Mask(mask, (0.0, 0.0, 1.0, 1.0), "dog", 1.0)] for mask in masks]


def test_a_perfect_detector_stays_perfect_on_the_converted_set(tmp_path: Path) -> None:
    source = coco(tmp_path / "in")
    whole = detection.run(Perfect(CORNERS), Source(source, "coco"), detection.Options())
    converted(open_layout(source, "coco"), tmp_path / "out", "folder")
    small = detection.run(Perfect((800 / 3, 200.0, 400.0, 300.0)), Source(tmp_path / "out"), detection.Options())
    assert whole.scores["ap"] == small.scores["ap"] == 1.0


MISMATCHES = [
    ({"file": (400, 400)}, r"its boxes are for an image of 800 x 600, and this one has 400 x 400; give"),
    ({"file": (404, 300)}, r"its boxes are for an image of 800 x 600, and this one has 404 x 300; give"),
    ({"orientation": 6}, r"800 x 600, and this one has 600 x 800 once its EXIF orientation has set it upright"),
]


@pytest.mark.parametrize("change, says", MISMATCHES)
def test_annotations_of_another_size_are_refused_in_training(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    source = coco(tmp_path / "in", box=[400, 300, 400, 300], **change)
    files = Files(path=str(source), layout="coco", split=None, form="detect")
    processor = rebus.load("paligemma/scenes").processor
    with pytest.raises(RebusError, match=says):
        file_batches(files, processor, Prompts(detect="detect {labels}"), LOC_1024).batch(0, 0, 1)


def said_once(log: pytest.LogCaptureFixture) -> bool:
    lines = [line for line in log.messages if "its boxes, and those of all others like it, are scaled" in line]
    log.clear()
    return len(lines) == 1 and "annotated for 800 x 600" in lines[0]


# 533 x 400 and 267 x 201: sides rounded to whole pixels, one up and one down
@pytest.mark.parametrize("file", [(400, 300), (533, 400), (267, 200), (267, 201), (1600, 1200)])
def test_images_made_smaller_after_they_were_annotated(
    tmp_path: Path, file: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    """Of the same aspect: scaled, and said once, in training, evaluation and conversion alike."""
    box, scale = [400, 300, 400, 300], file[0] / 800
    processor = rebus.load("paligemma/scenes").processor
    targets = []
    for number, size in enumerate([(800, 600), file]):
        files = Files(path=str(coco(tmp_path / str(number), file=size, box=box)), split=None, form="detect")
        batches = file_batches(files, processor, Prompts(detect="detect {labels}"), LOC_1024)
        targets.append([text.text for n in range(3) for text in batches.texts(0, n, 1)])
    assert said_once(caplog)
    assert targets[0] == targets[1] == ["<loc0512><loc0512><loc1023><loc1023> dog"] * 3
    source = tmp_path / "1" / "things.json"
    for by, model in (
        ("boxes", Perfect((400 * scale, 300 * scale, 800 * scale, 600 * scale))),
        ("masks", Drawn(scale)),
    ):
        scores = detection.run(model, Source(source, "coco"), detection.Options(by=by)).scores
        assert scores["ap"] == 1.0
        assert said_once(caplog)
    record = converted(open_layout(source, "coco"), tmp_path / "out", "webdataset", 150)
    assert said_once(caplog)
    small = 150 / file[1]
    assert record.things[0].box == pytest.approx([small * scale * side for side in (400, 300, 800, 600)], abs=1)
    assert record.things[0].area == pytest.approx(30_000 / 16, rel=0.02)
    assert detection.run(Perfect((100.0, 75.0, 200.0, 150.0)), Source(tmp_path / "out"), detection.Options()).scores[
        "ap"
    ]


@pytest.mark.parametrize("resize", [None, 200])
@pytest.mark.parametrize("change, says", MISMATCHES)
def test_a_conversion_launders_no_mismatch(
    tmp_path: Path, change: dict[str, Any], says: str, resize: int | None
) -> None:
    with pytest.raises(RebusError, match=says):
        converted(open_layout(coco(tmp_path / "in", **change), "coco"), tmp_path / "out", "webdataset", resize)
    with pytest.raises(RebusError, match=says):
        detection.run(Perfect(CORNERS), Source(tmp_path / "in" / "things.json", "coco"), detection.Options())


def test_sizes_in_a_table_of_text_are_numbers(tmp_path: Path) -> None:
    """CSV holds sizes as text, which once differed from every image."""
    Image.new("RGB", (80, 60)).save(tmp_path / "1.png")
    boxes = json.dumps([{"label": "dog", "xyxy": [1, 2, 30, 40]}]).replace('"', '""')
    (tmp_path / "captions.csv").write_text(f'file,width,height,boxes\n1.png,80,60,"{boxes}"\n')
    scores = detection.run(Perfect((1.0, 2.0, 30.0, 40.0)), Source(tmp_path), detection.Options()).scores
    assert scores["ap"] == 1.0
