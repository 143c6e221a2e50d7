"""Karpathy's splits: sentences as typed, "train" with "restval"."""

import pickle
from pathlib import Path

import pytest

from rebus.core.errors import RebusError, UsageError
from rebus.data.layouts import karpathy, open_layout
from rebus.data.layouts.karpathy import Karpathy
from rebus.data.record import BadRecord
from tests.data.layouts_annotated.samples import picture, write


def entry(number: int, split: str, *texts: str) -> dict[str, object]:
    sentences = [
        {"tokens": text.lower().split(), "raw": text, "imgid": number, "sentid": at} for at, text in enumerate(texts)
    ]
    return {
        "filename": f"{number}.jpg",
        "filepath": "val2014",
        "cocoid": number,
        "imgid": 0,
        "split": split,
        "sentences": sentences,
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    images = [
        entry(1, "train", "A dog."),
        entry(2, "restval", "Ein Käfer."),
        entry(3, "val", "One", "Two"),
        entry(4, "test", "X"),
    ]
    write(tmp_path / "dataset_coco.json", {"images": images, "dataset": "coco"})
    for number in range(1, 5):
        picture(tmp_path / "val2014" / f"{number}.jpg")
    return tmp_path


def test_train_takes_restval_in(folder: Path) -> None:
    reader = pickle.loads(pickle.dumps(open_layout(folder, split="train")))
    assert reader.sizes == (2,)
    assert [reader.read(0, row).captions for row in range(2)] == [("A dog.",), ("Ein Käfer.",)]
    assert Karpathy(folder, "restval").sizes == (1,)
    record = Karpathy(folder).read(0, 0)
    assert (record.key, record.captions) == ("dataset_coco.json:3", ("One", "Two"))
    assert record.image == folder / "val2014" / "3.jpg"
    assert record.facts == {"image_id": 3, "file_name": "3.jpg", "split": "val"}
    with pytest.raises(UsageError, match='no split "valid"; there are restval, test, train, val'):
        Karpathy(folder, "valid")


def test_flickr_has_no_folders_in_it(tmp_path: Path) -> None:
    item = {**entry(36979, "test", "Two men."), "imgid": 5}
    item.pop("cocoid"), item.pop("filepath")
    file = write(tmp_path / "dataset_flickr30k.json", {"images": [item], "dataset": "flickr30k"})
    picture(tmp_path / "flickr30k-images" / "36979.jpg")
    record = open_layout(file, split="test").read(0, 0)
    assert (record.key, record.captions) == ("dataset_flickr30k.json:5", ("Two men.",))


def test_damaged_entries_and_files(folder: Path) -> None:
    images = [
        entry(3, "val", "One"),
        "nothing",
        {**entry(4, "val"), "sentences": [{"tokens": []}]},
        entry(9, "val", "No image"),
    ]
    write(folder / "dataset_coco.json", {"images": images})
    reader = Karpathy(folder)
    assert reader.sizes == (4,)
    assert reader.read(0, 0).captions == ("One",)
    for row, message in [(1, "should be an object"), (2, 'coco.json:4: "raw" is missing'), (3, "9.jpg is missing")]:
        with pytest.raises(BadRecord, match=message):
            reader.read(0, row)
    (folder / "dataset_coco.json").write_text('{"images": [\n {"split": }]}')
    with pytest.raises(RebusError, match=r"dataset_coco.json:2:12: damaged JSON"):
        Karpathy(folder)


def test_a_file_called_dataset_is_told_by_what_is_in_it(tmp_path: Path) -> None:
    entry = {"filename": "a.jpg", "imgid": 0, "split": "val", "sentences": [{"raw": "A cat ."}]}
    write(tmp_path / "dataset.json", {"images": [entry], "dataset": "flickr8k"})
    picture(tmp_path / "images" / "a.jpg")
    assert open_layout(tmp_path).read(0, 0).captions == ("A cat .",)
    write(tmp_path / "other" / "dataset.json", {"name": "not his"})
    assert not karpathy.recognises(tmp_path / "other")
