"""Plain text in lines of JSON, gzipped or not, whole and damaged."""

import gzip
import json
import os
import pickle
import random
from pathlib import Path

import pytest

from rebus.core.errors import CannotWrite, MissingFile, RebusError
from rebus.data.layouts import c4, open_layout
from rebus.data.reading import gzip_files as inflate
from rebus.data.reading.disk_cache import cache_folder
from rebus.data.reading.gzip_files import Inflated, plain_copy
from rebus.data.record import BadRecord, Record
from tests.data.layouts.timing import quickest


def lines_of(count: int, start: int = 0) -> bytes:
    rows = [
        {"text": f"Text {n}\nof two lines", "url": "http://x", "timestamp": "2019"} for n in range(start, start + count)
    ]
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def incompressible(count: int) -> bytes:
    rng = random.Random(0)
    return b"".join(json.dumps({"text": f"{n} {rng.randbytes(200).hex()}"}).encode() + b"\n" for n in range(count))


def texts(reader: c4.Texts) -> list[Record]:
    reader = pickle.loads(pickle.dumps(reader))
    return [reader.read(block, row) for block, size in enumerate(reader.sizes) for row in range(size)]


@pytest.mark.parametrize("ending", [".json.gz", ".jsonl.gz", ".json", ".jsonl"])
def test_as_c4_is_released(tmp_path: Path, ending: str) -> None:
    for n, split in enumerate(["train", "train", "validation"]):
        data = lines_of(3, start=10 * n)
        path = tmp_path / "en" / f"c4-{split}.0000{n}-of-00003{ending}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(gzip.compress(data) if ending.endswith("gz") else data)
    reader = open_layout(tmp_path)
    assert isinstance(reader, c4.Texts)
    assert (list(reader.sizes), reader.faults, list(reader.labels)) == ([3, 3, 3], (), [])
    record = texts(reader)[4]
    assert record.captions == ("Text 11\nof two lines",)
    assert record.key == f"c4-train.00001-of-00003{ending}:2"
    assert record.facts == {"url": "http://x", "timestamp": "2019"}
    assert list(open_layout(tmp_path, split="val").sizes) == [3]
    assert texts(open_layout(path))[0].captions == ("Text 20\nof two lines",)


def test_what_is_recognised(tmp_path: Path) -> None:
    for name, line, ours in [
        ("a", b'{"text": "x"}', True),
        ("b", b'{"text": "x", "file_name": "1.jpg"}', False),
        ("c", b'{"caption": "x"}', False),
        ("d", b'[{"text": "x"}]', False),
        ("e", b'{"text": ["x"]}', False),
        ("f", b"", False),
    ]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.jsonl").write_bytes(line)
        assert c4.recognises(tmp_path / name) is ours, line
    (tmp_path / "picture.jpg").write_bytes(b"x")
    assert not c4.recognises(tmp_path / "picture.jpg")


@pytest.mark.parametrize("line", [b"{", b"[]", b'{"url": "x"}', b'{"text": 3}', b'{"text": " "}', b"\xff"])
def test_a_damaged_line_is_named_and_the_others_are_read(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "a.json.gz"
    path.write_bytes(gzip.compress(lines_of(1) + b"\n" + line + b"\n" + lines_of(1)))
    reader = c4.open(path, None)
    assert list(reader.sizes) == [3]
    assert reader.read(0, 0).captions == reader.read(0, 2).captions
    with pytest.raises(BadRecord, match=r"^a\.json\.gz:3: "):
        reader.read(0, 1)


@pytest.mark.parametrize("damage", ["cut", "garbage", "check sum"])
def test_a_damaged_gzip_gives_what_comes_before(tmp_path: Path, damage: str) -> None:
    whole = incompressible(4_000)
    packed = bytearray(gzip.compress(whole))
    if damage == "cut":
        packed = packed[: len(packed) // 2]
    elif damage == "garbage":
        packed[len(packed) // 2 :] = b"\xff" * (len(packed) - len(packed) // 2)
    else:
        packed[-8:-4] = b"\0\0\0\0"
    path = tmp_path / "a.json.gz"
    path.write_bytes(packed)
    reader = c4.open(path, None)
    read = texts(reader)
    assert 1_000 < len(read) < 4_000
    assert [json.loads(line)["text"] for line in whole.splitlines()[: len(read)]] == [r.captions[0] for r in read]
    assert len(reader.faults) == 1
    assert reader.faults[0].startswith((f"{path}: cut before its end", f"{path}: damaged ("))
    assert f"the {len(read):,} lines before that are read" in reader.faults[0]


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "a.json.gz").write_bytes(b"<html>")
    with pytest.raises(RebusError, match=r"a\.json\.gz: damaged .*the 0 lines before"):
        c4.open(tmp_path, None)
    (tmp_path / "nothing").mkdir()
    with pytest.raises(MissingFile, match="no files"):
        c4.open(tmp_path / "nothing", None)


def test_members_on_end_and_padding(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(b"one\n") + gzip.compress(b"two\n") + b"\0" * 100)
    inflated = Inflated(path)
    assert (b"".join(inflated.pieces()), inflated.fault) == (b"one\ntwo\n", "")


def test_a_bomb_stops_at_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json.gz"
    path.write_bytes(gzip.compress(lines_of(1) + b"x" * 100_000_000, compresslevel=1))
    monkeypatch.setattr(inflate, "KEEP_BYTES", 20_000_000)
    reader = c4.open(path, None)
    assert list(reader.sizes) == [1]
    assert "more than 20,000,000 bytes" in reader.faults[0]


def test_the_second_opening_counts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(lines_of(5)))
    first = texts(c4.open(tmp_path, None))
    c4._lines.cache_clear()
    monkeypatch.setattr(c4, "_count", None)
    assert texts(c4.open(tmp_path, None)) == first


def test_plain_copies_are_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = lines_of(100)
    for n in range(5):
        (tmp_path / f"{n}.json.gz").write_bytes(gzip.compress(data))
    monkeypatch.setattr(inflate, "KEEP_BYTES", 2 * len(data))
    reader = c4.open(tmp_path, None)
    for block in (0, 1, 2, 3, 4, 0):
        assert reader.read(block, 7).captions == ("Text 7\nof two lines",)
        copies = [*(cache_folder() / "plain").iterdir()]
        assert sum(file.stat().st_size for file in copies) <= 2 * len(data)


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "a.json.gz"
    path.write_bytes(gzip.compress(lines_of(5)))
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(CannotWrite, match=r"a.json.gz can be stored: .*no space left on the disk.*REBUS_HOME"):
        plain_copy(path)
    assert not [*(cache_folder() / "plain").iterdir()]


def test_a_thousand_lines_are_read_in_a_moment(tmp_path: Path) -> None:
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(lines_of(1_000)))
    reader = c4.open(tmp_path, None)
    assert quickest(lambda: [reader.read(0, row) for row in range(1_000)]) < 1


def test_a_file_that_goes_away_takes_its_records_alone(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.jsonl").write_bytes(lines_of(2))
    reader = c4.open(tmp_path, None)
    (tmp_path / "a.jsonl").unlink()
    with pytest.raises(BadRecord, match=r"^a\.jsonl.*cannot be read: No such file"):
        reader.read(0, 0)
    assert reader.read(1, 0).captions
