"""Parquet files of addresses, or of images, with texts."""

import json
import pickle
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from rebus.core.errors import MissingExtra, RebusError, UsageError
from rebus.data.layouts import coyo, open_layout
from rebus.data.reading.tables import BadTable
from rebus.data.record import BadRecord, Question, Record
from tests.data.layouts.timing import quickest

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

PICTURE = b"\xff\xd8\xff image"


def write(
    path: Path, columns: dict[str, Any], rows_per_group: int = 100, notes: dict[bytes, bytes] | None = None
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    pq.write_table(table.replace_schema_metadata(notes) if notes else table, path, row_group_size=rows_per_group)
    return path


def coyo_columns(count: int) -> dict[str, Any]:
    return {
        "id": list(range(count)),
        "url": [f"http://x/{n}.jpg" for n in range(count)],
        "text": [f"a text {n}" for n in range(count)],
        "width": [640] * count,
        "height": [480] * count,
        "image_phash": [f"{n:016x}" for n in range(count)],
        "clip_similarity_vitb32": [0.25] * count,
        "aesthetic_score_laion_v2": [5.5] * count,
    }


def read_all(reader: coyo.Parquet) -> list[Record]:
    reader = pickle.loads(pickle.dumps(reader))
    return [reader.read(block, row) for block, size in enumerate(reader.sizes) for row in range(size)]


def test_as_coyo_is_released(tmp_path: Path) -> None:
    write(tmp_path / "data" / "part-0.parquet", coyo_columns(5), 2)
    write(tmp_path / "data" / "part-1.parquet", coyo_columns(3))
    reader = open_layout(tmp_path)
    assert isinstance(reader, coyo.Parquet)
    assert (list(reader.sizes), list(reader.labels), reader.faults) == ([2, 2, 1, 3], [], ())
    record = read_all(reader)[4]
    assert (record.key, record.image, record.captions) == ("part-0.parquet[4]", None, ("a text 4",))
    assert record.facts["url"] == "http://x/4.jpg"
    assert record.facts["clip_similarity_vitb32"] == 0.25
    assert "text" not in record.facts
    with pytest.raises(IndexError):
        reader.read(2, 1)


@pytest.mark.parametrize("column", ["image", "jpg"])
@pytest.mark.parametrize("nested", [True, False])
def test_pictures_in_a_column(tmp_path: Path, column: str, nested: bool) -> None:
    images = [PICTURE, PICTURE + b"2"]
    cells: Any = [{"bytes": image, "path": "a.jpg"} for image in images] if nested else images
    write(tmp_path / "train-0.parquet", {column: cells, "caption": ["one", None], "text": [["x", "y"], None]})
    first, second = read_all(open_layout(tmp_path, split="train"))
    assert (first.image, first.captions, first.facts) == (PICTURE, ("one", "x", "y"), {})
    assert (second.image, second.captions) == (images[1], ())
    with pytest.raises(UsageError, match='no files of the split "test"; it has train'):
        open_layout(tmp_path, split="test")


def test_classes_are_named_as_hugging_face_does(tmp_path: Path) -> None:
    notes = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}
    columns = {"image": [PICTURE] * 3, "label": [1, 0, 7]}
    write(tmp_path / "a.parquet", columns, notes={b"huggingface": json.dumps(notes).encode()})
    reader = open_layout(tmp_path)
    assert list(reader.labels) == ["cat", "dog"]
    assert [reader.read(0, n).label for n in range(2)] == ["dog", "cat"]
    with pytest.raises(BadRecord, match="label 7; the file names 2 classes"):
        reader.read(0, 2)


def test_a_column_split_chooses_rows(tmp_path: Path) -> None:
    """nlphuji/flickr30k: one file called test, with three splits in a column."""
    splits = ["train", "val", "test", "train", "validation"]
    images = [PICTURE + bytes([n]) for n in range(5)]
    columns = {"image": images, "caption": [["a", str(n)] for n in range(5)], "split": splits}
    write(tmp_path / "test-00000.parquet", columns, 2)
    found = {split: read_all(coyo.open(tmp_path, split)) for split in ("train", "val", "test", None)}
    captions = {split: [int(record.captions[1]) for record in records] for split, records in found.items()}
    assert captions == {"train": [0, 3], "val": [1, 4], "test": [2], None: [0, 1, 2, 3, 4]}
    assert found["train"][1].key == "test-00000.parquet[3]"
    with pytest.raises(UsageError, match='no files of the split "dev2"'):
        coyo.open(tmp_path, "dev2")


def test_rows_that_img2dataset_failed_to_fetch_are_no_records(tmp_path: Path) -> None:
    columns = {
        "jpg": [PICTURE, None, None],
        "caption": ["a", "b", "c"],
        "status": ["success", "failed_to_download", "failed_to_resize"],
    }
    reader = coyo.open(write(tmp_path / "00000.parquet", columns), None)
    assert [record.captions for record in read_all(reader)] == [("a",)]


