"""Which records are measured, and what becomes of damaged ones."""

import io

import pytest
from PIL import Image

from rebus.core.errors import MissingExtra, RebusError
from rebus.data.record import BadRecord, Record
from rebus.evaluate.benchmarks import walk
from rebus.evaluate.benchmarks.walk import Records
from tests.evaluate.benchmarks.samples import ByteLRU


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


def test_fault_34_large_images_make_smaller_batches(monkeypatch):
    monkeypatch.setenv("REBUS_MAX_IMAGE_MEMORY", "700")  # an image takes 4 x 48 bytes when it is open
    records = Records(held(11, {1: Record(key="r1")}), batch_size=7)
    batches = [[example.record.key for example in batch] for batch in records.batches()]
    assert batches == [["r0", "r2"], ["r3", "r4"], ["r5", "r6"], ["r7", "r8"], ["r9", "r10"]]
    assert records.damaged == ["r1: has no image"]


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
    assert records.damaged == ["r4: its text contains a lone surrogate"]


def test_more_than_a_tenth_stops_the_run():
    bad = {n: BadRecord(f"r{n}", "is torn") for n in (1, 4, 8)}
    with pytest.raises(RebusError, match=r"3 records cannot be used, more than 10% of 20; the first: r1: is torn"):
        keys(Records(held(20, bad)))
    assert len(keys(Records(held(30, bad)))) == 27  # exactly a tenth


def test_what_no_decoder_here_can_read_is_left_out_and_names_the_extra(monkeypatch):
    real = walk.open_images

    def without(sources, on_error):
        images, failures = real(sources, on_error=on_error)
        images[0], failures[0] = None, MissingExtra("heic", "HEIC")
        return images, failures

    monkeypatch.setattr(walk, "open_images", without)
    records = Records(held(30))
    assert len(keys(records)) == 29
    assert records.damaged == ['r0: HEIC needs the extra "heic". Install it with: pip install "rebus-vlm[heic]"']
    monkeypatch.setattr(walk, "MOST_DAMAGED", 0.01)
    with pytest.raises(RebusError, match=r"more than 1% of 30; the first: r0: HEIC needs the extra"):
        keys(Records(held(30)))


def test_a_reader_that_fails_costs_its_record(monkeypatch):
    reader = held(30)
    read = reader.read

    def torn(block, row):
        if row == 4:
            raise OSError(5, "Input/output error")
        return read(block, row)

    monkeypatch.setattr(reader, "read", torn, raising=False)
    records = Records(reader)
    assert len(keys(records)) == 29
    assert "block 0, row 4: " in records.damaged[0]
