"""Videos with captions: a table of files, WebVid's tables, and MSR-VTT's JSON.

Bain et al., "Frozen in Time", 2021 (WebVid: `videoid,name,page_dir,contentUrl,duration`, the video in
`videos/page_dir/videoid.mp4`); Xu et al., "MSR-VTT", 2016 (lists "videos" and "sentences"). A custom table is a
CSV, TSV or JSONL file with `file`, `caption` and perhaps `start` and `end` in seconds.
"""

import csv
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rebus.core.errors import RebusError, UsageError
from rebus.data.reading.checked_fields import listed, mapping, named, shown, words
from rebus.data.reading.json_spans import read_json
from rebus.data.reading.line_index import first_line, pieces_of
from rebus.data.reading.media_paths import MediaPaths
from rebus.data.reading.shard_files import shards
from rebus.data.reading.tables import Table
from rebus.data.record import BadRecord, Reader, Record

NAME = "video"
WHAT = "videos with captions: tables (file, caption, start, end), WebVid's CSV, MSR-VTT's JSON"
# Forms that are read, and what each was checked against: a public reader, a dataset card, or memory
CHECKED = (
    (
        "videos with captions: tables (file, caption, start, end), WebVid's CSV, MSR-VTT's JSON",
        "memory; samples written by hand",
    ),
)

