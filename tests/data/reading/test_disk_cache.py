"""What is found out once is found again, and never believed about another file."""

import os
from pathlib import Path

import numpy as np
import pytest

from rebus.data.reading.disk_cache import cache_folder, kept, place
from rebus.data.reading.packed_names import PackedNames


class Maker:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> dict[str, np.ndarray]:
        self.calls += 1
        return {"numbers": np.arange(self.calls)}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "a.tar").write_bytes(b"1234")
    return tmp_path / "a.tar"


def test_made_once_and_again_when_the_file_changes(source: Path) -> None:
    make = Maker()
    for _ in range(3):
        assert kept("kind", [source], make)["numbers"].tolist() == [0]
    source.write_bytes(b"12345")
    assert kept("kind", [source], make)["numbers"].tolist() == [0, 1]
    os.utime(source, (1, 1))
    assert len(kept("kind", [source], make)["numbers"]) == 3
    assert len(kept("other", [source], make)["numbers"]) == 4
    assert make.calls == 4


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 no archive", None])
def test_a_damaged_index_is_made_anew(source: Path, damage: bytes | None) -> None:
    make = Maker()
    kept("kind", [source], make)
    target = place("kind", [source])
    target.write_bytes(target.read_bytes()[:-30] if damage is None else damage)
    kept("kind", [source], make)
    kept("kind", [source], make)
    assert make.calls == 2


def test_pickles_in_the_cache_are_not_read(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = Maker()
    kept("kind", [source], make)
    np.savez(place("kind", [source]), stamp=np.array([object()], dtype=object))
    assert kept("kind", [source], make)["numbers"].tolist() == [0, 1]


def test_without_a_cache_only_time_is_lost(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    make = Maker()
    monkeypatch.setattr(os, "replace", full)
    assert kept("kind", [source], make)["numbers"].tolist() == [0]
    assert kept("kind", [source], make)["numbers"].tolist() == [0, 1]
    assert not [file for file in cache_folder().rglob("*") if file.is_file()]


def test_an_error_keeps_nothing(source: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        kept("kind", [source], lambda: {"numbers": np.array([1 // 0])})
    assert not place("kind", [source]).exists()


def test_names_come_back_packed() -> None:
    names = ["", "a", "ünï/ç.jpg", "\udcff.jpg", ""]
    packed = PackedNames.from_arrays(PackedNames.of(names).to_arrays("x"), "x")
    assert [packed[n] for n in range(len(packed))] == names
    with pytest.raises(IndexError):
        packed[5]
    assert len(PackedNames.of([])) == 0
