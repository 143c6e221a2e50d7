"""COCO as unpacked: captions and things of an image together; damage stays with its record."""

import pickle
from pathlib import Path
from typing import Any

import pytest

from rebus.core.errors import RebusError, UsageError
from rebus.data.layouts import open_layout
from rebus.data.layouts.coco import Coco
from rebus.data.reading.shard_files import NoSplits
from rebus.data.record import BadRecord
from tests.data.layouts_annotated.samples import PICTURES, RUNS, SQUARE, captions, instances, picture, write


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    write(tmp_path / "annotations" / "instances_val2017.json", instances())
    write(tmp_path / "annotations" / "captions_val2017.json", captions())
    for item in PICTURES:
        picture(tmp_path / "val2017" / item["file_name"])
    return tmp_path


def with_things(folder: Path, **changes: Any) -> Coco:
    """The sample with the first annotation, of image 285, changed; None takes a field away."""
    content = instances()
    content["annotations"][0] |= changes
    content["annotations"][0] = {name: value for name, value in content["annotations"][0].items() if value is not None}
    write(folder / "annotations" / "instances_val2017.json", content)
    return Coco(folder)


def test_captions_and_things_of_a_picture_are_one_record(coco: Path) -> None:
    reader = open_layout(coco)
    assert list(reader.sizes) == [3]
    assert reader.labels == ("person", "Käfer", "dog")
    record = reader.read(0, 1)
    assert record.key == "instances_val2017.json:285"
    assert record.image == coco / "val2017" / "000000000285.jpg"
    assert record.captions == ("Ein Käfer und ein Hund, „nah“.",)
    dog, beetles = record.things
    assert (dog.label, dog.box, dog.outline, dog.crowd, dog.area, dog.id) == (
        "dog",
        (10, 10, 30, 30),
        SQUARE,
        False,
        400,
        "7",
    )
    assert (beetles.label, beetles.box, beetles.outline, beetles.crowd) == ("Käfer", (2, 4, 3, 24), RUNS, True)
    assert record.facts == {"image_id": 285, "file_name": "000000000285.jpg", "width": 64, "height": 48}
    assert reader.read(0, 0).captions == ("A person in a room.", "Somebody stands.")
    assert reader.read(0, 2).things == ()


def test_one_file_alone_and_pictures_elsewhere(coco: Path) -> None:
    (coco / "val2017").rename(coco / "images")
    things = open_layout(coco / "annotations" / "instances_val2017.json")
    texts = open_layout(coco / "annotations" / "captions_val2017.json")
    assert things.read(0, 1).captions == ()
    assert len(things.read(0, 1).things) == 2
    assert texts.read(0, 1).things == ()
    assert texts.read(0, 1).image == coco / "images" / "000000000285.jpg"
    beside = write(coco / "images" / "_annotations.coco.json", instances())
    assert open_layout(beside).read(0, 0).image == coco / "images" / "000000000139.jpg"


def test_splits_and_years(coco: Path) -> None:
    write(coco / "annotations" / "captions_train2014.json", captions())
    write(coco / "annotations" / "captions_train2017.json", captions())
    picture(coco / "train2017" / "000000000139.jpg")
    assert Coco(coco, "train").read(0, 0).key == "captions_train2017.json:139"
    assert Coco(coco, "train2014").read(0, 0).key == "captions_train2014.json:139"
    with pytest.raises(UsageError, match='no split "test"; there are train2014, train2017, val2017'):
        Coco(coco, "test")


def test_it_goes_to_a_worker_small_and_reads_there(coco: Path) -> None:
    many = instances()
    many["annotations"] = [{**many["annotations"][0], "segmentation": SQUARE * 50, "id": n} for n in range(500)]
    write(coco / "annotations" / "instances_val2017.json", many)
    reader = open_layout(coco)
    sent = pickle.dumps(reader)
    assert len(sent) < 25_000 < (coco / "annotations" / "instances_val2017.json").stat().st_size / 10
    again = pickle.loads(sent)
    assert again.read(0, 1) == reader.read(0, 1)
    assert len(again.read(0, 1).things) == 500


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bbox": [1, 2, 3]}, "four finite numbers"),
        ({"bbox": [1, 2, float("nan"), 3]}, "four finite numbers"),
        ({"bbox": [1, 2, -3, 3]}, "negative size"),
        ({"bbox": None}, '"bbox" is missing'),
        ({"category_id": 99}, "no category 99"),
        ({"category_id": [1]}, '"category_id" should be an id'),
        ({"area": "large"}, '"area" should be a finite number'),
    ],
)
def test_a_damaged_annotation_is_one_damaged_record(coco: Path, changes: dict[str, Any], message: str) -> None:
    reader = with_things(coco, **changes)
    with pytest.raises(BadRecord, match=f"^instances_val2017.json:285: annotation 7: .*{message}"):
        reader.read(0, 1)
    assert len(reader.read(0, 0).things) == 1


