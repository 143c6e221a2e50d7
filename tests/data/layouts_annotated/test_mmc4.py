"""Multimodal C4: each image before its sentence; from plain and zipped lines."""

import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest

from rebus.core.errors import RebusError
from rebus.data.layouts import open_layout
from rebus.data.layouts.mmc4 import MMC4
from rebus.data.record import BadRecord
from tests.data.layouts_annotated.samples import picture


def image(name: str, at: Any, match: float = 0.25) -> dict[str, Any]:
    url = f"http://x/{name}"
    return {"image_name": name, "raw_url": url, "matched_text_index": at, "matched_sim": match, "face_detections": None}


PAGES: list[Any] = [
    {
        "text_list": ["Erstens Öl.", "Second.", "Third.", "Fourth."],
        "image_info": [image("b.jpg", 2, 0.3), image("a.jpg", 0, 0.2), image("c.jpg", 2, 0.28), image("lost.jpg", 1)],
        "url": "http://x/1",
        "could_have_url_duplicate": 0,
    },
    {"text_list": ["One."], "image_info": [image("lost.jpg", 0)], "similarity_matrix": [[0.2]]},
    {"text_list": ["One."], "image_info": [image("a.jpg", 1)]},
    {"text_list": ["One.", 2], "image_info": [image("a.jpg", 0)]},
    {"text_list": ["One."], "image_info": [{"matched_text_index": 0}]},
    {"text_list": ["One."], "image_info": []},
    {"text_list": ["One."], "image_info": [image("a.jpg", 0)], "similarity_matrix": [[0.2]]},
    {"text_list": ["One."], "image_info": [image("a.jpg", 0)], "similarity_matrix": [[0.3, 0.4]]},
    {"text_list": ["One."], "image_info": [image("a.jpg", 0)], "similarity_matrix": [[None]]},
    [1, 2],
]
NAME = "docs_no_face_shard_17_v2.jsonl"


def lines(pages: list[Any]) -> bytes:
    return "\n".join(json.dumps(page, ensure_ascii=False) for page in pages).encode() + b'\n{"text_list": [\n'


def zipped(path: Path, content: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(NAME, content)
    return path


@pytest.fixture(params=["plain", "zip"])
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    if request.param == "plain":
        (tmp_path / NAME).write_bytes(lines(PAGES))
    else:
        zipped(tmp_path / f"{NAME}.zip", lines(PAGES))
    for name in ("images/a.jpg", "images/17/b.jpg", "images/c.jpg"):
        picture(tmp_path / name)
    return tmp_path


def test_pictures_come_before_their_sentence(folder: Path) -> None:
    reader = pickle.loads(pickle.dumps(open_layout(folder)))
    assert reader.sizes == (11,)
    record = reader.read(0, 0)
    images = folder / "images"
    assert record.document == (
        images / "a.jpg",
        "Erstens Öl. Second.",
        images / "17" / "b.jpg",
        images / "c.jpg",
        "Third. Fourth.",
    )
    assert record.facts == {
        "url": "http://x/1",
        "could_have_url_duplicate": 0,
        "matched_sim": (0.2, 0.3, 0.28),
        "missing": 1,
        "unmatched": 0,
    }


def test_images_with_similarities_are_matched_anew(tmp_path: Path) -> None:
    """Each of those that are there to a sentence of its own, in the order of the sentences, whatever the order of the
    images; `lost.jpg`, which the first sentence is most like, takes none, and `d.jpg` is like none that is left."""
    names = ("lost.jpg", "b.jpg", "a.jpg", "d.jpg")
    likeness = [[0.9, 0.1, 0.1], [0.5, 0.49, 0.3], [0.6, 0.1, 0.1], [0.6, 0.1, 0.23]]
    page = {
        "text_list": ["One.", "Two.", "Three."],
        "image_info": [image(name, 0) for name in names],
        "similarity_matrix": likeness,
    }
    (tmp_path / NAME).write_bytes(lines([page]))
    a, b, _ = (picture(tmp_path / "images" / name) for name in ("a.jpg", "b.jpg", "d.jpg"))
    record = open_layout(tmp_path).read(0, 0)
    assert record.document == (a, "One.", b, "Two. Three.")
    assert record.facts == {"matched_sim": (0.6, 0.49), "missing": 1, "unmatched": 1}


def test_images_in_another_folder(tmp_path: Path) -> None:
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / NAME).write_bytes(lines(PAGES[:1]))
    found = picture(tmp_path / "elsewhere" / "a.jpg")
    reader = pickle.loads(pickle.dumps(open_layout(tmp_path / "pages", root=tmp_path / "elsewhere")))
    assert reader.read(0, 0).document[0] == found


