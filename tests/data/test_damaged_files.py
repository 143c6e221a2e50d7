"""Cut tars are named and counted by whatever uses them, and too many of them stop it."""

import io
import json
import logging
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from rebus.cli.app import main
from rebus.core.errors import RebusError
from rebus.core.specs import Prompts
from rebus.data.damaged_files import check_files, damaged_files
from rebus.data.file_records import FileRecords, Files
from rebus.data.held_out import open_parts
from rebus.data.layouts import open_layout
from rebus.evaluate.benchmarks.walk import Records


def shards(folder: Path, whole: int, cut: int) -> Path:
    """Tars of four pairs each, of which `cut` end in the middle of the third."""
    folder.mkdir(parents=True)
    for number in range(whole + cut):
        path = folder / f"{number:05}.tar"
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
            for row in range(4):
                buffer = io.BytesIO()
                Image.new("RGB", (8 + number, 8 + row), (row, number, 0)).save(buffer, "PNG")
                for name, data in ((f"{row}.png", buffer.getvalue()), (f"{row}.txt", b"a text")):
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
        if number < cut:
            path.write_bytes(path.read_bytes()[: 4 * 2 * 512 + 600])
    return folder


def test_fault_30_a_few_cut_tars_are_named_and_counted(tmp_path, capsys, caplog):
    data = shards(tmp_path / "data", whole=11, cut=1)
    for verb, more in (("convert", []), ("filter", ["--min-width", "1"])):
        out = tmp_path / verb
        for _ in range(2):  # begun again when it is done, it says the same
            assert main(["data", verb, str(data), "--out", str(out), "--json", *more]) == 0
            found = json.loads(capsys.readouterr().out)
            assert (found["written"], found["skipped"], len(found["damaged_files"])) == (46, 0, 1)
        assert "00000.tar" in found["damaged_files"][0]
        assert json.loads((out / "skipped.jsonl").read_text())["damaged_file"] == found["damaged_files"][0]
        assert main(["data", verb, str(data), "--out", str(out), *more]) == 0
        assert "damaged file: " in capsys.readouterr().err

    with caplog.at_level(logging.WARNING, logger="rebus"):
        FileRecords(Files(path=str(data), form="pairs"), open_parts(str(data), "auto", None, None), Prompts(), None)
    assert "00000.tar" in caplog.text
    assert len(Records(open_layout(data)).damaged_files) == 1


def test_fault_30_many_cut_tars_stop_everything(tmp_path, capsys):
    data = shards(tmp_path / "data", whole=0, cut=8)
    for verb, more in (("convert", []), ("filter", ["--min-width", "1"])):
        command = ["data", verb, str(data), "--out", str(tmp_path / verb), *more]
        assert main(command) == 1
        said = capsys.readouterr()
        assert "8 of 8 files are damaged, more than the fraction 0.1; the first" in said.err
        assert "--max-bad" in said.err
        assert main([*command, "--max-bad", "1"]) == 0
        assert "16" in capsys.readouterr().out  # two records before each cut
    with pytest.raises(RebusError, match=r"8 of 8 files are damaged.*raise data.most_damaged"):
        FileRecords(Files(path=str(data), form="pairs"), open_parts(str(data), "auto", None, None), Prompts(), None)
    with pytest.raises(RebusError, match="8 of 8 files are damaged"):
        Records(open_layout(data))


def test_every_reader_with_faults_is_counted(tmp_path):
    """Lines of text and tables too, and the one file that is all there is."""
    import gzip

    folder = tmp_path / "texts"
    folder.mkdir()
    whole = gzip.compress(b"".join(json.dumps({"text": f"text {n}"}).encode() + b"\n" for n in range(2000)))
    (folder / "c4-train.00000-of-00001.json.gz").write_bytes(whole[: len(whole) // 2])
    reader = open_layout(folder, "c4")
    assert len(damaged_files(reader)) == 1
    with pytest.raises(RebusError, match="1 of 1 files"):
        check_files(reader, 0.5, "allow it")
