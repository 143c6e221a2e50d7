"""OBELICS: pages in order; what was not downloaded is left out and counted."""

import hashlib
import json
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest

from rebus.core.errors import MissingExtra, RebusError, UsageError
from rebus.data.layouts import open_layout
from rebus.data.layouts.obelics import Obelics
from rebus.data.record import BadRecord
from tests.data.layouts_annotated.samples import picture, write

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

URLS = [f"https://example.org/{name}.jpg?größe=1" for name in "abcd"]
PAGES: list[dict[str, Any]] = [
    {"images": [URLS[0], None, URLS[1], None], "texts": [None, "Erst ein Käfer.", None, "Dann zwei."]},
    {"images": [None, URLS[2]], "texts": ["Only a lost image.", None]},
    {"images": [None, URLS[3], URLS[2]], "texts": ["A dog, and", None, None]},
    {"images": [None], "texts": ["words alone"]},
    {"images": [None, URLS[0]], "texts": ["no end", None, "x"]},
    {"images": [None, URLS[0]], "texts": [None, None]},
]


def parquet(path: Path, pages: list[dict[str, Any]], group: int = 2, kind: Any = None) -> Path:
    columns = {
        "images": pa.array([page["images"] for page in pages], pa.list_(kind or pa.string())),
        "metadata": pa.array([json.dumps([None] * len(page["texts"])) for page in pages]),
        "general_metadata": pa.array([json.dumps({"url": f"https://page/{n}"}) for n, _ in enumerate(pages)]),
        "texts": pa.array([page["texts"] for page in pages], pa.list_(pa.string())),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=group)
    return path


def fetched(folder: Path, url: str, ending: str = "") -> Path:
    digest = hashlib.sha256(url.encode()).hexdigest()
    return picture(folder / f"{digest}.png").rename(folder / f"{digest}{ending}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    parquet(tmp_path / "data" / "train-00000-of-00002-abc.parquet", PAGES)
    parquet(tmp_path / "data" / "train-00001-of-00002-def.parquet", PAGES[:1])
    return tmp_path


def test_pages_in_order_with_what_was_fetched(folder: Path) -> None:
    first = fetched(folder / "pictures", URLS[0], ".jpg")
    second = fetched(folder / "pictures" / hashlib.sha256(URLS[1].encode()).hexdigest()[:2], URLS[1])
    fourth = fetched(folder / "pictures", URLS[3], ".webp")
    reader = pickle.loads(pickle.dumps(open_layout(folder)))
    assert reader.sizes == (2, 2, 2, 1)
    record = reader.read(0, 0)
    assert record.key == "train-00000-of-00002-abc.parquet:0:0"
    assert record.document == (first, "Erst ein Käfer.", second, "Dann zwei.")
    assert record.facts["missing"] == 0
    assert json.loads(record.facts["general_metadata"]) == {"url": "https://page/0"}
    record = reader.read(1, 0)
    assert (record.document, record.facts["missing"]) == (("A dog, and", fourth), 1)
    with pytest.raises(BadRecord, match=r"parquet:0:1: none of its images: https://.*/c.jpg.* was not downloaded"):
        reader.read(0, 1)
    assert reader.read(3, 0).document == reader.read(0, 0).document


def test_a_map_from_addresses_to_files(folder: Path) -> None:
    picture(folder / "shots" / "1.png")
    write(folder / "pictures.json", {URLS[0]: "shots/1.png", URLS[1]: "shots/2.png", URLS[2]: "../../secret.png"})
    reader = pickle.loads(pickle.dumps(Obelics(folder, "train")))
    assert reader.read(0, 0).document == (folder / "shots" / "1.png", "Erst ein Käfer.", "Dann zwei.")
    with pytest.raises(BadRecord, match="is not the name of a file inside the data set"):
        reader.read(0, 1)


def test_pictures_with_their_bytes(tmp_path: Path) -> None:
    shot = picture(tmp_path / "a.png").read_bytes()
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pages = [{"images": [{"bytes": shot, "path": "a.png"}, None], "texts": [None, "one"]}]
    reader = open_layout(parquet(tmp_path / "pages.parquet", pages, kind=kind))
    assert reader.read(0, 0).document == (shot, "one")


def test_damaged_pages_are_damaged_records(folder: Path) -> None:
    fetched(folder / "pictures", URLS[0])
    reader = Obelics(folder)
    for block, row, message in [
        (1, 1, "a page without images"),
        (2, 0, "not lists of the same length"),
        (2, 1, "item 0 should be either a text or an image"),
    ]:
        with pytest.raises(BadRecord, match=f"parquet:{block}:{row}: .*{message}"):
            reader.read(block, row)
    assert reader.read(0, 0).facts["missing"] == 1


def test_damaged_files(folder: Path) -> None:
    fetched(folder / "pictures", URLS[0])
    second = folder / "data" / "train-00001-of-00002-def.parquet"
    second.write_bytes(second.read_bytes()[:200])
    reader = open_layout(folder)
    assert reader.sizes == (2, 2, 2, 1)
    assert reader.read(0, 0).facts["missing"] == 1
    with pytest.raises(BadRecord, match=r"def.parquet:0:0: damaged Parquet file"):
        reader.read(3, 0)
    pq.write_table(pa.table({"texts": pa.array([["a"]])}), second)
    with pytest.raises(BadRecord, match=r"def.parquet:0:0: no column images"):
        Obelics(folder).read(3, 0)
    first = folder / "data" / "train-00000-of-00002-abc.parquet"
    content = bytearray(first.read_bytes())
    content[4:200] = bytes(196)
    first.write_bytes(content)
    with pytest.raises(BadRecord, match=r"abc.parquet:0:0: damaged Parquet file"):
        Obelics(folder).read(0, 0)
    first.write_bytes(b"<html>")
    with pytest.raises(RebusError, match=r"abc.parquet: damaged Parquet file"):
        Obelics(first)
    with pytest.raises(UsageError, match='no files of the split "val"'):
        Obelics(folder, "val")


def test_without_pyarrow_the_extra_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtra, match=r"rebus-vlm\[data\]"):
        open_layout(folder)
