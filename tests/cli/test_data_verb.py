"""rebus data: inspect, filter, convert, download."""

import json
import signal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from rebus.cli.app import parser_for
from rebus.cli.verbs.data import PARTS
from rebus.data.layouts import open_layout
from tests.data.downloading.faulty_server import serving


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("REBUS_HOME", str(tmp_path / "cache"))


@pytest.fixture
def captions(tmp_path):
    """Twelve images with captions and a box; the last is cut."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rows = []
    for n in range(12):
        Image.new("RGB", (40 + n, 30), (20 * n, 90, 9)).save(folder / f"{n:02}.jpg")
        row = {"file": f"{n:02}.jpg", "captions": [f"image {n}", "words " * n + "end"], "wide": n}
        rows.append(row | {"boxes": [{"label": "red square", "xyxy": [1, 2, 20, 25]}]})
    data = (folder / "11.jpg").read_bytes()
    (folder / "11.jpg").write_bytes(data[:-20])
    (folder / "captions.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return folder


@pytest.fixture
def coyo(tmp_path):
    path = tmp_path / "coyo.parquet"
    columns = {
        "id": list(range(10)),
        "url": [f"http://a.example/{n}.jpg" for n in range(10)],
        "text": [f"a text of some words {n}" for n in range(10)],
        "width": [100 * n + 1 for n in range(10)],
        "height": [500] * 10,
        "watermark_score": [0.1 * n for n in range(10)],
    }
    pq.write_table(pa.table(columns), path, row_group_size=4)
    return path


@pytest.mark.parametrize("part", PARTS)
def test_every_part_has_help_and_an_example_that_parses(run, part):
    import shlex

    code, out, _ = run("data", part, "--help")
    assert code == 0
    assert f"usage: rebus data {part}" in out
    module, parser, _ = parser_for(["data", part])
    words = shlex.split(module.EXAMPLE)
    assert words[:3] == ["rebus", "data", part]
    parser.parse_intermixed_args(words[3:])


@pytest.mark.parametrize(
    "words, said",
    [
        (("data",), "PART"),
        (("data", "inspct"), 'did you mean "inspect"?'),
        (("data", "inspect"), "PATH"),
        (("data", "inspect", "photos", "--layout", "folders"), "photos: no such file"),
        (("data", "convert", "photos"), "--out"),
        (("data", "convert", "photos", "--out", "o", "--quality", "101"), "1 to 100"),
        (("data", "filter", "photos", "--out", "o"), "no filter given"),
        (("data", "filter", "photos", "--out", "o", "--min-widht", "3"), 'did you mean "--min-width"'),
        (("data", "download", "a.parquet", "--out", "o", "--max-bytes", "2X"), "500k or 20M"),
        (("data", "download", "a.parquet", "--out", "o", "--timeout", "0"), "above 0"),
    ],
)
def test_wrong_usage_says_what_is_wanted(run, words, said):
    code, out, err = run(*words)
    assert code == 1 if "no such file" in said else 2
    assert said in err
    assert out == ""
    assert err.count("\n") == 1


def test_inspect(run, captions, tmp_path):
    sheet = tmp_path / "sheet.jpg"
    code, out, err = run("data", "inspect", captions, "--out", sheet)
    assert code == 0, err
    assert "folder, 12 records in 1 blocks" in out
    assert "captions" in out
    assert "red square (12)" in out
    assert str(sheet) in out
    with Image.open(sheet) as picture:
        assert picture.size[0] > 1000
    found = json.loads(run("data", "inspect", captions, "--json", "--sample", 5)[1])
    assert found["records"] == 12
    assert found["sampled"] == 5
    assert found["fields"]["things"] == 5
    assert found["widths"]["50"] > 40
    code, out, err = run("data", "inspect", captions)
    assert "--out sheet.jpg" in err


def test_inspect_names_what_is_damaged(run, captions):
    (captions / "03.jpg").write_text("<html>")
    (captions / "04.jpg").unlink()
    code, out, err = run("data", "inspect", captions)
    assert code == 0
    assert "2 of them damaged" in out
    assert "captions.jsonl:4: its image cannot be read" in err
    assert "04.jpg" in err


def test_filter_parquet_then_go_on(run, coyo, tmp_path):
    out_dir = tmp_path / "kept"
    words = ("data", "filter", coyo, "--out", out_dir, "--min-width", 250, "--max-watermark", 0.75, "--shard-size", 3)
    code, out, err = run(*words)
    assert code == 0, err
    assert "width below 250" in out
    assert "5 of 10 records kept, in 2 parquet files" in out
    tables = [pq.read_table(path) for path in sorted(out_dir.glob("*.parquet"))]
    assert pa.concat_tables(tables).column("id").to_pylist() == [3, 4, 5, 6, 7]
    assert tables[0].column_names == pq.read_table(coyo).column_names
    found = json.loads(run(*words, "--json")[1])
    assert found["written"] == 5
    assert found["refused"] == {"width below 250": 3, "watermark_score above 0.75": 2}
    code, _, err = run(*words[:-1], 4)
    assert code == 2
    assert "was started with shard_size 3" in err
    code, _, err = run("data", "filter", coyo, "--out", tmp_path / "none", "--min-width", 2500)
    assert code == 1
    assert "no record passes" in err


def test_filter_pictures(run, captions, tmp_path):
    out_dir = tmp_path / "kept"
    code, _, err = run("data", "filter", captions, "--out", out_dir, "--max-words", 5, "--min-width", 42)
    assert code == 0, err
    reader = open_layout(out_dir)
    records = [reader.read(0, row) for row in range(reader.sizes[0])]
    assert [record.facts["wide"] for record in records] == list(range(2, 11))
    assert records[-1].captions == ("image 10",)
    assert "1 damaged" in err


def test_filter_keeps_no_image_that_is_measured_on(run, captions, coyo, tmp_path):
    from rebus.data.scenes import scene

    for n in range(12):
        scene(n).image.save(captions / f"{n:02}.jpg")
    test = tmp_path / "test"
    test.mkdir()
    scene(3).image.resize((200, 200)).save(test / "a.png")
    (test / "captions.jsonl").write_text(json.dumps({"file": "a.png", "caption": "x"}))
    words = ("data", "filter", captions, "--out", tmp_path / "kept", "--no-copies-of", test)
    code, out, err = run(*words, "--json")
    assert code == 0, err
    assert json.loads(out)["refused"] == {"image like a test image": 2}  # its two captions
    reader = open_layout(tmp_path / "kept")
    assert [reader.read(0, row).facts["wide"] for row in range(reader.sizes[0])] == [n for n in range(12) if n != 3]
    code, _, err = run(*words[:-2], "--min-words", 1)
    assert code == 2
    assert "was started with" in err
    code, _, err = run("data", "filter", coyo, "--out", tmp_path / "rows", "--no-copies-of", test)
    assert code == 2
    assert "these files have no images" in err


def test_aligns_filters_are_one_option_and_each_can_be_changed(run, coyo, tmp_path):
    words = ("data", "filter", coyo, "--out", tmp_path / "kept", "--json")
    code, out, err = run(*words, "--align", "--min-words", 7, "--shorter-side-over", 100)
    assert code == 1, err
    assert json.loads(out)["refused"] == {"text of less than 7 words": 10}
    kept = json.loads((tmp_path / "kept" / "plan.json").read_text())["filters"]
    assert kept == {
        "shorter_side_over": 100,
        "aspect_under": 3,
        "texts_per_image": 1000,
        "images_per_text": 10,
        "min_words": 7,
        "max_words": 20,
        "most_grams": 100_000_000,
    }


def test_convert_there_and_back(run, captions, tmp_path):
    shards, folder = tmp_path / "shards", tmp_path / "folder"
    code, out, err = run("data", "convert", captions, "--out", shards, "--shard-size", 5)
    assert code == 0, err
    assert "11 records in 3 shards" in out
    assert "1 damaged" in err
    assert sorted(p.name for p in shards.iterdir() if p.name[0] != ".") == [
        "00000.tar",
        "00001.tar",
        "00002.tar",
        "plan.json",
        "skipped.jsonl",
    ]
    skipped = [json.loads(line) for line in (shards / "skipped.jsonl").read_text().splitlines()]
    assert skipped[0]["key"] == "captions.jsonl:12"
    assert "ends early" in skipped[0]["skipped"]
    reader = open_layout(shards)
    record = reader.read(1, 2)
    assert record.captions[0] == "image 7"
    assert record.image == (captions / "07.jpg").read_bytes()
    assert record.facts["wide"] == 7
    code, out, err = run("data", "convert", captions, "--out", folder, "--to", "folder", "--resize", 15)
    assert code == 0, err
    reader = open_layout(folder, split=None)
    record = reader.read(0, 7)
    assert record.captions == ("image 7", "words " * 7 + "end")
    assert record.things[0].label == "red square"
    with Image.open(record.image) as picture:
        assert picture.size == (24, 15)
    assert record.facts["original_width"] == 47


def test_convert_stops_at_too_many_damaged(run, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for n in range(150):
        (folder / f"{n:03}.jpg").write_bytes(b"<html>" if n % 3 == 0 else b"")
    code, out, err = run("data", "convert", folder, "--out", tmp_path / "out", "--json")
    assert (code, out) == (1, "")
    assert "100 of the first 100 records are damaged" in err
    assert not list((tmp_path / "out").glob("*.tar"))


def test_ctrl_c_in_a_conversion_says_how_to_go_on(run, captions, tmp_path, monkeypatch):
    from rebus.data import converting

    real, calls = converting.key_of, []

    def seventh(*args):
        calls.append(args)
        if len(calls) == 7:
            signal.raise_signal(signal.SIGINT)
        return real(*args)

    monkeypatch.setattr(converting, "key_of", seventh)
    words = ("data", "convert", captions, "--out", tmp_path / "out", "--shard-size", 4)
    code, out, err = run(*words)
    assert (code, out) == (130, "")
    assert "interrupted; 4 of 12 records are done and saved" in err
    assert [p.name for p in (tmp_path / "out").glob("*.tar")] == ["00000.tar"]
    code, out, err = run(*words)
    assert code == 0
    assert "resuming after 4 of 12" in err
    assert "11 records in 3 shards" in out


def test_a_folder_that_cannot_be_written(run, captions, tmp_path, monkeypatch):
    def shut(path, *args, **kwargs):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("pathlib.Path.mkdir", shut)
    code, _, err = run("data", "convert", captions, "--out", tmp_path / "shut" / "out")
    assert code == 1
    assert "shut/out: cannot be written: Permission denied" in err


def test_out_that_is_a_file(run, captions, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = run("data", "convert", captions, "--out", tmp_path / "file")
    assert code == 1
    assert "cannot be written" in err


def test_download(run, tmp_path):
    with serving() as server:
        kinds = ["ok", "404", "ok", "html"]
        path = tmp_path / "t.parquet"
        urls = [server.url(kind, n) for n, kind in enumerate(kinds)]
        pq.write_table(pa.table({"url": urls, "text": ["a", "b", "c", "d"]}), path)
        out_dir = tmp_path / "out"
        code, out, err = run("data", "download", path, "--out", tmp_path / "refused")
        assert code == 1
        assert out.splitlines()[1].split()[:2] == ["address", "4"]
        words = ("data", "download", path, "--out", out_dir, "--allow-private", "--threads", 2, "--max-bytes", "1M")
        code, out, err = run(*words)
        assert code == 0, err
        assert "2 images in 1 shards" in out
        assert "journal.jsonl has a line for each of 4 rows" in err
        found = json.loads(run(*words, "--json")[1])
        assert found["outcomes"] == {"ok": 2, "http_404": 1, "no_image": 1}
        assert sum(server.asked.values()) == 4