def test_damaged_pages_are_damaged_records(folder: Path) -> None:
    reader = MMC4(folder)
    for row, message in enumerate(
        [
            "none of its images: lost.jpg is missing",
            "matched_text_index should be 0 to 0; got 1",
            "text_list: item 1 is not a text",
            '"image_name" is missing',
            "a page without images",
            "none of its images matches a sentence",
            "similarity_matrix should hold 1 rows of 1 numbers",
            "similarity_matrix should hold 1 rows of 1 numbers",
            "a page should be an object",
            "damaged JSON",
        ],
        start=1,
    ):
        with pytest.raises(BadRecord, match=rf"^{NAME}(\.zip)?:{row + 1}: {message}"):
            reader.read(0, row)
    with pytest.raises(IndexError):
        reader.read(0, 11)


def test_damaged_files_among_others(tmp_path: Path) -> None:
    zipped(tmp_path / "docs_shard_1.jsonl.zip", lines(PAGES))
    picture(tmp_path / "images" / "a.jpg")
    whole = (tmp_path / "docs_shard_1.jsonl.zip").read_bytes()
    (tmp_path / "docs_shard_2.jsonl.zip").write_bytes(whole[:-40])
    (tmp_path / "docs_shard_3.jsonl.zip").write_bytes(whole[:80] + bytes(60) + whole[140:])
    (tmp_path / "docs_shard_4.jsonl.zip").write_bytes(b"")
    reader = MMC4(tmp_path)
    assert reader.sizes == (11, 1, 1, 1)
    assert reader.read(0, 0).facts["missing"] == 3
    for block in (1, 2, 3):
        with pytest.raises(BadRecord, match=rf"docs_shard_{block + 1}.jsonl.zip: cannot be unpacked"):
            reader.read(block, 0)
    with pytest.raises(RebusError, match=r"docs_shard_4.jsonl.zip: cannot be unpacked"):
        MMC4(tmp_path / "docs_shard_4.jsonl.zip")


def test_unpacked_size_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rebus.data.layouts.mmc4.MAX_UNPACKED_BYTES", 100)
    zipped(tmp_path / f"{NAME}.zip", lines(PAGES))
    with pytest.raises(RebusError, match="at most 100 are read"):
        MMC4(tmp_path)


@pytest.mark.parametrize("place", ["", "images"])
def test_images_where_the_authors_script_saves_them(tmp_path: Path, place: str) -> None:
    name = "docs_no_face_shard_0_v3.jsonl"
    page = {"text_list": ["One."], "image_info": [image("a.jpg", 0)]}
    (tmp_path / name).write_text(json.dumps(page))
    picture(tmp_path / place / "docs_no_face_shard_0_v3_images" / "a.jpg")
    record = open_layout(tmp_path).read(0, 0)
    assert record.document == (tmp_path / place / "docs_no_face_shard_0_v3_images" / "a.jpg", "One.")


def test_images_of_a_zipped_file_where_the_authors_script_saves_them(tmp_path: Path) -> None:
    """It cuts the last ending off, and leaves .jsonl in the name."""
    page = {"text_list": ["One."], "image_info": [image("a.jpg", 0)]}
    zipped(tmp_path / "docs_no_face_shard_0_v3.jsonl.zip", json.dumps(page).encode())
    picture(tmp_path / "docs_no_face_shard_0_v3.jsonl_images" / "a.jpg")
    found = tmp_path / "docs_no_face_shard_0_v3.jsonl_images" / "a.jpg"
    assert open_layout(tmp_path).read(0, 0).document == (found, "One.")