def test_what_belongs_to_no_picture_is_a_record_of_its_own(coco: Path) -> None:
    content = instances()
    content["annotations"] += [{"id": 50, "image_id": 4}, {"id": 51}, "nothing"]
    content["images"] += [{"file_name": "a.jpg"}, content["images"][0]]
    write(coco / "annotations" / "instances_val2017.json", content)
    reader = Coco(coco)
    assert reader.sizes == (8,)
    messages = []
    for row in range(3, 8):
        with pytest.raises(BadRecord) as error:
            reader.read(0, row)
        messages.append(str(error.value))
    assert any(message == "instances_val2017.json:annotation 50: there is no image 4" for message in messages)
    assert any(
        message == "instances_val2017.json:annotation 51: an annotation without an image_id" for message in messages
    )
    assert any("another image has the id 139" in message for message in messages)
    assert any("an image without an id" in message for message in messages)
    with pytest.raises(IndexError):
        reader.read(0, 8)


def test_missing_pictures_and_names_that_lead_away(coco: Path) -> None:
    (coco / "val2017" / "000000000139.jpg").unlink()
    content = instances()
    for name in ("../../secret.jpg", "/etc/hostname", "C:\\secret.jpg"):
        content["images"][1]["file_name"] = name
        write(coco / "annotations" / "instances_val2017.json", content)
        reader = Coco(coco)
        with pytest.raises(BadRecord, match=r"285: .* is not the name of a file inside"):
            reader.read(0, 1)
    with pytest.raises(BadRecord, match=r"139: 000000000139.jpg is missing; looked in"):
        reader.read(0, 0)
    assert reader.read(0, 2).captions == ("A bed.",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty file"),
        ('{"images": [\n{"id": 1,}\n]}', r"instances_val2017.json:2:10: damaged JSON"),
        ('{"images": [{"id": 1}], "annotations": [', "1:41: damaged JSON"),
        ('{"images": [{"id": 1}], "annotations": [] "x": 1}', r"1:43: damaged JSON: expected ',' or '}'"),
        ('{"images": [{"id": 1}]} and more', "1:25: damaged JSON: trailing characters"),
        ("[1, 2]", "no images"),
        ('{"annotations": []}', "no images"),
        ('{"images": [{"id": 1}], "categories": [{"id": 3}]}', 'categories: "name" is missing'),
        ("[" * 100_000, "damaged JSON"),
    ],
)
def test_a_damaged_file_is_named_with_line_and_column(coco: Path, text: str, message: str) -> None:
    (coco / "annotations" / "instances_val2017.json").write_text(text)
    with pytest.raises(RebusError, match=message) as error:
        Coco(coco)
    assert "\n" not in str(error.value)
    assert "instances_val2017.json" in str(error.value)


def test_a_file_that_changes_later_is_damaged_records(coco: Path) -> None:
    reader = Coco(coco)
    write(coco / "annotations" / "instances_val2017.json", {**instances(), "more": 1})
    with pytest.raises(BadRecord, match="has changed since it was opened"):
        reader.read(0, 1)


@pytest.mark.parametrize("name", ["instances.json", "result.json", "_annotations.coco.json"])
def test_a_lone_file_beside_images(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, {**instances(), "images": [{**one, "file_name": "a.jpg"} for one in PICTURES[:1]]})
    picture(tmp_path / "images" / "a.jpg")
    record = open_layout(tmp_path).read(0, 0)
    assert record.image == tmp_path / "images" / "a.jpg"
    assert record.things
    with pytest.raises(NoSplits):
        open_layout(tmp_path, split="train")


@pytest.mark.parametrize("name", ["images/a.jpg", "images\\a.jpg", "ROOT/images/a.jpg"])
def test_label_studio_s_export(tmp_path: Path, name: str) -> None:
    """As its converter writes it: a path from the folder, by the system's own sign, or an absolute one."""
    box = {"id": 0, "image_id": 0, "category_id": 0, "segmentation": [], "bbox": [1, 2, 3, 4], "ignore": 0}
    polygon = {**box, "id": 1, "segmentation": [[1.5, 2.0, 4.0, 2.0, 4.0, 6.0]], "bbox": (1.5, 2.0, 2.5, 4.0)}
    content = {
        "images": [{"width": 64, "height": 48, "id": 0, "file_name": name.replace("ROOT", str(tmp_path))}],
        "categories": [{"id": 0, "name": "Airplane"}],
        "annotations": [{**item, "iscrowd": 0, "area": 12} for item in (box, polygon)],
        "info": {"contributor": "Label Studio"},
    }
    write(tmp_path / "result.json", content)
    picture(tmp_path / "images" / "a.jpg")
    record = open_layout(tmp_path).read(0, 0)
    assert record.image == tmp_path / "images" / "a.jpg"
    assert [(thing.label, thing.box, thing.outline) for thing in record.things] == [
        ("Airplane", (1, 2, 4, 6), None),
        ("Airplane", (1.5, 2, 4, 6), [[1.5, 2.0, 4.0, 2.0, 4.0, 6.0]]),
    ]


def test_roboflows_folders_are_splits(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        content = {**instances(), "images": [{**one, "file_name": f"{split}.jpg"} for one in PICTURES[:1]]}
        write(tmp_path / split / "_annotations.coco.json", content)
        picture(tmp_path / split / f"{split}.jpg")
    assert open_layout(tmp_path, split="train").read(0, 0).image == tmp_path / "train" / "train.jpg"
    assert open_layout(tmp_path, split="val").read(0, 0).image == tmp_path / "valid" / "valid.jpg"
