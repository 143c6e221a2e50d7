"""Which files a path means."""

from pathlib import Path

import pytest

from rebus.core.errors import MissingFile, UsageError
from rebus.data.reading.shard_files import shards


def make(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def names(files: list[Path]) -> list[str]:
    return [file.name for file in files]


def test_a_folder_a_file_and_patterns(tmp_path: Path) -> None:
    make(tmp_path, *(f"{n:05}.tar" for n in range(12)), "00000.parquet", "a[b].tar", ".hidden.tar")
    assert len(shards(tmp_path, (".tar",))) == 13
    assert names(shards(tmp_path / "00003.tar", (".tar",))) == ["00003.tar"]
    assert names(shards(tmp_path / "{00009..00011}.tar", (".tar",))) == ["00009.tar", "00010.tar", "00011.tar"]
    assert names(shards(tmp_path / "0000{1,3}.tar", (".tar",))) == ["00001.tar", "00003.tar"]
    assert len(shards(tmp_path / "0*.tar", (".tar",))) == 12
    assert names(shards(tmp_path / "a[b].tar", (".tar",))) == ["a[b].tar"]
    with pytest.raises(MissingFile, match=r"00012\.tar: no such file; \{00011\.\.00013\}\.tar names 3"):
        shards(tmp_path / "{00011..00013}.tar", (".tar",))
    with pytest.raises(MissingFile, match=r"no files \*\.zip"):
        shards(tmp_path, (".zip",))
    with pytest.raises(UsageError, match="count upwards"):
        shards(tmp_path / "{0..99999999}.tar", (".tar",))


def test_splits_are_in_names_or_folders(tmp_path: Path) -> None:
    flat = make(tmp_path / "flat", "cc-train-0000.tar", "cc-validation-0000.tar")
    deep = make(tmp_path / "deep", "train/00.tar", "train/01.tar", "val/00.tar")
    none = make(tmp_path / "none", "00.tar")
    assert names(shards(flat, (".tar",), "val")) == ["cc-validation-0000.tar"]
    assert len(shards(deep, (".tar",), "train")) == 2
    assert len(shards(deep, (".tar",))) == 3
    assert len(shards(deep / "train", (".tar",), "train")) == 2
    with pytest.raises(UsageError, match='no files of the split "test"; it has train, validation'):
        shards(flat, (".tar",), "test")
    with pytest.raises(UsageError, match="do not show it"):
        shards(none, (".tar",), "train")
