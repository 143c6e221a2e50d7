"""Runs over a folder: nothing is read twice, nothing is lost, and a disk that is away erases nothing."""

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rebus.core.errors import BadImage, CannotWrite, MissingFile, RebusError, UsageError
from rebus.core.folder_lock import locked
from rebus.index import read_image
from rebus.index.manifest import FILE, read_manifest
from rebus.index.search import Index, open_index
from rebus.index.store import Store
from tests.index.conftest import MODEL, draw


@pytest.fixture
def decodes(monkeypatch) -> list:
    """One entry for each image that is decoded."""
    seen, decode = [], read_image.decode

    def counted(*args, **options):
        seen.append(args)
        return decode(*args, **options)

    monkeypatch.setattr(read_image, "decode", counted)
    return seen


def opened(tmp_path) -> Index:
    return open_index(tmp_path / "photos", str(tmp_path / "index"))


def vectors(tmp_path) -> dict[bytes, np.ndarray]:
    snapshot = opened(tmp_path).snapshot
    return dict(zip(snapshot.paths, np.array(snapshot.vectors), strict=False))


def test_first_run_finds_all(photos, index, tmp_path):
    import rebus

    report = index(photos)
    assert (report.new, report.embedded, report.rows, report.model) == (12, 12, 12, MODEL)
    found = vectors(tmp_path)
    assert list(found) == sorted(found)
    expected = rebus.load(MODEL).embed_images([photos / os.fsdecode(path) for path in found]).numpy()
    assert np.abs(np.stack(list(found.values())) - expected).max() < 1e-5


def test_unchanged_folder_is_not_read(photos, index, decodes):
    index(photos)
    decodes.clear()
    report = index(photos)
    assert (report.unchanged, report.embedded, len(decodes)) == (12, 0, 0)