_TABLES = (".csv", ".tsv", ".jsonl")
_VIDEOS = (".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".mpg", ".mpeg", ".ts", ".flv", ".wmv", ".ogv", ".gif")
_MSRVTT = re.compile(r".*videodatainfo.*\.json|MSRVTT_data\.json")
_SPLITS = {"val": "validate", "validation": "validate"}  # in the words of MSR-VTT


def recognises(path: Path) -> bool:
    if path.is_dir():
        tables = [file for ending in _TABLES for file in sorted(path.glob(f"*{ending}"))[:1]]
        return bool(_msrvtt_files(path)) or any(_is_table(file) for file in tables)
    return _MSRVTT.fullmatch(path.name) is not None or (path.suffix in _TABLES and _is_table(path))


def open(path: Path, split: str | None = None) -> Reader:
    files = _msrvtt_files(path) if path.is_dir() else [path] if path.suffix == ".json" else []
    return MSRVTT(files, split) if files else VideoTable(path, split)


class VideoTable:
    """One record a row of CSV, TSV or JSONL files; `seconds` where the row has `start` and `end`.

    A caption may be a list in JSONL. `split` chooses files by name. Raises `MissingFile` and `UsageError` for no files
    or no such split, or a table without the columns.
    """

    labels: tuple[str, ...] = ()

    def __init__(self, path: Path, split: str | None = None):
        self._tables = [Table.open(file) for file in shards(path, _TABLES, split)]
        for table in self._tables:
            if not _is_webvid(table.columns) and not {"file", "caption"} <= set(table.columns):
                has = ", ".join(table.columns)
                raise UsageError(f"{table.path}: expected the columns file and caption; has {has}")
        self.sizes = tuple(len(table) for table in self._tables)
        self._places = [MediaPaths(_folders(table.path.parent)) for table in self._tables]

    def read(self, block: int, row: int) -> Record:
        table = self._tables[block]
        if not 0 <= row < len(table):
            raise IndexError(row)
        key, item = table.key(row), table.row(row)
        try:
            file, captions, used = _webvid(item) if _is_webvid(item) else _own(item)
            return Record(
                key=key,
                video=self._places[block].find(file),
                captions=captions,
                seconds=_seconds(item) if "start" in used else None,
                facts={name: value for name, value in item.items() if name not in used},
            )
        except RebusError as error:
            raise BadRecord(key, str(error)) from None


class MSRVTT:
    """One record a video with all its sentences; the files are the cut clips, so `seconds` stays empty.

    `split`: "train", "validate" (or "val"), "test"; all videos by default. Raises `UsageError` for a split that is not
    there, `RebusError` for damaged JSON.
    """

    labels: tuple[str, ...] = ()

    def __init__(self, files: list[Path], split: str | None = None):
        wanted = _SPLITS.get(split or "", split)
        self._videos: list[tuple[str, Any]] = []  # file of JSON, entry
        self._sentences: dict[str, list[Any]] = {}
        self._known: set[str] = set()
        splits: set[str] = set()
        for file in files:
            self._add(file, wanted, splits)
        if (not splits & {wanted} and wanted is not None) or not self._videos:
            there = ", ".join(sorted(splits)) or "none"
            raise UsageError(f'{files[0]}: no videos of split "{split}"; there are the splits {there}')
        self.sizes = (len(self._videos),)
        self._places = MediaPaths(_folders(files[0].parent))

    def read(self, block: int, row: int) -> Record:
        file, video = self._videos[row]
        key = f"{file}:{named(video, 'video_id', f'video {row}')}"
        try:
            number = words(mapping(video, "a video"), "video_id")
            if "split" in video:
                words(video, "split")
            return Record(
                key=key,
                video=self._places.find(f"{number}.mp4"),
                captions=tuple(_texts(self._sentences.get(number, []))),
                facts={name: value for name, value in video.items() if name != "video_id"},
            )
        except RebusError as error:
            raise BadRecord(key, str(error)) from None

    def _add(self, file: Path, wanted: str | None, splits: set[str]) -> None:
        content = mapping(read_json(file), f"{file}:")
        try:
            videos, sentences = listed(content, "videos"), listed(content, "sentences")
        except RebusError as error:
            raise RebusError(f"{file}: {error}") from None
        own = set()
        for video in videos:
            split = video.get("split") if isinstance(video, dict) else None
            splits |= {split} if isinstance(split, str) else set()
            name = named(video, "video_id", "")
            fits = wanted is None or split == wanted or not isinstance(split, str)  # what has no split is damaged
            if fits and name not in self._known:
                own.add(name)
                self._videos.append((file.name, video))
        for sentence in sentences:
            name = named(sentence, "video_id", "")
            if name and name in own:
                self._sentences.setdefault(name, []).append(sentence.get("caption"))
        self._known |= own - {""}  # the same video may be in another file again


def _webvid(item: Mapping[str, Any]) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """File, captions, and the columns that said so."""
    folder, number = words(item, "page_dir"), named(item, "videoid")
    file = f"{folder}/{number}.mp4" if folder else f"{number}.mp4"
    return file, (words(item, "name"),), ("videoid", "name", "page_dir")


def _own(item: Mapping[str, Any]) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    captions = item.get("caption")
    texts = _texts(captions) if isinstance(captions, list) else [words(item, "caption")]
    return words(item, "file"), tuple(texts), ("file", "caption", "start", "end")


def _seconds(item: Mapping[str, Any]) -> tuple[float, float] | None:
    """The part from `start` to `end`. Raises `RebusError` for half of one and for one that is none."""
    start, end = item.get("start"), item.get("end")
    if start in (None, "") and end in (None, ""):
        return None
    try:
        span = float(start), float(end)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise RebusError(f"start and end should be seconds; got {shown(start)} and {shown(end)}") from None
    if not (0 <= span[0] < span[1] and math.isfinite(span[1])):
        raise RebusError(f"start should come before end; got {start} and {end}")
    return span


def _texts(values: list[Any]) -> list[str]:
    for value in values:
        if not isinstance(value, str):
            raise RebusError(f"a caption should be a text; got {shown(value)}")
    return values


def _is_table(file: Path) -> bool:
    """Whether the first row names a video: tables of images look the same."""
    try:
        if file.suffix == ".jsonl":
            first = json.loads(first_line(pieces_of(file)))
        else:
            with file.open(encoding="utf-8", errors="replace", newline="") as content:
                first = next(csv.DictReader(content, delimiter="\t" if file.suffix == ".tsv" else ","), {})
    except (OSError, ValueError, RecursionError, RebusError, csv.Error):
        return False
    name = first.get("file") if isinstance(first, dict) else None
    return _is_webvid(first) or (isinstance(name, str) and name.lower().endswith(_VIDEOS))


def _is_webvid(columns: Any) -> bool:
    return isinstance(columns, dict | tuple) and all(name in columns for name in ("videoid", "name", "page_dir"))


def _msrvtt_files(path: Path) -> list[Path]:
    return sorted(file for file in path.glob("*.json") if _MSRVTT.fullmatch(file.name))


def _folders(folder: Path) -> list[Path]:
    bases = (folder, folder.parent)
    names = ("videos", "", "videos/all", "TrainValVideo", "TestVideo", "video", "clips")
    return [base / name for base in bases for name in names]
