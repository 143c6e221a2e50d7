"""Tars of images with texts, whole, odd and damaged."""

import gzip
import io
import json
import pickle
import tarfile
from pathlib import Path

import pytest

from rebus.core.errors import RebusError, UsageError
from rebus.data.layouts import open_layout, webdataset
from rebus.data.reading import tar_index
from rebus.data.record import BadRecord, Record
from tests.data.layouts.timing import quickest

PICTURE = b"\xff\xd8\xff image"


def write(path: Path, members: list[tuple[str, bytes]], form: int = tarfile.USTAR_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def samples(count: int, first: int = 0) -> list[tuple[str, bytes]]:
    facts = {"caption": "c", "url": "http://x", "width": 3, "key": "k"}
    return [
        member
        for n in range(first, first + count)
        for member in (
            (f"{n:09}.jpg", PICTURE + str(n).encode()),
            (f"{n:09}.txt", f"text {n}\n".encode()),
            (f"{n:09}.json", json.dumps(facts).encode()),
        )
    ]


def read_all(reader: webdataset.WebDataset) -> list[Record]:
    reader = pickle.loads(pickle.dumps(reader))
    return [reader.read(block, row) for block, size in enumerate(reader.sizes) for row in range(size)]


def test_as_img2dataset_writes_it(tmp_path: Path) -> None:
    write(tmp_path / "00000.tar", samples(3))
    write(tmp_path / "00001.tar", samples(2, first=10_000))
    (tmp_path / "00000_stats.json").write_text('{"successes": 3}')
    (tmp_path / "00000.parquet").write_bytes(b"PAR1")
    seen: list[tuple[int, int]] = []
    reader = webdataset.open(tmp_path, None, progress=lambda done, total: seen.append((done, total)))
    assert (list(reader.sizes), reader.faults, seen) == ([3, 2], (), [(1, 2), (2, 2)])
    records = read_all(reader)
    assert [record.key for record in records][2:4] == ["00000.tar:000000002", "00001.tar:000010000"]
    assert records[1].image == PICTURE + b"1"
    assert records[1].captions == ("text 1",)
    assert records[1].facts == {"url": "http://x", "width": 3, "key": "k"}
    assert isinstance(open_layout(tmp_path), webdataset.WebDataset)
    assert list(webdataset.open(tmp_path / "{00001..00001}.tar", None).sizes) == [2]
    assert list(open_layout(tmp_path / "00000.tar").sizes) == [3]


def test_the_second_opening_scans_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "00000.tar", samples(3))
    first = read_all(webdataset.open(tmp_path, None))
    tar_index.index_of.cache_clear()
    monkeypatch.setattr(tar_index, "scan", None)
    assert read_all(webdataset.open(tmp_path, None)) == first


def test_other_members_and_orders(tmp_path: Path) -> None:
    write(
        tmp_path / "a.tar",
        [
            ("x/1.caption", "\ufeffeins ".encode()),
            ("x/2.PNG", PICTURE),
            ("x/1.webp", PICTURE),
            ("x/1.seg.png", b"no image of ours"),
            ("x/1.cls", b"10\n"),
            ("x/2.cls", b"9"),
            ("x/3.mp4", b"alone"),
            ("x/2.json", b'{"text": "zwei", "label": [1], "boxes": "any"}'),
            ("README", b"no key"),
            ("x/4.jpg", PICTURE),
        ],
    )
    reader = webdataset.open(tmp_path, None)
    one, two, four = read_all(reader)
    assert (one.key, one.image, one.captions, one.label) == ("a.tar:x/1", PICTURE, ("eins",), "10")
    assert (two.captions, two.label, two.facts) == (("zwei",), "9", {"label": [1], "boxes": "any"})
    assert (four.captions, four.label) == ((), None)
    assert list(reader.labels) == ["9", "10"]


def test_a_caption_a_line(tmp_path: Path) -> None:
    """CLIP_benchmark's sets have one a line; img2dataset's texts may hold line breaks, which its JSON tells."""
    members = [
        *[("1.jpg", PICTURE), ("1.txt", b"one\ntwo\none\n")],
        *[("2.jpg", PICTURE), ("2.txt", b"a\nb"), ("2.json", b'{"caption": "a\\nb"}')],
        *[("3.jpg", PICTURE), ("3.txt", b"first"), ("3.json", b'{"caption": "first", "captions": ["first", "x\\ny"]}')],
    ]
    write(tmp_path / "0.tar", members)
    found = [record.captions for record in read_all(webdataset.open(tmp_path, None))]
    assert found == [("one", "two", "one"), ("a\nb",), ("first", "x\ny")]


def test_classes_by_the_names_beside(tmp_path: Path) -> None:
    members = [(f"{n}.{ending}", data) for n in range(3) for ending, data in (("jpg", PICTURE), ("cls", b"%d\n" % n))]
    write(tmp_path / "test" / "0.tar", members)
    (tmp_path / "classnames.txt").write_text("great white shark\nsea lion\n")
    reader = open_layout(tmp_path, split="test")
    assert list(reader.labels) == ["great white shark", "sea lion"]
    assert [reader.read(0, n).label for n in range(2)] == ["great white shark", "sea lion"]
    with pytest.raises(BadRecord, match=r"0\.tar:2: class 2; classnames\.txt names 2"):
        reader.read(0, 2)