def test_run_without_news_imports_no_large_library(photos, index, tmp_path):
    index(photos)
    code = (
        "import sys; from pathlib import Path; from rebus.index.report import Options\n"
        "from rebus.index.update import update_index\n"
        f"r = update_index(Path({str(photos)!r}), Options(model={MODEL!r}), {str(tmp_path / 'index')!r})\n"
        "assert r.unchanged == 12; sys.exit(bool({'torch', 'lancedb', 'pandas'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=300).returncode == 0


def test_changed_files_alone_are_embedded_again(photos, index, tmp_path):
    index(photos)
    before = vectors(tmp_path)
    draw(photos / "00.png", 100)
    os.utime(photos / "02.png", (1, 1))  # touched, with the same content
    report = index(photos)
    assert (report.changed, report.embedded, report.unchanged) == (1, 1, 11)
    after = vectors(tmp_path)
    differ = {path for path in before if not np.array_equal(before[path], after[path])}
    assert differ == {b"00.png"}
    assert index(photos).unchanged == 12


def test_renamed_folder_costs_no_model(photos, index, decodes, tmp_path):
    index(photos)
    before = vectors(tmp_path)
    decodes.clear()
    (photos / "deep").rename(photos / "DEEP")  # another name by its letters' case alone
    report = index(photos)
    assert (report.moved, report.embedded, report.missing, len(decodes)) == (6, 0, 0, 0)
    after = vectors(tmp_path)
    assert all(np.array_equal(after[path.replace(b"deep", b"DEEP")], vector) for path, vector in before.items())


def test_copied_file_shares_the_vector(photos, index, decodes, tmp_path):
    index(photos)
    decodes.clear()
    shutil.copy(photos / "00.png", photos / "copy.png")
    report = index(photos)
    assert (report.new, report.embedded, len(decodes)) == (1, 0, 0)
    found = vectors(tmp_path)
    assert np.array_equal(found[b"copy.png"], found[b"00.png"])


def test_files_that_swapped_their_contents(photos, index, tmp_path, monkeypatch):
    """What a file was is no source of vectors for others once it changed, whichever is committed first."""
    from rebus.index import writer

    monkeypatch.setattr(writer, "_ROWS", 1)
    index(photos)
    before = vectors(tmp_path)
    shutil.copy(photos / "00.png", photos / "zz.png")  # as 00.png was
    draw(photos / "00.png", 100)
    one, other = photos / "02.png", photos / "04.png"
    one.rename(tmp_path / "aside.png")
    other.rename(one)
    (tmp_path / "aside.png").rename(other)
    os.utime(one, (5, 5))
    os.utime(other, (6, 6))
    index(photos)
    after = vectors(tmp_path)
    for path, was in ((b"zz.png", b"00.png"), (b"02.png", b"04.png"), (b"04.png", b"02.png")):
        assert np.abs(after[path] - before[was]).max() < 1e-5, path
    assert np.abs(after[b"00.png"] - before[b"00.png"]).max() > 1e-3


def test_copy_of_what_is_left_out(photos, index, tmp_path):
    index(photos)
    (photos / "kept").mkdir()
    shutil.copy(photos / "deep" / "01.png", photos / "kept" / "01.png")
    report = index(photos, exclude=("deep",), prune=True)
    assert (report.rows, report.excluded, report.new) == (7, 6, 1)
    assert set(vectors(tmp_path)) >= {b"kept/01.png"}


def test_renamed_root_is_known_by_its_inode(photos, tmp_path, monkeypatch):
    from rebus.index.report import Options
    from rebus.index.update import update_index

    monkeypatch.setenv("REBUS_HOME", str(tmp_path / "home"))
    update_index(photos, Options(model=MODEL))
    photos.rename(tmp_path / "album")
    report = update_index(tmp_path / "album", Options(model=MODEL))
    assert (report.unchanged, report.embedded) == (12, 0)
    assert open_index(tmp_path / "album").search("a red circle", number=1)[0].path.startswith(str(tmp_path / "album"))


def test_a_few_missing_files_are_kept_and_hidden(photos, index, tmp_path):
    index(photos)
    (photos / "00.png").rename(tmp_path / "away.png")
    report = index(photos)
    assert (report.missing, report.rows, report.pruned) == (1, 12, 0)
    assert len(opened(tmp_path).search("a red circle", number=None)) == 11
    (tmp_path / "away.png").rename(photos / "00.png")
    report = index(photos)
    assert (report.missing, report.embedded, report.unchanged) == (0, 0, 12)
    assert len(opened(tmp_path).search("a red circle", number=None)) == 12


def test_only_prune_drops(photos, index, tmp_path):
    index(photos)
    (photos / "00.png").unlink()
    index(photos)
    report = index(photos, prune=True)
    assert (report.pruned, report.rows, report.missing) == (1, 11, 0)
    assert b"00.png" not in vectors(tmp_path)


def whole(tmp_path) -> dict[str, bytes]:
    folder = tmp_path / "index"
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize("away", ["absent", "empty", "most", "no images"])
def test_disk_that_is_away_changes_nothing(photos, index, tmp_path, away):
    index(photos)
    before = whole(tmp_path)
    aside = tmp_path / "aside"
    photos.rename(aside)
    if away != "absent":
        photos.mkdir()
    if away == "most":
        for name in ("00.png", "02.png", "04.png"):
            shutil.copy2(aside / name, photos)
    if away == "no images":
        (photos / "readme.txt").write_text("nothing")
    with pytest.raises(RebusError, match="Nothing was changed"):
        index(photos)
    if away in ("absent", "empty"):
        with pytest.raises(MissingFile):
            index(photos, prune=True)
    assert whole(tmp_path) == before
    shutil.rmtree(photos, ignore_errors=True)
    aside.rename(photos)
    report = index(photos)
    assert (report.embedded, report.rows, report.missing) == (0, 12, 0)


def test_folder_that_cannot_be_read_is_not_missing(photos, index, monkeypatch):
    """A disk that gives errors: its files keep their rows, also when pruning."""
    from rebus.index import scan

    index(photos)
    listed = os.scandir

    def fails(folder):
        if os.fsencode(folder).endswith(b"deep"):
            raise OSError(5, "Input/output error", folder)
        return listed(folder)

    monkeypatch.setattr(scan.os, "scandir", fails)
    report = index(photos, prune=True)
    assert (report.rows, report.pruned, report.missing) == (12, 0, 0)
    assert report.unread == {"deep": "Input/output error"}


def test_read_error_keeps_the_row(photos, index, tmp_path, monkeypatch):
    index(photos)
    before = vectors(tmp_path)
    os.utime(photos / "00.png", (1, 1))
    draw(photos / "new.png", 50)

    def fails(path, name):
        raise BadImage(f"{name}: cannot be read: Input/output error")

    monkeypatch.setattr(read_image, "read_file", fails)
    report = index(photos)
    assert set(report.unread) == {"00.png", "new.png"}
    assert report.rows == 12
    assert np.array_equal(vectors(tmp_path)[b"00.png"], before[b"00.png"])
    monkeypatch.undo()
    assert index(photos).rows == 13


def test_damaged_files_are_told_once(photos, index, decodes, tmp_path):
    (photos / "empty.jpg").write_bytes(b"")
    (photos / "page.jpg").write_text("<html>")
    (photos / "cut.png").write_bytes((photos / "00.png").read_bytes()[:100])
    os.mkfifo(photos / "pipe.png")
    report = index(photos)
    assert set(report.damaged) == {"empty.jpg", "page.jpg", "cut.png"}
    assert report.rows == 12
    decodes.clear()
    report = index(photos)
    assert (report.unchanged, report.damaged, len(decodes)) == (15, {}, 0)
    shutil.copy(photos / "02.png", photos / "cut.png")
    assert index(photos).rows == 13


def test_folder_of_nothing_that_can_be_read(tmp_path, index):
    folder = tmp_path / "bad"
    folder.mkdir()
    (folder / "one.png").write_bytes(b"no image")
    with pytest.raises(RebusError, match="not one of 1 images could be read"):
        index(folder)
    draw(folder / "two.png", 1)
    assert index(folder).rows == 1


def test_odd_names(tmp_path, index):
    folder = tmp_path / "photos"
    names = [b"new\nline.png", b"\xff\xfe stray.png", b"n" * 251 + b".png", "ünïcode 犬.png".encode(), b"Case.png"]
    for number, name in enumerate([*names, b"case.png"]):
        folder.mkdir(exist_ok=True)
        plain = tmp_path / "plain.png"
        draw(plain, number)
        plain.rename(os.fsdecode(os.path.join(os.fsencode(folder), name)))
    (folder / "loop").symlink_to(folder)
    (folder / "link.png").symlink_to(folder / "Case.png")
    report = index(folder)
    assert report.rows == 6
    found = opened(tmp_path)
    assert set(found.snapshot.paths) == {*names, b"case.png"}
    assert all(os.path.exists(hit.path) for hit in found.search("a red circle"))
    report = index(folder, follow=True)  # the loop ends; the link is one more name for an image
    assert (report.rows, report.embedded) == (7, 0)
    (folder / "Case.png").rename(folder / "CASE.png")
    (folder / "link.png").unlink()
    report = index(folder, follow=True)
    assert (report.moved, report.embedded, report.missing) == (1, 0, 1)
    assert b"CASE.png" in opened(tmp_path).snapshot.paths


def test_excluded(photos, index, tmp_path):
    index(photos)
    report = index(photos, exclude=("deep",))
    assert (report.rows, report.excluded, report.missing) == (6, 6, 0)
    assert index(photos).rows == 6  # as before, until others are given
    assert index(photos, exclude=()).rows == 12


def test_one_writer_at_a_time(photos, index, tmp_path):
    index(photos)
    with locked(tmp_path / "index"), pytest.raises(UsageError, match="another process"):
        index(photos)
    assert index(photos).unchanged == 12


def test_another_model_is_built_beside_and_swapped_in(photos, index, tmp_path, monkeypatch):
    from rebus.index import engine

    index(photos)
    before = vectors(tmp_path)

    def stops(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(engine, "embed_batch", stops)
        with pytest.raises(KeyboardInterrupt):
            index(photos, model="siglip/scenes", chosen=True)
    assert opened(tmp_path).manifest.model == MODEL
    assert all(np.array_equal(vectors(tmp_path)[path], vector) for path, vector in before.items())
    report = index(photos, model="siglip/scenes", chosen=True)
    assert (report.model, report.embedded, report.rows) == ("siglip/scenes", 12, 12)
    manifest = read_manifest(tmp_path / "index" / FILE)
    tables = [path.name for path in (tmp_path / "index" / "tables").iterdir()]
    assert tables == [f"{manifest.table}.lance"]
    assert index(photos).model == "siglip/scenes"  # an index keeps its model until another is named


def test_other_weights_under_the_same_name_are_never_mixed(photos, index, tmp_path):
    import torch

    import rebus

    model = rebus.load(MODEL)
    model.save(tmp_path / "mine")
    index(photos, model=str(tmp_path / "mine"))
    with torch.no_grad():
        model.network.image_proj.weight.mul_(torch.linspace(0.5, 1.5, model.network.image_proj.weight.shape[1]))
        model.network.text_proj.weight.mul_(1.5)
    shutil.rmtree(tmp_path / "mine")
    model.save(tmp_path / "mine")
    with pytest.raises(RebusError, match="other weights"):
        opened(tmp_path).search("a red circle")
    draw(photos / "new.png", 60)
    report = index(photos, model=str(tmp_path / "mine"))
    assert report.rebuilt
    assert (report.embedded, report.rows) == (13, 13)
    assert opened(tmp_path).search("a red circle")


def test_interrupted_run_goes_on(photos, index, tmp_path, monkeypatch):
    from rebus.index import engine

    embed, batches = engine.embed_batch, []

    def stops(model, batch):
        if len(batches) == 2:
            raise KeyboardInterrupt
        batches.append(batch)
        return embed(model, batch)

    monkeypatch.setattr(engine, "embed_batch", stops)
    with pytest.raises(KeyboardInterrupt):
        index(photos)
    with pytest.raises(MissingFile, match="not complete yet"):
        opened(tmp_path)
    monkeypatch.undo()
    report = index(photos)
    assert (report.embedded, report.rows) == (4, 12)


def test_disk_full_keeps_the_old_state(photos, index, tmp_path, monkeypatch):
    from rebus.index.writer import Writer

    index(photos)
    before = vectors(tmp_path)
    for number in range(20, 60):
        draw(photos / f"{number}.png", number)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    take = Writer.take

    def full(self, one, row):  # from the first row on no file may grow beyond 8 kB: as ENOSPC, in one line
        resource.setrlimit(resource.RLIMIT_FSIZE, (8_000, hard))
        return take(self, one, row)

    monkeypatch.setattr(Writer, "take", full)
    try:
        with pytest.raises(CannotWrite, match=r"no space left|cannot be written"):
            index(photos)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    monkeypatch.undo()
    assert all(np.array_equal(vectors(tmp_path)[path], vector) for path, vector in before.items())
    assert index(photos).rows == 52


def test_few_files_after_many_commits(photos, index, tmp_path, monkeypatch):
    from rebus.index import writer

    for number in range(100):
        draw(photos / f"more{number}.png", number)
    monkeypatch.setattr(writer, "_ROWS", 1)
    index(photos)
    table = next((tmp_path / "index" / "tables").iterdir())
    manifest = read_manifest(tmp_path / "index" / FILE)
    assert Store(manifest.uri, manifest.table).count() == 112
    assert sum(path.is_file() for path in table.rglob("*")) <= 20


def test_many_rows_are_partitioned(photos, index, tmp_path, monkeypatch):
    from rebus.index import update

    monkeypatch.setattr(update, "APPROXIMATE", 10)
    partitioned = []
    monkeypatch.setattr(Store, "partition", lambda self: partitioned.append(self.count()))
    index(photos)
    assert partitioned == [12]


def test_damaged_snapshot_is_told(photos, index, tmp_path):
    index(photos)
    snapshot = opened(tmp_path).snapshot
    file = snapshot.folder / "vectors.f32"
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(RebusError, match="damaged"):
        opened(tmp_path)
    assert index(photos, verify=True).embedded == 0
    assert opened(tmp_path).search("a red circle")


def test_index_at_an_address(photos, tmp_path, monkeypatch):
    """Tables in an object store, by LanceDB's address of one; the snapshot stays here."""
    from rebus.index.report import Options
    from rebus.index.update import update_index

    monkeypatch.setenv("REBUS_HOME", str(tmp_path / "home"))
    address = (tmp_path / "bucket").as_uri()
    assert update_index(photos, Options(model=MODEL), address).rows == 12
    assert next((tmp_path / "bucket").glob("*.lance")).is_dir()
    assert len(open_index(photos, address).search("a red circle", number=5)) == 5
    assert update_index(photos, Options(model=MODEL), address).unchanged == 12


def test_manifest_of_another_version_is_refused(tmp_path):
    for text, reason in (("{", "cannot be read"), ('{"version": 99}', "another version"), ('{"version": 1}', "fields")):
        (tmp_path / FILE).write_text(text)
        with pytest.raises(RebusError, match=reason):
            read_manifest(tmp_path / FILE)


def test_file_in_place_of_a_folder(tmp_path, index):
    (tmp_path / "file").write_text("")
    with pytest.raises(MissingFile, match="not a folder"):
        index(Path(tmp_path / "file"))
