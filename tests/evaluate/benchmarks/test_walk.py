"""Which records are measured, and what becomes of damaged ones."""

import io

import pytest
from PIL import Image

from rebus.core.errors import MissingExtra, RebusError, UsageError
from rebus.data.layouts import open_layout
from rebus.data.record import BadRecord, Record
from rebus.evaluate.benchmarks import walk
from rebus.evaluate.benchmarks.walk import Records
from tests.evaluate.benchmarks.samples import ByteLRU, labelled


def picture(number=0):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), (number, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def held(count, bad=None):
    bad = bad or {}
    return ByteLRU([bad.get(n, Record(key=f"r{n}", image=picture(n), label="x")) for n in range(count)])


def keys(records):
    return [example.record.key for batch in records.batches() for example in batch]


def test_all_in_order_or_some_by_lot():
    reader = held(50)
    assert keys(Records(reader)) == [f"r{n}" for n in range(50)]
    some = keys(Records(reader, number=10, seed=1))
    assert some == keys(Records(reader, number=10, seed=1, batch_size=3))
    assert len(set(some)) == 10
    assert some == sorted(some, key=lambda key: int(key[1:]))
    assert some != keys(Records(reader, number=10, seed=2))
    assert len(Records(reader, number=99)) == 50


def test_batches_are_as_large_as_asked_for():
    assert [len(batch) for batch in Records(held(7), batch_size=3).batches()] == [3, 3, 1]


def test_damaged_records_are_left_out_and_named():
    bad = {3: BadRecord("r3", "is torn"), 5: Record(key="r5", image=b"no image"), 9: Record(key="r9")}
    records = Records(held(40, bad), batch_size=4)
    assert keys(records) == [f"r{n}" for n in range(40) if n not in bad]
    assert [reason.split(":")[0] for reason in records.damaged] == ["r3", "r5", "r9"]
    assert "images[" not in records.damaged[1]
    assert records.used == 37


def test_what_a_benchmark_cannot_use_counts_as_damaged():
    def check(example):
        if example.record.key == "r2":
            raise example.bad("is not wanted")

    records = Records(held(30))
    assert sum(len(batch) for batch in records.batches(check)) == 29
    assert records.damaged == ["r2: is not wanted"]


def test_half_a_character_is_damage():
    bad = {4: Record(key="r4", image=picture(), captions=("\ud83d",))}
    records = Records(held(30, bad))
    assert len(keys(records)) == 29
    assert records.damaged == ["r4: its text holds half of a character"]


def test_more_than_a_tenth_stops_the_run():
    bad = {n: BadRecord(f"r{n}", "is torn") for n in (1, 4, 8)}
    with pytest.raises(RebusError, match=r"3 records cannot be used, more than 10% of 20; the first: r1: is torn"):
        keys(Records(held(20, bad)))
    assert len(keys(Records(held(30, bad)))) == 27  # exactly a tenth


def test_a_missing_decoder_is_no_damage(monkeypatch):
    def without(sources, on_error):
        return [None for _ in sources], {n: MissingExtra("heic", "HEIC") for n in range(len(sources))}

    monkeypatch.setattr(walk, "open_images", without)
    with pytest.raises(MissingExtra, match="heic"):
        keys(Records(held(30)))


def test_nothing_to_measure():
    with pytest.raises(UsageError, match="no records"):
        Records(ByteLRU([]))


def fingerprint(reader, **options):
    records = Records(reader, **options)
    keys(records)
    return records.fingerprint


def test_the_fingerprint_is_of_what_was_measured(tmp_path):
    assert fingerprint(held(20)) == fingerprint(held(20), batch_size=3)
    assert fingerprint(held(20)) != fingerprint(held(20), number=10)
    here, there = labelled(tmp_path / "a", 12), labelled(tmp_path / "b", 12)
    same = fingerprint(open_layout(here))
    assert fingerprint(open_layout(there)) == same  # wherever it lies
    one = next(there.rglob("*.png"))
    Image.new("RGB", (96, 96)).save(one)
    assert fingerprint(open_layout(there)) != same
