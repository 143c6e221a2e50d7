"""What is held out is never learned from, whatever splits a data set has."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from rebus.core.errors import UsageError
from rebus.data.held_out import open_parts
from rebus.data.record import Reader


def table(folder: Path, splits: list[str | None]) -> str:
    rows = []
    for number, split in enumerate(splits):
        (folder / f"{number}.jpg").write_bytes(b"\xff\xd8\xff")
        row: dict[str, Any] = {"file": f"{number}.jpg", "caption": f"number {number}"}
        rows.append(row if split is None else {**row, "split": split})
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return str(folder)


def captions(reader: Reader | UsageError) -> list[str]:
    assert not isinstance(reader, UsageError)
    sizes = enumerate(reader.sizes)
    return [reader.read(block, row).captions[0] for block, size in sizes for row in range(size)]


def opened(path: str, split: str | None = "train", val_split: str | None = "val") -> tuple[list[str], list[str]]:
    train, val = open_parts(path, "auto", split, val_split)
    return captions(train), captions(val)


ALL = {f"number {n}" for n in range(30)}


@pytest.mark.parametrize("split, val_split", [("train", "val"), (None, "val"), (None, None), ("train", None)])
def test_a_table_without_splits_holds_out_a_part(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, split: str | None, val_split: str | None
) -> None:
    path = table(tmp_path, [None] * 30)
    with caplog.at_level(logging.WARNING, "rebus"):
        train, val = opened(path, split, val_split)
    assert (len(train), len(val)) == (27, 3)
    assert set(train) | set(val) == ALL
    assert not set(train) & set(val)
    assert opened(path, split, val_split) == (train, val), "always the same ones"
    assert "3 random records of 30 are held out" in caplog.text


@pytest.mark.parametrize("val_split", ["train", "training", None])
def test_a_split_is_not_held_out_from_itself(tmp_path: Path, val_split: str | None) -> None:
    train, val = opened(table(tmp_path, ["train"] * 20 + ["test"] * 10), "train", val_split)
    assert (len(train), len(val)) == (18, 2)
    assert not set(train) & set(val)


def test_splits_of_the_data_set_are_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train, val = opened(table(tmp_path, ["train"] * 20 + ["validation"] * 10))
    assert (len(train), len(val)) == (20, 10)
    assert not caplog.records


def test_one_annotation_file_is_parted(tmp_path: Path) -> None:
    """A file given as the path is every split: both would be the same records."""
    images = [{"id": n, "file_name": f"{n}.jpg"} for n in range(20)]
    for n in range(20):
        (tmp_path / f"{n}.jpg").write_bytes(b"\xff\xd8\xff")
    notes = [{"id": n, "image_id": n, "caption": f"number {n}"} for n in range(20)]
    file = tmp_path / "captions_all.json"
    file.write_text(json.dumps({"images": images, "annotations": notes}))
    train, val = opened(str(file))
    assert (len(train), len(val)) == (18, 2)
    assert not set(train) & set(val)


def test_errors_name_the_setting(tmp_path: Path) -> None:
    path = table(tmp_path, ["train"] * 20)
    with pytest.raises(UsageError, match=r'data\.split=lost: .*no rows of the split "lost"; it has train'):
        open_parts(path, "auto", "lost", "val")
    _, missing = open_parts(path, "auto", "train", "val")
    assert isinstance(missing, UsageError)
    assert str(missing).startswith("data.val_split=val: ")
    assert "data.val_split=none holds out a part" in str(missing)


def test_everything_is_not_learned_while_a_part_is_measured_on(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"data\.split=none learns from every split, data\.val_split=val included"):
        open_parts(table(tmp_path, ["train"] * 20 + ["val"] * 5), "auto", None, "val")


def test_one_record_cannot_be_parted(tmp_path: Path) -> None:
    train, val = open_parts(table(tmp_path, [None]), "auto", "train", "val")
    assert captions(train) == ["number 0"]
    assert isinstance(val, UsageError)


def test_nothing_is_held_out_where_nothing_is_measured(tmp_path: Path) -> None:
    rows = [{"file": f"{n}.png", "caption": "a"} for n in range(10)]
    (tmp_path / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    train, held = open_parts(str(tmp_path), "auto", None, "val", measured=False)
    assert sum(train.sizes) == 10
    assert isinstance(held, UsageError)
    assert "eval_every=0" in str(held)
