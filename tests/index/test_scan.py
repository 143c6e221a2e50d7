"""Patterns of files to leave out, and what is unknown below a folder that cannot be read."""

import os

from rebus.index.scan import Scan, excluder, scan_folder


def test_patterns_match_names_folders_and_paths():
    matches = excluder(["*.tmp.jpg", "node_modules", "2019/raw/*", "/top.png"])
    for path in (b"a/b.tmp.jpg", b"node_modules/x.png", b"a/node_modules/b/x.png", b"2019/raw/one.jpg", b"top.png"):
        assert matches(path), path
    for path in (b"a.jpg", b"raw/one.jpg", b"x2019/raw/one.jpg", b"node_modules2/x.png"):
        assert not matches(path), path
    assert excluder(["\udcff*"])(b"\xffname.png")


def test_hidden_files_and_other_kinds_are_left_out(tmp_path):
    for name in ("a.JPG", ".hidden.png", "notes.txt", ".cache/b.png", "sub/c.webp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"12345")
    os.mkfifo(tmp_path / "pipe.png")
    found = scan_folder(tmp_path)
    assert set(found.files) == {b"a.JPG", b"sub/c.webp"}
    assert found.files[b"a.JPG"].size == 5
    assert not found.empty
    assert found.unread == {}


def test_links_are_followed_when_asked_and_loops_end(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.png").write_bytes(b"1")
    (tmp_path / "real" / "back").symlink_to(tmp_path)
    (tmp_path / "itself.png").symlink_to(tmp_path / "itself.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "real" / "a.png")
    assert set(scan_folder(tmp_path).files) == {b"real/a.png"}
    found = scan_folder(tmp_path, follow=True)
    assert set(found.files) == {b"real/a.png", b"link.png"}
    assert set(found.unread) == {b"itself.png"}


def test_below_an_unread_folder_nothing_is_known():
    scan = Scan(unread={b"away/disk": "Input/output error"})
    assert scan.unknown(b"away/disk/a.png")
    assert scan.unknown(b"away/disk/deep/a.png")
    assert not scan.unknown(b"away/disk2/a.png")
    assert not scan.unknown(b"a.png")
