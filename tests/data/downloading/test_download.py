"""The whole of a download against a server with every fault, killed at random, and at every step of writing."""

import io
import json
import multiprocessing
import os
import pickle
import random
import socket
import sys
import tarfile
import tempfile
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rebus.core.errors import CannotWrite, LimitExceeded, MissingExtra, NetworkError, RebusError, UsageError
from rebus.data.downloading import Addresses, Caps, Download, Settings, download_unit
from rebus.data.layouts import open_layout
from rebus.data.record import BadRecord
from rebus.data.resize_images import Fitting
from tests.data.downloading.faulty_server import EXPECTED, MAX_BYTES, jpeg, serving
from tests.data.dying import Dead, killed_at

QUICK = Settings(
    caps=Caps(timeout=1.0, max_seconds=3.0, max_bytes=MAX_BYTES), threads=16, retries=1, per_host=16, shard_size=125
)


@pytest.fixture(scope="module")
def server():
    with serving() as server:
        yield server


def settings_for(server, **more) -> Settings:
    return replace(QUICK, addresses=Addresses(allow=(server.place,)), **more)


def table(path: Path, urls, **columns) -> Path:
    columns = {"id": list(range(len(urls))), "url": urls, "text": [f"text {n}" for n in range(len(urls))], **columns}
    pq.write_table(pa.table(columns), path, row_group_size=300)
    return path


def journal_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "journal.jsonl").read_bytes().splitlines()]


def samples_of(folder: Path) -> list[tuple[str, str, dict[str, bytes]]]:
    """(shard, key, members) of all shards, in order."""
    found = []
    for shard in sorted(folder.glob("*.tar")):
        members: dict[str, dict[str, bytes]] = {}
        with tarfile.open(shard) as tar:
            for member in tar:
                key, _, ending = member.name.partition(".")
                assert ending not in members.setdefault(key, {})
                members[key][ending] = tar.extractfile(member).read()
        found += [(shard.name, key, parts) for key, parts in members.items()]
    return found


def check_whole(folder: Path, rows: int) -> Counter:
    """Each row has one line; each good one is one sample, in its shard, with its image. The outcomes."""
    lines = journal_of(folder)
    assert [line["row"] for line in lines] == list(range(rows))
    good = {(line["shard"], line["key"]): line for line in lines if line["outcome"] == "ok"}
    samples = samples_of(folder)
    assert sorted((shard, key) for shard, key, _ in samples) == sorted(good)
    for shard, key, members in samples:
        facts = json.loads(members["json"])
        assert facts["row"] == good[shard, key]["row"]
        assert facts["sha256"] == good[shard, key]["sha256"]
        assert members["txt"].decode() == f"text {facts['row']}"
    assert sorted(p.name for p in folder.iterdir() if not p.name.startswith(".")) == sorted(
        [*{p.name for p in folder.glob("*.tar")}, "journal.jsonl", "plan.json"]
    )
    assert not list(folder.glob(".*.draft"))
    return Counter(line["outcome"] for line in lines)


