"""Files and folders appear complete or not at all."""

import errno
import os
import shutil

import pytest

from rebus.core import atomic_write
from rebus.core.atomic_write import write_bytes_atomically, write_file_atomically, write_folder_atomically
from rebus.core.errors import CannotWrite
from tests.data.dying import Dead, killed_at


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_when_it_is_complete(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"old")
    with write_file_atomically(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    with pytest.raises(KeyError), write_file_atomically(path) as file:
        file.write(b"half")
        raise KeyError
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["a.txt"]


def test_a_file_is_flushed_before_it_is_renamed_and_its_folder_after(tmp_path, monkeypatch):
    calls, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (calls.append(os.fstat(handle).st_ino), fsync(handle)))
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("replace"), replace(a, b)))
    write_bytes_atomically(tmp_path / "a", b"x")
    assert calls == [(tmp_path / "a").stat().st_ino, "replace", tmp_path.stat().st_ino]


def test_a_folder_appears_when_it_is_complete(tmp_path):
    folder = tmp_path / "parents" / "a"
    with write_folder_atomically(folder) as draft:
        (draft / "inner").mkdir()
        (draft / "inner" / "b.txt").write_text("b")
        assert not folder.exists()
    assert (folder / "inner" / "b.txt").read_text() == "b"
    assert names(folder.parent) == ["a"]
    with pytest.raises(CannotWrite, match="not empty"), write_folder_atomically(folder) as draft:
        (draft / "c.txt").write_text("c")
    assert names(folder) == ["inner"]
    assert names(folder.parent) == ["a"]


@pytest.mark.parametrize("count", [2, atomic_write._ONE_BY_ONE + 1])
def test_all_of_a_folder_is_flushed_before_it_is_renamed(tmp_path, monkeypatch, count):
    calls, fsync, rename = [], os.fsync, os.rename
    monkeypatch.setattr(os, "fsync", lambda handle: (calls.append(os.fstat(handle).st_ino), fsync(handle)))
    monkeypatch.setattr(os, "sync", lambda: calls.append("all"))
    monkeypatch.setattr(os, "rename", lambda a, b: (calls.append("rename"), rename(a, b)))
    with write_folder_atomically(tmp_path / "a") as draft:
        for n in range(count):
            (draft / str(n)).write_text(str(n))
    at = calls.index("rename")
    assert calls[at + 1 :] == [tmp_path.stat().st_ino]
    entries = [tmp_path / "a", *(tmp_path / "a").iterdir()]
    assert calls[:at] == ["all"] or sorted(calls[:at]) == sorted(entry.stat().st_ino for entry in entries)
    assert (calls[:at] == ["all"]) == (count > 2)


def test_killed_at_every_step_the_old_state_or_the_new_is_there(tmp_path, monkeypatch):
    path, folder, step, seen = tmp_path / "a", tmp_path / "b", 0, set()
    path.write_bytes(b"old")
    while True:
        step += 1
        try:
            with killed_at(step, monkeypatch):
                write_bytes_atomically(path, b"new")
                with write_folder_atomically(folder) as draft:
                    (draft / "c").write_bytes(b"new")
            break
        except Dead:
            seen.add((path.read_bytes(), (folder / "c").exists()))
            path.write_bytes(b"old")
            assert not folder.exists() or names(folder) == ["c"]
            shutil.rmtree(folder, ignore_errors=True)
    assert seen == {(b"old", False), (b"new", False), (b"new", True)}


@pytest.mark.parametrize("number", sorted(atomic_write.DISK_FULL))
def test_a_full_disk_is_told_with_its_room_and_the_need(tmp_path, monkeypatch, number):
    def full(*_):
        raise OSError(number, os.strerror(number))

    (tmp_path / "a").write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CannotWrite, match=r"a: cannot be written \(1,000 bytes\): no space left .*bytes free"):
        write_bytes_atomically(tmp_path / "a", bytes(1000))
    with (
        pytest.raises(CannotWrite, match="b: cannot be written: no space left"),
        write_folder_atomically(tmp_path / "b"),
    ):
        pass
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


def test_other_errors_say_what_the_system_says(tmp_path):
    with pytest.raises(CannotWrite, match=os.strerror(errno.ENOENT)):
        write_bytes_atomically(tmp_path / "absent" / "a", b"")