def test_keys_with_dots_are_records(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = ["photo.v1.jpg", "photo.v1.txt", "photo.v2.jpg", "photo.v2.json", "b.jpg", "b.seg.png", "c.left.jpg"]
    write(tmp_path / "a.tar", [(name, b"{}" if name.endswith("json") else b"x") for name in [*names, "c.json"]])
    reader = webdataset.open(tmp_path, None)
    keys = ["a.tar:photo.v1", "a.tar:photo.v2", "a.tar:b"]
    assert "2 further images of samples are not read, the first a.tar:b.seg.png" in caplog.text
    assert [reader.read(0, n).key for n in range(3)] == keys
    with pytest.raises(BadRecord, match=r"a\.tar:c: no image among \.json"):  # counted, not dropped
        reader.read(0, 3)
    assert list(reader.sizes) == [4]


def test_no_dotted_image_is_dropped_in_silence(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Beside a record of their first name they are counted where some have texts, and read where none has."""
    names = ["photo.jpg", "photo.v2.jpg", "1.png", "1.seg.png"]
    write(tmp_path / "a" / "0.tar", [(name, name.encode()) for name in names])
    assert [record.image.decode() for record in read_all(webdataset.open(tmp_path / "a", None))] == names
    assert not caplog.text
    for tar in ("0", "1"):
        members = [*((name, name.encode()) for name in names), ("photo.txt", b"x"), ("1.txt", b"y")]
        write(tmp_path / "b" / f"{tar}.tar", members)
    for _ in range(2):
        reader = webdataset.open(tmp_path / "b", None)
        assert [record.image.decode() for record in read_all(reader)] == ["photo.jpg", "1.png"] * 2
    says = f"{tmp_path / 'b'}: 4 further images of samples are not read, the first 0.tar:photo.v2.jpg"
    assert caplog.messages == [says]
    assert reader.faults == ()


def test_templates_beside_the_tars(tmp_path: Path) -> None:
    """CLIP_benchmark's sentences, which zero-shot classification takes unless others are given."""
    write(tmp_path / "test" / "0.tar", samples(1))
    assert open_layout(tmp_path).templates == ()
    (tmp_path / webdataset.TEMPLATES).write_text("a photo of a {c}.\nart of the {c}\n\n")
    assert open_layout(tmp_path).templates == ("a photo of a {}.", "art of the {}")
    (tmp_path / webdataset.TEMPLATES).write_text("a photo of a {}.\n")
    with pytest.raises(RebusError, match=r"a sentence has \{c\} where the class goes; got 'a photo of a \{\}"):
        open_layout(tmp_path)


def test_gzipped_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = gzip.compress(json.dumps({"caption": "zwei", "n": 1}).encode())
    members = [("1.jpg", PICTURE), ("1.txt.gz", gzip.compress(b"eins")), ("2.jpg", PICTURE), ("2.json.gz", facts)]
    bad = [("3.jpg", PICTURE), ("3.txt.gz", gzip.compress(b"x" * 99)[:-9]), ("4.jpg", PICTURE), ("4.txt.gz", b"?" * 40)]
    write(tmp_path / "a.tar", [*members, *bad])
    reader = webdataset.open(tmp_path, None)
    assert reader.read(0, 0).captions == ("eins",)
    assert (reader.read(0, 1).captions, reader.read(0, 1).facts) == (("zwei",), {"n": 1})
    for row, says in ((2, "is truncated"), (3, "is damaged")):
        with pytest.raises(BadRecord, match=rf"\.txt\.gz {says}"):
            reader.read(0, row)
    monkeypatch.setattr(webdataset, "MAX_TEXT_BYTES", 60)
    write(tmp_path / "b.tar", [("1.jpg", PICTURE), ("1.txt.gz", gzip.compress(b"x" * 99))])
    with pytest.raises(BadRecord, match="more than the 60 bytes"):
        webdataset.open(tmp_path / "b.tar", None).read(0, 0)


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_names(tmp_path: Path, form: int) -> None:
    name = "ordner/" + "ü" * 300
    write(tmp_path / "a.tar", [(f"{name}.jpg", PICTURE), (f"{name}.txt", b"x")], form)
    (record,) = read_all(webdataset.open(tmp_path, None))
    assert (record.key, record.captions) == (f"a.tar:{name}", ("x",))


DAMAGED = [
    ([("1.txt", b"x")], "no image among .txt"),
    ([("1.jpg", b"x"), ("1.png", b"x")], "more than one image among .jpg, .png"),
    ([("1.jpg", b"x"), ("1.jpg", b"x")], "two members .jpg of one name"),
    ([("1.jpg", b"x"), ("1.txt", b"\xff")], r"\.txt is not UTF-8"),
    ([("1.jpg", b"x"), ("1.json", b"{")], "not JSON"),
    ([("1.jpg", b"x"), ("1.json", b'{"caption": 3}')], "caption must be a text"),
]


@pytest.mark.parametrize("members, says", DAMAGED)
def test_fault_30_a_damaged_record_is_named_and_the_others_are_read(
    tmp_path: Path, members: list[tuple[str, bytes]], says: str
) -> None:
    good = [("0.jpg", PICTURE), ("2.jpg", PICTURE)]
    write(tmp_path / "a.tar", [good[0], *members, good[1]])
    reader = webdataset.open(tmp_path, None)
    assert list(reader.sizes) == [3]
    assert reader.read(0, 0).image == reader.read(0, 2).image == PICTURE
    with pytest.raises(BadRecord, match=rf"^a\.tar:1: .*{says}"):
        reader.read(0, 1)


def test_what_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.tar", [("1.jpg", PICTURE), ("1.txt", b"x" * 100)])
    monkeypatch.setattr(webdataset, "MAX_TEXT_BYTES", 10)
    with pytest.raises(BadRecord, match=r"\.txt has 100 bytes; at most 10 are read"):
        webdataset.open(tmp_path, None).read(0, 0)


@pytest.mark.parametrize("at", [600, 5_000, 12_345, 20_480, 30_720])
def test_fault_30_a_cut_tar_gives_what_comes_before(tmp_path: Path, at: int) -> None:
    whole = write(tmp_path / "00000.tar", samples(10)).read_bytes()
    (tmp_path / "00001.tar").write_bytes(whole[:at])
    reader = webdataset.open(tmp_path, None)
    full = at // (6 * 512)  # three members of a header and a block each
    assert list(reader.sizes) == [10, min(full, 10)]
    assert len(reader.faults) == 1
    assert str(tmp_path / "00001.tar") in reader.faults[0]
    assert f"the {full} records before that are read" in reader.faults[0]
    records = read_all(reader)
    assert [(r.image, r.captions) for r in records[10:]] == [(r.image, r.captions) for r in records[:full]]


def test_fault_30_damage_in_the_middle(tmp_path: Path) -> None:
    data = bytearray(write(tmp_path / "a.tar", samples(10)).read_bytes())
    data[4 * 3072 : 4 * 3072 + 512] = b"\x07" * 512
    (tmp_path / "a.tar").write_bytes(data)
    reader = webdataset.open(tmp_path, None)
    assert list(reader.sizes) == [4]
    assert f"no header there, at byte {4 * 3072:,} of {len(data):,}" in reader.faults[0]


def test_a_size_below_nothing_leads_in_no_circle(tmp_path: Path) -> None:
    data = bytearray(write(tmp_path / "a.tar", samples(2)).read_bytes())
    header = tarfile.TarInfo("9.jpg").tobuf()
    evil = bytearray(header)
    evil[124:136] = b"\xff" * 10 + b"\xfa\x00"  # -1536 in base 256
    evil[148:156] = b" " * 8
    evil[148:156] = b"%06o\0 " % sum(evil)
    data[3072:3584] = evil
    (tmp_path / "a.tar").write_bytes(data)
    reader = webdataset.open(tmp_path, None)
    assert list(reader.sizes) == [1]
    assert len(reader.faults) == 1


def test_tars_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"")
    (tmp_path / "b.tar").write_bytes(b"<html>" * 200)
    with pytest.raises(RebusError, match=r"a\.tar: not a tar \(empty file\)"):
        webdataset.open(tmp_path, None)
    write(tmp_path / "c.tar", samples(1))
    reader = webdataset.open(tmp_path, None)
    assert list(reader.sizes) == [0, 0, 1]
    assert len(reader.faults) == 2


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz", "a.tar"])
def test_gzipped_tars_are_refused(tmp_path: Path, name: str) -> None:
    plain = write(tmp_path / "plain" / "a.tar", samples(1)).read_bytes()
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / name).write_bytes(gzip.compress(plain))
    assert webdataset.recognises(tmp_path / "packed")
    with pytest.raises(UsageError, match=r"compressed with gzip.*unpack it to a plain \.tar first"):
        open_layout(tmp_path / "packed")


def test_a_tar_that_changes_is_noticed(tmp_path: Path) -> None:
    write(tmp_path / "a.tar", samples(3))
    reader = webdataset.open(tmp_path, None)
    write(tmp_path / "a.tar", samples(60))
    with pytest.raises(RebusError, match="has changed since it was opened"):
        reader.read(0, 0)


def test_a_thousand_records_are_read_in_a_moment(tmp_path: Path) -> None:
    write(tmp_path / "a.tar", samples(1_000))
    reader = webdataset.open(tmp_path, None)
    reader.read(0, 0)
    assert quickest(lambda: [reader.read(0, row) for row in range(1_000)]) < 1


def test_a_file_that_goes_away_takes_its_records_alone(tmp_path: Path) -> None:
    write(tmp_path / "a.tar", samples(2))
    write(tmp_path / "b.tar", samples(2))
    reader = webdataset.open(tmp_path, None)
    (tmp_path / "a.tar").unlink()
    with pytest.raises(BadRecord, match=r"^a\.tar.*cannot be read: No such file"):
        reader.read(0, 0)
    assert reader.read(1, 0).captions
