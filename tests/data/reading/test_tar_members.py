"""Fault 37: headers of tars, as other programs write them and as somebody makes them to hurt."""

import io
import os
import re
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest

from rebus.data.layouts import webdataset
from rebus.data.reading.tar_members import TarDamage, members
from tests.data.layouts.test_webdataset import PICTURE, samples, write


def header(kind: bytes, size: bytes | int, name: str = "x.jpg") -> bytes:
    """A block with a valid sum, whatever it says."""
    info = tarfile.TarInfo(name)
    info.type = kind
    block = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    block[124:136] = size if isinstance(size, bytes) else b"%011o\0" % size
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def pax(records: bytes, kind: bytes = b"x") -> bytes:
    return header(kind, len(records)) + padded(records)


def file(name: str = "x.jpg", data: bytes = PICTURE) -> bytes:
    return header(b"0", len(data), name) + padded(data)


END = bytes(1024)
HOSTILE = {
    "a long number": (pax(b"1" * 400_000) + file() + END, "impossible pax records"),
    "many numbers": (pax(b"9 a=bcde\n" * 40_000 + b"1" * 300_000) + file() + END, "impossible pax records"),
    "chained": (pax(b"9 a=bcde\n") * 5_000 + file("9.jpg") + END, ""),
    "chained names": ((header(b"L", 9) + padded(b"long.jpg\0")) * 5_000 + file("9.jpg") + END, ""),
    "a long pax header": (pax(b"9 a=bcde\n" * 200_000) + file() + END, "a header of 1,800,000 bytes"),
    "8 GB of pax": (header(b"x", 0o77777777777) + file() + END, "a header of 8,589,934,591 bytes"),
    "8 GB of file": (header(b"0", 0o77777777777) + file() + END, "within x.jpg"),
    "8 GB of a folder": (header(b"5", 0o77777777777, "x/") + file("9.jpg") + END, ""),
    "below nothing": (header(b"0", b"\xff" * 10 + b"\xfa\0") + file() + END, "an impossible size"),
    "base 256": (header(b"0", b"\x80" + b"\xff" * 11) + file() + END, "an impossible size"),
    "no number": (header(b"0", b"0x10\0       ") + file() + END, "an impossible size"),
    "pax below nothing": (pax(b"14 size=-1536\n") + file() + END, "an impossible size"),
    "pax of 5,000 digits": (pax(b"5011 size=" + b"9" * 5_000 + b"\n") + file() + END, "an impossible size"),
    "sparse without end": (header(b"S", 9)[:482] + b"\1" + bytes(29) + END, "no header|no tar"),
    "pax sparse": (pax(b"22 GNU.sparse.major=1\n") + file() + file("9.jpg") + END, ""),
    "cut in a header": (header(b"x", 900) + b"9 a=bcde\n", "within a header"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_fault_37_a_hostile_tar_is_a_fault_of_its_own_at_once(name: str, tmp_path: Path) -> None:
    data, says = HOSTILE[name]
    write(tmp_path / "good.tar", samples(2))
    (tmp_path / "evil.tar").write_bytes(data)
    began = time.process_time()
    reader = webdataset.open(tmp_path, None)
    assert time.process_time() - began < 1
    assert [reader.read(1, row).captions for row in range(2)] == [("text 0",), ("text 1",)]
    if says:
        assert reader.sizes[0] == 0
        assert re.search(says, reader.faults[0]), reader.faults
    else:
        assert reader.faults == ()
        assert reader.sizes[0] == 1
        assert reader.read(0, 0).image == PICTURE


def test_sparse_members_are_passed_over(tmp_path: Path) -> None:
    """GNU tar's own, of a file with holes."""
    holes = tmp_path / "holes.jpg"
    with holes.open("wb") as made:
        for place in range(40):
            made.seek(place << 16)
            made.write(b"x" * 5000)
    (tmp_path / "9.jpg").write_bytes(PICTURE)
    for form in ("gnu", "pax"):
        subprocess.run(
            ["tar", f"--format={form}", "-S", "-cf", f"{form}.tar", "holes.jpg", "9.jpg"], cwd=tmp_path, check=True
        )
        found = [*members(tmp_path / f"{form}.tar")]
        assert [member.plain for member in found] == [False, True]
        assert (tmp_path / f"{form}.tar").read_bytes()[found[1].start :][: found[1].size] == PICTURE


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_the_same_members_as_the_tar_module_finds(form: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(form)
    with tarfile.open(tmp_path / "a.tar", "w", format=form) as tar:
        for n in range(60):
            name = "/".join("ordner-é" * int(rng.integers(1, 4)) for _ in range(rng.integers(0, 4))) + f"/{n}.jpg"
            member = tarfile.TarInfo(name)
            member.type = (tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE)[int(rng.choice(3, p=[0.8, 0.1, 0.1]))]
            member.linkname = "b" * 150 * (form != tarfile.USTAR_FORMAT)
            member.size = int(rng.integers(0, 2000)) if member.isreg() else 0
            tar.addfile(member, io.BytesIO(bytes(member.size)))
    with tarfile.open(tmp_path / "a.tar") as tar:
        wanted = [(m.name, m.offset_data, m.size, m.isreg()) for m in tar]
    found = [*members(tmp_path / "a.tar")]
    assert [(m.name.rstrip("/"), m.start, m.size, m.plain) for m in found] == wanted


def test_bytes_changed_at_random_raise_nothing_else(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.tar", samples(4), tarfile.PAX_FORMAT).read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(300):
        data = bytearray(whole[: int(rng.integers(1, len(whole)))])
        for place in rng.integers(0, len(data), 5):
            data[place] = rng.integers(0, 256)
            block = place - place % 512
            data[block + 148 : block + 156] = b" " * 8
            data[block + 148 : block + 156] = b"%06o\0 " % sum(data[block : block + 512])
        (tmp_path / "b.tar").write_bytes(data)
        try:
            for member in members(tmp_path / "b.tar"):
                assert member.size >= 0
        except TarDamage:
            pass


def test_a_pipe_among_the_tars_does_not_hang(tmp_path: Path) -> None:
    write(tmp_path / "b.tar", samples(2))
    os.mkfifo(tmp_path / "a.tar")
    code = "import sys, pathlib; from rebus.data.layouts.webdataset import open; "
    code += "print(open(pathlib.Path(sys.argv[1]), None).sizes[-1])"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "2\n", done