def thousand(server, closed: int) -> tuple[list[str | None], list[str]]:
    """Addresses and the outcome that each must have."""
    urls: list[str | None] = []
    outcomes: list[str] = []
    for number in range(1000):
        kinds = list(EXPECTED)
        kind = kinds[number // 3 % len(kinds)] if number % 3 == 0 else "ok"
        urls.append(server.url(kind, number))
        outcomes.append(EXPECTED[kind])
    special = {
        1: (None, "bad_url"),
        127: ("ftp://127.0.0.1/a.jpg", "bad_url"),
        128: (f"http://user:word@{server.place}/ok/128", "bad_url"),
        130: ("data:image/png;base64,AAAA", "bad_url"),
        250: ("http://192.168.0.1/a.jpg", "address"),
        251: ("http://2130706433/a.jpg", "address"),
        253: (f"http://localhost:{closed}/a.jpg", "address"),
        254: (f"http://127.0.0.1:{closed}/a.jpg", "address"),
        400: (urls[5], "same_url"),
        401: (urls[2], "same_url"),
        902: (urls[5] + "#part", "same_url"),
        403: (server.url("ok", 5) + "/same", "same_image"),
        899: (server.url("ok", 5) + "/once-more", "same_image"),
        904: (server.url("ok", 899 - 1) + "/same", "same_image"),
    }
    for row, (url, outcome) in special.items():
        urls[row], outcomes[row] = url, outcome
    return urls, outcomes


def go(tables, folder, settings):
    """In a process of its own."""
    Download(tables, folder, settings).run()


@pytest.mark.slow
def test_a_thousand_rows_from_the_worst_server_killed_again_and_again(server, tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        urls, outcomes = thousand(server, unused.getsockname()[1])
        paths = [table(tmp_path / "a.parquet", urls[:520]), tmp_path / "b.parquet"]
        texts = {"id": list(range(520, 1000)), "text": [f"text {n}" for n in range(520, 1000)]}
        pq.write_table(pa.table({"id": texts["id"], "url": urls[520:], "text": texts["text"]}), paths[1])
        folder, settings = tmp_path / "out", settings_for(server, shard_size=250)
        context = multiprocessing.get_context("forkserver")
        rng, kills = random.Random(0), 0
        for _ in range(60):
            process = context.Process(target=go, args=(paths, folder, settings))
            process.start()
            process.join(rng.uniform(0.5, 4.0) if kills < 5 else None)
            if not process.is_alive():
                break
            process.kill()
            process.join()
            kills += 1
        assert kills >= 3
        assert process.exitcode == 0
    found = check_whole(folder, 1000)
    wrong = [(line, urls[n]) for n, line in enumerate(journal_of(folder)) if line["outcome"] != outcomes[n]]
    assert not wrong, wrong[:5]
    assert found == Counter(outcomes)
    again = Counter()
    assert Download(paths, folder, settings).run(lambda outcome: again.update([outcome])) == found
    assert not again  # nothing was asked for once more


def test_killed_at_every_step_of_writing(server, tmp_path, monkeypatch):
    numbers = [0, 1, 2, 0, 4, 2, 6, 1, 8]
    urls = [f"{server.url('ok', number)}/{row}" for row, number in enumerate(numbers)]
    path, settings = table(tmp_path / "t.parquet", urls), settings_for(server, shard_size=3)
    ends = []
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # slow, and of no use to a test
    for step in range(1, 200):
        folder = tmp_path / f"out{step}"
        try:
            with killed_at(step, monkeypatch):
                Download([path], folder, settings).run()
            break
        except Dead:
            pass
        Download([path], folder, settings).run()
        ends.append(check_whole(folder, len(urls)))
    assert len(ends) > 25
    assert set(map(str, ends)) == {str(Counter({"ok": 6, "same_image": 3}))}
    rows = [line["row"] for line in journal_of(folder) if line["outcome"] == "ok"]
    assert rows == [0, 1, 2, 4, 6, 8]  # the first of each


def test_shards_are_read_by_the_webdataset_reader(server, tmp_path):
    from rebus.data.layouts import open_layout

    path = table(
        tmp_path / "t.parquet", [server.url("ok", n) for n in range(5)], clip_similarity=[0.1 * n for n in range(5)]
    )
    out = tmp_path / "out"
    Download([path], out, settings_for(server, shard_size=3)).run()
    reader = open_layout(out)
    assert list(reader.sizes) == [3, 2]
    records = {record.facts["row"]: record for record in (reader.read(1, row) for row in range(2))}
    assert records[4].captions == ("text 4",)
    assert records[4].image == jpeg(4)
    assert records[4].facts["clip_similarity"] == pytest.approx(0.4)
    assert records[4].facts["url"] == server.url("ok", 4)
    assert records[4].facts["width"] == 40


def test_smaller_pictures_and_the_hash_of_coyo(server, tmp_path):
    from PIL import Image

    urls = [server.url("ok", n) for n in range(4)]
    path = table(tmp_path / "t.parquet", urls, image_phash=["a", "b", "a", None])
    out = tmp_path / "out"
    settings = settings_for(server, fitting=Fitting(resize=15), phash=True, shard_size=2)
    assert Download([path], out, settings).run() == Counter(ok=3, same_image=1)
    assert journal_of(out)[2]["of"] == 0
    for _, _, members in samples_of(out):
        assert Image.open(io.BytesIO(members["jpg"])).size == (20, 15)
        assert json.loads(members["json"])["original_width"] == 40


@pytest.mark.parametrize("column", ["boxes", "objects", "phrases"])
@pytest.mark.parametrize("said", [(40, 30), (80, 60), (None, None)])
@pytest.mark.parametrize("resize", [None, 15])
def test_boxes_follow_the_images_that_came(server, tmp_path, column, said, resize):
    """The server's images have 40 x 30."""
    scale = said[0] / 40 if said[0] else 1
    box = {"label": "dog", "bbox_xywh": [scale * side for side in (20, 15, 10, 6)], "area": scale**2 * 60}
    objects = {"bbox": [box["bbox_xywh"]], "category": ["dog"], "area": [box["area"]]}
    cell = {"boxes": [box], "objects": objects, "phrases": [{"text": "the dog", "thing": box}]}[column]
    path = table(tmp_path / "t.parquet", [server.url("ok", 1)], width=[said[0]], height=[said[1]], **{column: [cell]})
    Download([path], tmp_path / "out", settings_for(server, fitting=Fitting(resize=resize))).run()
    record = open_layout(tmp_path / "out").read(0, 0)
    thing = record.phrases[0].thing if column == "phrases" else record.things[0]
    small = 0.5 if resize else 1.0
    assert thing.box == pytest.approx([small * side for side in (20, 15, 30, 21)])
    assert (thing.label, thing.area) == ("dog", pytest.approx(small**2 * 60))
    assert (record.facts["width"], record.facts["original_width"]) == (40 * small, 40)


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl"])
def test_boxes_of_tables_follow_the_images_that_came(server, tmp_path, name):
    """By corners, as only that keeps them in an image of 80 x 60; the server's images have 40 x 30."""
    objects = {"bbox": [[40, 30, 60, 42]], "category": ["dog"]}
    row = {"url": server.url("ok", 1), "width": 80, "height": 60, "objects": objects}
    if name.endswith("csv"):
        cells = (row["url"], "80", "60", '"' + json.dumps(objects).replace('"', '""') + '"')
        (tmp_path / name).write_text(",".join(row) + "\n" + ",".join(cells) + "\n")
    else:
        (tmp_path / name).write_text(json.dumps(row) + "\n")
    found = Download([tmp_path / name], tmp_path / "out", settings_for(server, fitting=Fitting(resize=15))).run()
    assert found == {"ok": 1}
    record = open_layout(tmp_path / "out").read(0, 0)
    assert [thing.label for thing in record.things] == ["dog"]
    assert record.things[0].box == pytest.approx([10, 7.5, 15, 10.5])


def test_capitals_in_the_names_of_columns_change_nothing(server, tmp_path):
    objects = {"bbox": [[20.0, 15.0, 10.0, 6.0]], "category": ["dog"]}
    path = table(tmp_path / "t.parquet", [server.url("ok", 1)], Width=[40], Height=[30], Objects=[objects])
    Download([path], tmp_path / "out", settings_for(server, fitting=Fitting(resize=15))).run()
    assert open_layout(tmp_path / "out").read(0, 0).things[0].box == pytest.approx([10, 7.5, 15, 10.5])


def test_a_line_without_an_address_is_counted(server, tmp_path):
    rows = [{"url": server.url("ok", 1), "text": "a"}, {"text": "b"}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert Download([tmp_path / "rows.jsonl"], tmp_path / "out", settings_for(server)).run() == {"ok": 1, "bad_url": 1}


def test_boxes_of_another_image_are_not_kept(server, tmp_path):
    urls = [server.url("ok", n) for n in range(3)]
    boxes = [
        [{"label": "dog", "xyxy": box}] for box in ([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0], [9.0, 2.0, 3.0, 4.0])
    ]
    columns = {"width": [40, 40, 40], "height": [30, 40, 30], "boxes": boxes, "objects": [["dog", "cat"]] * 3}
    out = tmp_path / "out"
    assert Download([table(tmp_path / "t.parquet", urls, **columns)], out, settings_for(server)).run() == Counter(
        ok=1, annotations=2
    )
    assert json.loads(samples_of(out)[0][2]["json"])["objects"] == ["dog", "cat"]  # names without boxes are facts
    reasons = [line["why"] for line in journal_of(out)[1:]]
    assert reasons[0].startswith("its boxes are for an image of 40 x 40, and this one has 40 x 30")
    assert reasons[1].startswith("boxes[0] ends before it begins")


def test_another_plan_another_folder_and_strangers_files(server, tmp_path):
    path, out = table(tmp_path / "t.parquet", [server.url("ok", 1)]), tmp_path / "out"
    Download([path], out, settings_for(server)).run()
    with pytest.raises(UsageError, match="shard_size 125, and now it is 7"):
        Download([path], out, settings_for(server, shard_size=7)).run()
    with pytest.raises(UsageError, match="choose an empty folder"):
        Download([path], tmp_path, settings_for(server)).run()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "t.parquet"]
    with pytest.raises(UsageError, match="no column adress; it has id, url, text"):
        Download([path], out, settings_for(server, url="adress"))
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(RebusError, match=r"bad.parquet: cannot be read as Parquet"):
        Download([tmp_path / "bad.parquet"], out, settings_for(server))


def test_two_processes_do_not_share_a_folder(server, tmp_path):
    path, out = table(tmp_path / "t.parquet", [server.url("ok", 1)]), tmp_path / "out"
    download = Download([path], out, settings_for(server))
    with download.units.opened():
        with pytest.raises(UsageError, match="another process"):
            Download([path], out, settings_for(server)).run()
    assert download.run() == Counter(ok=1)


def test_an_empty_table(tmp_path):
    path = table(tmp_path / "t.parquet", pa.array([], pa.string()))
    assert Download([path], tmp_path / "out", QUICK).run() == Counter()
    assert journal_of(tmp_path / "out") == []


def test_a_damaged_part_of_a_table(server, tmp_path):
    path = tmp_path / "t.parquet"
    urls = [server.url("ok", n) for n in range(9)]
    columns = {"url": urls, "text": [f"text {n}" for n in range(9)], "blob": [b"\xff"] * 9}
    pq.write_table(pa.table(columns), path, row_group_size=3, compression="none", use_dictionary=False)
    data, place = bytearray(path.read_bytes()), pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    data[place : place + 40] = b"\xff" * 40
    path.write_bytes(data)
    out = tmp_path / "out"
    assert Download([path], out, settings_for(server, shard_size=4)).run() == Counter(ok=6, bad_row=3)
    assert [line["row"] for line in journal_of(out) if line["outcome"] == "bad_row"] == [3, 4, 5]
    check_whole(out, 9)


def test_a_full_disk_keeps_what_is_done(server, tmp_path, monkeypatch):
    import errno

    path, out = table(tmp_path / "t.parquet", [server.url("ok", n) for n in range(6)]), tmp_path / "out"
    settings, flush, count = settings_for(server, shard_size=2), os.fsync, 0

    def full(handle):
        nonlocal count
        count += 1
        if count > 12:
            raise OSError(errno.ENOSPC, "No space left on device")
        flush(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CannotWrite, match="no space left on the disk"):
        Download([path], out, settings).run()
    monkeypatch.setattr(os, "fsync", flush)
    asked = []
    assert 0 < Download([path], out, settings).done < 6
    assert Download([path], out, settings).run(asked.append) == Counter(ok=6)
    assert 0 < len(asked) < 6


def test_a_network_that_is_off_stops_the_run(tmp_path, monkeypatch):
    def no_names(*args, **kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_names)
    path = table(tmp_path / "t.parquet", [f"http://host{n % 20}.example/{n}.jpg" for n in range(100)])
    with pytest.raises(NetworkError, match="is the network up"):
        Download([path], tmp_path / "out", QUICK).run()
    assert Download([path], tmp_path / "out", QUICK).done == 0


def test_few_requests_to_a_host_at_once(tmp_path, monkeypatch):
    from rebus.data.downloading import download_unit as unit

    lock, now, most = threading.Lock(), Counter(), Counter()

    def slowly(url, *rest):
        host = url.split("/")[2]
        with lock:
            now[host] += 1
            most[host] = max(most[host], now[host])
        time.sleep(0.01)
        with lock:
            now[host] -= 1
        return jpeg(int(url.rsplit("/", 1)[1]))

    monkeypatch.setattr(unit, "fetch", slowly)
    hosts = ["a.example"] * 60 + ["b.example", "c.example"] * 10
    path = table(tmp_path / "t.parquet", [f"http://{host}/{n}" for n, host in enumerate(hosts)])
    assert Download([path], tmp_path / "out", replace(QUICK, per_host=3)).run() == Counter(ok=80)
    assert most["a.example"] == 3
    assert max(most.values()) == 3


def test_the_first_row_keeps_an_image_that_a_later_row_brought_sooner(tmp_path, monkeypatch):
    later = threading.Event()

    def first_comes_last(url, *rest):
        if url.endswith("/first"):
            assert later.wait(5)
            time.sleep(0.1)
        else:
            later.set()
        return jpeg(1)

    monkeypatch.setattr(download_unit, "fetch", first_comes_last)
    path = table(tmp_path / "t.parquet", ["http://a.example/first", "http://a.example/later"])
    assert Download([path], tmp_path / "out", QUICK).run() == Counter(ok=1, same_image=1)
    assert [line["outcome"] for line in journal_of(tmp_path / "out")] == ["ok", "same_image"]
    check_whole(tmp_path / "out", 2)


def test_ctrl_c_ends_soon_and_leaves_no_half_of_anything(server, tmp_path):
    path, out = table(tmp_path / "t.parquet", [server.url("ok", n) for n in range(300)]), tmp_path / "out"
    heard = []

    def interrupt(outcome):
        heard.append(outcome)
        if len(heard) == 170:
            raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        Download([path], out, settings_for(server)).run(interrupt)
    assert time.monotonic() - began < 5
    assert Download([path], out, settings_for(server)).done == 125
    assert not list(out.glob("*.tar"))
    assert not [p for p in (out / "units").iterdir() if p.name.endswith(".draft")]
    assert Download([path], out, settings_for(server)).run() == Counter(ok=300)
    check_whole(out, 300)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`use_:DeprecationWarning:ray.data.context")  # Ray about its own settings
def test_over_ray(server, tmp_path):
    """The same rows have the same outcomes when the units are spread over Ray's workers."""
    ray = pytest.importorskip("ray")
    pytest.importorskip("ray.data")
    kinds = ["ok", "404", "html", "ok", "redirect", "truncated"]
    urls = [server.url(kinds[n % 6], n) for n in range(24)]
    urls[20] = server.url("ok", 0) + "/same"
    path, settings = table(tmp_path / "t.parquet", urls), settings_for(server, shard_size=8, threads=4)
    with tempfile.TemporaryDirectory(prefix="r") as short:  # the names of Ray's sockets may not be long
        ray.init(num_cpus=2, include_dashboard=False, _temp_dir=short, log_to_driver=False, logging_level="error")
        try:
            heard = Counter()
            found = Download([path], tmp_path / "out", settings, over="ray").run(
                lambda outcome: heard.update([outcome])
            )
        finally:
            ray.shutdown()
    assert check_whole(tmp_path / "out", 24) == found
    assert found == Counter(ok=12, http_404=4, damaged=4, no_image=3, same_image=1)
    assert sum(heard.values()) == 24


def test_ray_that_is_not_installed(server, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    path = table(tmp_path / "t.parquet", [server.url("ok", 1)])
    with pytest.raises(MissingExtra, match=r"rebus-vlm\[ray\]"):
        Download([path], tmp_path / "out", settings_for(server), over="ray").run()


def test_fault_12_the_bytes_of_all_threads_are_bounded(server, tmp_path, monkeypatch):
    """Sixteen threads at once may hold what three files of the size announced have, and wait for each other."""
    size = max(len(jpeg(n)) for n in range(24))
    monkeypatch.setenv("REBUS_MAX_DOWNLOAD_MEMORY", str(3 * size))
    budget, lock, now, most = download_unit._memory, threading.Lock(), 0, 0
    fitted = download_unit.fit

    def slow(data, fitting):
        nonlocal now, most
        with lock:
            now += len(data)
            most = max(most, now)
            assert now <= budget._used
        time.sleep(0.02)
        with lock:
            now -= len(data)
        return fitted(data, fitting)

    monkeypatch.setattr(download_unit, "fit", slow)
    path = table(tmp_path / "t.parquet", [server.url("ok", n) for n in range(24)])
    settings = settings_for(server, caps=Caps(timeout=1.0, max_seconds=3.0, max_bytes=size))
    assert Download([path], tmp_path / "out", settings).run() == {"ok": 24}
    assert size < most <= 3 * size
    assert budget._used == 0
    with pytest.raises(LimitExceeded, match="MAX_DOWNLOAD_MEMORY"):
        settings_for(server, caps=Caps(max_bytes=4 * size))


def pages(path: Path, urls: list[list[str | None]]) -> Path:
    """As OBELICS has them: null where the page has a text."""
    texts = [[None if url else f"text {n}" for n, url in enumerate(own)] for own in urls]
    pq.write_table(pa.table({"images": urls, "texts": texts}), path, row_group_size=2)
    return path


def test_the_images_of_pages_are_fetched_and_found_by_the_reader(server, tmp_path):
    """Units of three: the same address twice, the same image from two addresses in one unit and in two, one lost."""
    url = [server.url("ok", n) for n in range(3)]
    twin = [server.url("ok", 9) + f"/{n}" for n in range(3)]
    lost = server.url("404", 0)
    pages(
        tmp_path / "train-0.parquet",
        [[url[0], None, twin[0]], [None, twin[1], url[1]], [None, url[0]], [lost, None], [None, twin[2], url[2]]],
    )
    found = Download([tmp_path], tmp_path / "images", settings_for(server, shard_size=3)).run()
    assert found["ok"] == 4
    reader = pickle.loads(pickle.dumps(open_layout(tmp_path)))
    documents = [reader.read(block, row).document for block, row in ((0, 0), (0, 1), (1, 0), (2, 0))]
    assert documents == [
        (jpeg(0), "text 1", jpeg(9)),
        ("text 0", jpeg(9), jpeg(1)),
        ("text 0", jpeg(0)),
        ("text 0", jpeg(9), jpeg(2)),
    ]
    with pytest.raises(BadRecord, match=r"none of its images: .* was not downloaded"):
        reader.read(1, 1)


def test_pages_in_lines_of_json_are_fetched_and_read(server, tmp_path):
    url = [server.url("ok", n) for n in range(3)]
    pages = [
        {"images": [url[0], None, url[1]], "texts": [None, "one", None], "general_metadata": "{}"},
        {"images": [None, url[2]], "texts": ["two", None]},
        {"images": [None], "texts": ["words alone"]},
    ]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, pages)) + "\n[]\n")
    found = Download([tmp_path / "train.jsonl"], tmp_path / "images", settings_for(server)).run()
    assert found["ok"] == 3
    for reader in (open_layout(tmp_path), open_layout(tmp_path / "train.jsonl"), open_layout(tmp_path, split="train")):
        reader = pickle.loads(pickle.dumps(reader))
        assert reader.sizes == (4,)
        assert reader.read(0, 0).document == (jpeg(0), "one", jpeg(1))
        assert reader.read(0, 0).facts == {"general_metadata": "{}", "missing": 0}
        assert reader.read(0, 1).document == ("two", jpeg(2))
        for row, why in ((2, "a page without images"), (3, "expected an object")):
            with pytest.raises(BadRecord, match=rf"^train.jsonl:{row + 1}: .*{why}"):
                reader.read(0, row)
    with pytest.raises(UsageError, match="no files of the split"):
        open_layout(tmp_path, split="val")


@pytest.mark.parametrize("name", ["laion.csv", "cc.tsv", "rows.jsonl"])
def test_tables_of_addresses(server, tmp_path, name):
    urls = [server.url("ok", n) for n in range(3)]
    rows = [{"URL": url, "TEXT": f"text {n}"} for n, url in enumerate(urls)]
    separator = "\t" if name.endswith("tsv") else ","
    lines = [separator.join(rows[0]), *(separator.join(row.values()) for row in rows)]
    (tmp_path / name).write_text("\n".join(map(json.dumps, rows) if name.endswith("jsonl") else lines))
    found = Download([tmp_path / name], tmp_path / "out", settings_for(server)).run()
    assert found == {"ok": 3}
    assert check_whole(tmp_path / "out", 3) == {"ok": 3}


def test_a_table_without_a_header_says_what_to_do(tmp_path):
    (tmp_path / "cc.tsv").write_text("a cat\thttps://a/1.jpg\nb\thttps://a/2.jpg\n")
    with pytest.raises(UsageError, match="write a line such as caption, url above it"):
        Download([tmp_path / "cc.tsv"], tmp_path / "out", QUICK)
