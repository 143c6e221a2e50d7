"""Videos with captions: one's own tables, WebVid, MSR-VTT."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from rebus.core.errors import RebusError, UsageError
from rebus.data.layouts import open_layout
from rebus.data.layouts.video import MSRVTT, VideoTable
from rebus.data.record import BadRecord
from tests.data.layouts_annotated.samples import write


def video(path: Path) -> Path:
    """Readers only look whether it is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"frames")
    return path


def test_a_table_of_ones_own(tmp_path: Path) -> None:
    shot = video(tmp_path / "videos" / "a.mp4")
    table = tmp_path / "captions.csv"
    table.write_text(
        'file,caption,start,end,source\na.mp4,"A dog,\nthen ""Käfer""",1.5,4,me\na.mp4,whole,,,me\n'
        "a.mp4,half,3,,me\na.mp4,back,4,3,me\nb.mp4,lost,,,me\na.mp4,too,1,2,3,4\na.mp4,when,x,2,me\n",
        encoding="utf-8",
    )
    reader = pickle.loads(pickle.dumps(open_layout(tmp_path)))
    assert isinstance(reader, VideoTable)
    assert reader.sizes == (7,)
    record = reader.read(0, 0)
    assert (record.key, record.video, record.captions) == ("captions.csv:2", shot, ('A dog,\nthen "Käfer"',))
    assert (record.seconds, record.facts) == ((1.5, 4.0), {"source": "me"})
    assert reader.read(0, 1).seconds is None
    for row, message in [
        (2, "captions.csv:5: start and end should be seconds; got '3' and ''"),
        (3, "captions.csv:6: start should come before end; got 4 and 3"),
        (4, "captions.csv:7: b.mp4 is missing"),
        (5, "captions.csv:8: "),
        (6, "captions.csv:9: start and end should be seconds"),
    ]:
        with pytest.raises(BadRecord, match=message):
            reader.read(0, row)


def test_lines_of_json(tmp_path: Path) -> None:
    shot = video(tmp_path / "clips" / "a.webm")
    rows: list[Any] = [
        {"file": "a.webm", "caption": ["eins", "two"], "start": 0, "end": 2},
        {"file": "a.webm", "caption": 3},
        {"file": "a.webm", "caption": ["x", None]},
        {"caption": "x"},
        {"file": "a.webm", "caption": "x", "start": float("nan"), "end": 2},
    ]
    table = tmp_path / "train.jsonl"
    table.write_text("\n".join(json.dumps(row) for row in rows) + "\n{", encoding="utf-8")
    reader = open_layout(table)
    record = reader.read(0, 0)
    assert (record.video, record.captions, record.seconds) == (shot, ("eins", "two"), (0.0, 2.0))
    for row in range(1, 6):
        with pytest.raises(BadRecord, match=f"^train.jsonl:{row + 1}: "):
            reader.read(0, row)
    assert open_layout(tmp_path, split="train").sizes == (6,)
    with pytest.raises(UsageError, match='no files of the split "val"'):
        open_layout(tmp_path, split="val")


def test_webvid(tmp_path: Path) -> None:
    shot = video(tmp_path / "videos" / "000401_000450" / "1066674784.mp4")
    table = tmp_path / "results_2M_val.csv"
    table.write_text(
        "videoid,contentUrl,duration,page_dir,name\n"
        'a1,https://x/a1.mp4,PT00H00M10S,000001_000050,"Lost, surely"\n'
        '1066674784,https://x/1.mp4,PT00H00M10S,000401_000450,"Käfer, in a wood"\n',
        encoding="utf-8",
    )
    reader = open_layout(tmp_path, split="val")
    record = reader.read(0, 1)
    assert (record.video, record.captions, record.seconds) == (shot, ("Käfer, in a wood",), None)
    assert record.facts == {"contentUrl": "https://x/1.mp4", "duration": "PT00H00M10S"}
    with pytest.raises(BadRecord, match=r"results_2M_val.csv:2: 000001_000050/a1.mp4 is missing"):
        reader.read(0, 0)


def msrvtt(*splits: str) -> dict[str, Any]:
    videos = [
        {
            "video_id": f"video{n}",
            "split": split,
            "category": 9,
            "url": "https://x",
            "start time": 137.72,
            "end time": 149.4,
        }
        for n, split in enumerate(splits)
    ]
    sentences = [
        {"caption": f"text {k} of {n}", "video_id": f"video{n}", "sen_id": n * 2 + k} for k in (0, 1) for n in range(3)
    ]
    return {"info": {}, "videos": videos, "sentences": sentences}


def test_msrvtt(tmp_path: Path) -> None:
    write(tmp_path / "train_val_videodatainfo.json", msrvtt("train", "validate", "train"))
    shot = video(tmp_path / "TrainValVideo" / "video1.mp4")
    reader = pickle.loads(pickle.dumps(open_layout(tmp_path, split="val")))
    record = reader.read(0, 0)
    assert (record.key, record.video) == ("train_val_videodatainfo.json:video1", shot)
    assert record.captions == ("text 0 of 1", "text 1 of 1")
    assert record.seconds is None  # the times are those of the film it was cut from
    assert record.facts["start time"] == 137.72
    write(tmp_path / "MSRVTT_data.json", msrvtt("train", "validate", "train", "test"))
    assert open_layout(tmp_path).sizes == (4,)
    (tmp_path / "MSRVTT_data.json").unlink()
    with pytest.raises(UsageError, match='no videos of split "test"; there are the splits train, validate'):
        open_layout(tmp_path, split="test")


def test_damaged_msrvtt(tmp_path: Path) -> None:
    content = msrvtt("train", "train")
    content["videos"] += [{"split": "train"}, 5]
    content["sentences"][0]["caption"] = None
    file = write(tmp_path / "MSRVTT_data.json", content)
    video(tmp_path / "videos" / "all" / "video0.mp4")
    reader = MSRVTT([file])
    for row, message in [
        (0, "json:video0: a caption should be a text"),
        (1, "json:video1: video1.mp4 is missing"),
        (2, 'json:video 2: "video_id" is missing'),
        (3, "json:video 3: a video should be an object"),
    ]:
        with pytest.raises(BadRecord, match=message):
            reader.read(0, row)
    file.write_text('{"videos": [],\n "sentences": {]}')
    with pytest.raises(RebusError, match=r"MSRVTT_data.json:2:16: damaged JSON"):
        open_layout(tmp_path)
    file.write_text('{"videos": []}')
    with pytest.raises(RebusError, match='"sentences" is missing'):
        open_layout(tmp_path)


def test_tables_that_lack_columns_or_are_about_pictures(tmp_path: Path) -> None:
    table = tmp_path / "a.csv"
    table.write_text("file,text\na.mp4,x\n")
    with pytest.raises(UsageError, match=r"a.csv: expected the columns file and caption; has file, text"):
        open_layout(table)
    table.write_text("file,caption\na.jpg,x\n")
    assert not isinstance(open_layout(table), VideoTable)