@pytest.mark.parametrize("column", ["labels", "fine_label", "coarse_label"])
def test_other_names_of_the_label(tmp_path: Path, column: str) -> None:
    notes = {"info": {"features": {column: {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}
    columns = {"img": [PICTURE], column: [1]}
    path = write(tmp_path / "a.parquet", columns, notes={b"huggingface": json.dumps(notes).encode()})
    reader = coyo.open(path, None)
    assert (reader.labels, reader.read(0, 0).label) == (("cat", "dog"), "dog")


def test_the_finer_of_two_labels(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.parquet", {"img": [PICTURE], "coarse_label": [3], "fine_label": [44], "labels": [[1, 2]]}
    )
    record = coyo.open(path, None).read(0, 0)
    assert (record.label, record.facts) == ("44", {"coarse_label": 3, "labels": [1, 2]})


@pytest.mark.parametrize("corners", [True, False], ids=["by corners", "left, top, width, height"])
@pytest.mark.parametrize("listed", [True, False], ids=["a list of objects", "an object of lists"])
def test_objects(tmp_path: Path, listed: bool, corners: bool) -> None:
    """detection-datasets' Parquet files have boxes by corners, cppe-5 and the guide of Hugging Face as COCO."""
    true = [(10.0 + n, 40.0, 15.0 + n, 50.0) for n in range(30)]
    boxes = [list(box) if corners else [box[0], box[1], 5.0, 10.0] for box in true]
    items: list[Any] = [{"bbox": box, "category": n % 2, "area": 50.0, "id": n} for n, box in enumerate(boxes)]
    cell = items if listed else {name: [item[name] for item in items] for name in items[0]}
    category = {"names": ["cat", "dog"], "_type": "ClassLabel"}
    feature: Any = [{"category": category}] if listed else {"feature": {"category": category}, "_type": "Sequence"}
    notes = {b"huggingface": json.dumps({"info": {"features": {"objects": feature}}}).encode()}
    path = write(tmp_path / "a.parquet", {"image": [PICTURE], "objects": [cell]}, notes=notes)
    reader = coyo.open(path, None)
    record = reader.read(0, 0)
    assert reader.labels == ("cat", "dog")
    assert [thing.box for thing in record.things] == true
    assert [thing.label for thing in record.things[:2]] == ["cat", "dog"]
    assert (record.things[3].area, record.things[3].id, record.facts) == (50.0, "3", {})


@pytest.mark.parametrize("listed", [True, False])
def test_answers_as_objects(tmp_path: Path, listed: bool) -> None:
    """VQAv2 and VizWiz as Hugging Face has them."""
    answers: Any = [{"answer": "net", "answer_confidence": "yes"}, {"answer": "a net", "answer_confidence": "maybe"}]
    if not listed:
        answers = {name: [item[name] for item in answers] for name in answers[0]}
    columns = {
        "image": PICTURE,
        "question": "What is it?",
        "answers": answers,
        "multiple_choice_answer": "net",
        "question_id": 7,
        "question_type": "what is",
        "answer_type": "other",
    }
    path = write(tmp_path / "a.parquet", {name: [value] for name, value in columns.items()})
    record = coyo.open(path, None).read(0, 0)
    assert record.questions == (Question(text="What is it?", answers=("net", "a net"), id="7", kind="other"),)
    assert record.facts == {}


def test_names_of_columns_in_any_case(tmp_path: Path) -> None:
    laion = write(
        tmp_path / "laion.parquet", {"URL": ["http://x/1.jpg"], "TEXT": ["a text"], "WIDTH": [3], "NSFW": [0]}
    )
    assert coyo.recognises(laion)
    record = coyo.open(laion, None).read(0, 0)
    assert record.captions == ("a text",)
    assert record.facts == {"url": "http://x/1.jpg", "width": 3, "NSFW": 0}
    images = write(tmp_path / "images.parquet", {"Image": [PICTURE], "Caption": ["one"]})
    record = coyo.open(images, None).read(0, 0)
    assert (record.image, record.captions) == (PICTURE, ("one",))


@pytest.mark.parametrize(
    "row, says",
    [
        ({"image": {"bytes": None, "path": "b.jpg"}, "text": "x"}, r"image holds only the name 'b\.jpg'"),
        ({"image": None, "text": "x"}, "no image in the column image"),
        ({"image": {"bytes": b"", "path": None}, "text": "x"}, "no image in the column image"),
    ],
)
def test_a_row_without_a_picture_is_named(tmp_path: Path, row: dict[str, Any], says: str) -> None:
    good = {"image": {"bytes": PICTURE, "path": "a.jpg"}, "text": "x"}
    columns = {name: [good[name], row[name]] for name in good}
    reader = coyo.open(write(tmp_path / "a.parquet", columns), None)
    assert reader.read(0, 0).image == PICTURE
    with pytest.raises(BadRecord, match=rf"^a\.parquet\[1\]: {says}"):
        reader.read(0, 1)


def test_a_row_without_a_text_is_named(tmp_path: Path) -> None:
    reader = coyo.open(write(tmp_path / "a.parquet", {"url": ["u", "v"], "text": ["x", None]}), None)
    with pytest.raises(BadRecord, match=r"^a\.parquet\[1\]: has no text"):
        reader.read(0, 1)


def test_damaged_files_are_faults_and_damaged_groups_bad_records(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", coyo_columns(200), 100)
    whole = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "b.parquet").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "c.parquet").write_bytes(b"")
    spoilt = bytearray(whole)
    start = pq.ParquetFile(tmp_path / "a.parquet").metadata.row_group(1).column(1).data_page_offset
    spoilt[start : start + 40] = b"\xff" * 40
    (tmp_path / "a.parquet").write_bytes(spoilt)
    reader = open_layout(tmp_path)
    assert isinstance(reader, coyo.Parquet)
    assert list(reader.sizes) == [100, 100]
    assert [fault.split(": ")[0] for fault in reader.faults] == [str(tmp_path / f"{n}.parquet") for n in "bc"]
    assert reader.read(0, 99).captions == ("a text 99",)
    for _ in range(2):
        with pytest.raises(BadRecord, match=r"^a\.parquet\[100\]: row group 1: cannot be read as Parquet"):
            reader.read(1, 0)


def test_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a" / "a.parquet", {"x": [1], "url": ["u"]})
    assert not coyo.recognises(path)
    with pytest.raises(BadTable, match=r"its columns are x, url; expected url and text.*or images as bytes"):
        coyo.open(path, None)
    write(tmp_path / "b" / "a.parquet", {"url": ["u"], "text": ["t"]})
    write(tmp_path / "b" / "b.parquet", {"url": ["u"], "txt": ["t"]})
    with pytest.raises(BadTable, match=r"its columns \(url, txt\) are not those of a\.parquet"):
        coyo.open(tmp_path / "b", None)
    (tmp_path / "c.parquet").write_bytes(b"PAR1")
    with pytest.raises(BadTable, match=r"c\.parquet: cannot be read as Parquet"):
        coyo.open(tmp_path / "c.parquet", None)
    (tmp_path / "b" / "0.tar").touch()
    assert not coyo.recognises(tmp_path / "b")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtra, match=r'needs the extra "data"'):
        coyo.open(path, None)


def test_a_file_that_changes_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", coyo_columns(3))
    reader = coyo.open(path, None)
    write(path, coyo_columns(30))
    with pytest.raises(RebusError, match="has changed since it was opened"):
        reader.read(0, 0)


def test_threads_read_a_row_group_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = coyo.open(write(tmp_path / "a.parquet", coyo_columns(1_000), 1_000), None)
    calls: list[int] = []
    read_group = coyo._read_group
    monkeypatch.setattr(coyo, "_read_group", lambda *name: (calls.append(1), time.sleep(0.05), read_group(*name))[2])
    threads = [threading.Thread(target=reader.read, args=(0, n)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert quickest(lambda: [reader.read(0, row) for row in range(1_000)]) < 1


def test_a_file_that_goes_away_takes_its_records_alone(tmp_path: Path) -> None:
    for name in "ab":
        write(tmp_path / f"{name}.parquet", coyo_columns(2))
    reader = coyo.open(tmp_path, None)
    (tmp_path / "a.parquet").unlink()
    with pytest.raises(BadRecord, match=r"^a\.parquet.*cannot be read: No such file"):
        reader.read(0, 0)
    assert reader.read(1, 0).captions


def test_rows_with_the_same_image_and_label_are_one_record(tmp_path: Path) -> None:
    """Within the split that is read, across row groups; one that cannot be read is alone."""
    images = [PICTURE + b"a", PICTURE + b"b", PICTURE + b"a", PICTURE + b"a", None, None, PICTURE + b"a"]
    columns = {
        "image": images,
        "caption": list("abcdefg"),
        "label": [1, 1, 1, 2, 1, 1, 1],
        "split": ["train"] * 6 + ["test"],
    }
    write(tmp_path / "a.parquet", columns, 2)
    reader = coyo.open(tmp_path, "train")
    assert list(reader.sizes) == [2, 1, 2, 0]
    found = [reader.read(*place).captions for place in ((0, 0), (0, 1), (1, 0))]
    assert found == [("a", "c"), ("b",), ("d",)]
    with pytest.raises(BadRecord, match=r"a\.parquet\[5\]: no image"):
        reader.read(2, 1)
    whole = coyo.open(tmp_path, None)
    assert whole.read(0, 0).captions == ("a", "c", "g")
    assert sum(whole.sizes) == 5
