"""The same images and captions in every form: equal counts, equal recall, equal BLEU."""

import csv
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from rebus.data.layouts import open_layout
from rebus.evaluate.benchmarks import captions as captioning
from rebus.evaluate.benchmarks import retrieval
from rebus.evaluate.benchmarks.walk import Source

# Two of the captions are the same text, of one image and of two: nobody may count them once.
CAPTIONS = [
    ["a dog runs, fast", "the dog runs over grass", "a dog runs, fast"],
    ["two cats sleep", "a pair of cats on a bed", "cats"],
    ["a red bus in the rain", "a bus", "rain falls on a bus"],
    ["a man reads", "an old man reads a paper", "a bus"],
]


def image(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 12), (60 * number, 90, 30)).save(file, "PNG")
    return file.getvalue()


def folder(at: Path) -> Path:
    at.mkdir(exist_ok=True)
    for n in range(len(CAPTIONS)):
        (at / f"{n}.png").write_bytes(image(n))
    return at


def flat() -> list[dict[str, str]]:
    return [{"file": f"{n}.png", "caption": text} for n, texts in enumerate(CAPTIONS) for text in texts]


def table(at: Path, separator: str, ending: str) -> Path:
    with open(folder(at) / f"captions.{ending}", "w", newline="") as file:
        writer = csv.DictWriter(file, ["file", "caption"], delimiter=separator)
        writer.writeheader()
        writer.writerows(flat())
    return at


def as_list(at: Path) -> Path:
    rows = [{"file": f"{n}.png", "captions": texts} for n, texts in enumerate(CAPTIONS)]
    (folder(at) / "captions.json").write_text(json.dumps(rows))
    return at


def as_rows(at: Path) -> Path:
    (folder(at) / "captions.jsonl").write_text("\n".join(map(json.dumps, flat())))
    return at


def tar(at: Path, texts: Callable[[list[str]], dict[str, str]]) -> Path:
    at.mkdir()
    with tarfile.open(at / "00000.tar", "w") as file:
        for n, captions in enumerate(CAPTIONS):
            for ending, data in {"png": image(n), **{k: v.encode() for k, v in texts(captions).items()}}.items():
                member = tarfile.TarInfo(f"{n:05}.{ending}")
                member.size = len(data)
                file.addfile(member, io.BytesIO(data))
    return at


def as_tar(at: Path) -> Path:
    return tar(at, lambda texts: {"txt": texts[0], "json": json.dumps({"caption": texts[0], "captions": texts})})


def as_tar_with_lines(at: Path) -> Path:
    return tar(at, lambda texts: {"txt": "\n".join(texts) + "\n"})


def as_parquet(at: Path) -> Path:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    at.mkdir()
    cells = [{"bytes": image(n), "path": f"{n}.png"} for n in range(len(CAPTIONS))]
    pq.write_table(pa.table({"image": cells, "caption": CAPTIONS}), at / "a.parquet")
    return at


def as_parquet_rows(at: Path) -> Path:
    """A row for each caption, in row groups that part the captions of an image."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    at.mkdir()
    rows = [(n, text) for n, texts in enumerate(CAPTIONS) for text in texts]
    cells = [{"bytes": image(n), "path": None} for n, _ in rows]
    table = pa.table({"image": cells, "caption": [text for _, text in rows], "row": [*range(len(rows))]})
    pq.write_table(table, at / "a.parquet", row_group_size=5)
    return at


def as_karpathy(at: Path) -> Path:
    images = [
        {"imgid": n, "filename": f"{n}.png", "split": "val", "sentences": [{"raw": text} for text in texts]}
        for n, texts in enumerate(CAPTIONS)
    ]
    (folder(at) / "dataset_flickr8k.json").write_text(json.dumps({"images": images, "dataset": "flickr8k"}))
    return at


def as_img2dataset_files(at: Path) -> Path:
    (at / "00000").mkdir(parents=True)
    for n, texts in enumerate(CAPTIONS):
        (at / "00000" / f"{n:09}.png").write_bytes(image(n))
        (at / "00000" / f"{n:09}.txt").write_text("\n".join(texts))
        (at / "00000" / f"{n:09}.json").write_text(json.dumps({"status": "success", "key": f"{n:09}"}))
    return at


FORMS: dict[str, Callable[[Path], Path]] = {
    "list": as_list,
    "rows": as_rows,
    "csv": lambda at: table(at, ",", "csv"),
    "tsv": lambda at: table(at, "\t", "tsv"),
    "tar": as_tar,
    "tar with lines": as_tar_with_lines,
    "parquet": as_parquet,
    "parquet rows": as_parquet_rows,
    "karpathy": as_karpathy,
    "img2dataset files": as_img2dataset_files,
}


class Sees:
    """Tells images by their colour: writes an image's second caption, and counts a letter in texts."""

    tasks = frozenset({"caption", "match"})

    def number(self, picture: Image.Image) -> int:
        return round(picture.getpixel((0, 0))[0] / 60)

    def caption(self, images: list[Image.Image], **options: Any) -> list[str]:
        return [CAPTIONS[self.number(picture)][1] for picture in images]

    def match(self, images: list[Image.Image], texts: list[str]) -> list[list[int]]:
        return [[text.count("dcbm"[self.number(picture)]) for text in texts] for picture in images]


def figures(path: Path) -> tuple[int, dict[str, Any], dict[str, Any]]:
    count = sum(open_layout(path).sizes)
    found = retrieval.run(Sees(), Source(path), retrieval.Options()).scores
    return count, found, captioning.run(Sees(), Source(path), captioning.Options()).scores


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, dict[str, Any], dict[str, Any]]:
    return figures(as_list(tmp_path_factory.mktemp("list") / "a"))


@pytest.mark.parametrize("form", FORMS)
def test_equal_counts_and_figures(form: str, tmp_path: Path, wanted: Any) -> None:
    path = FORMS[form](tmp_path / "data")
    reader = open_layout(path)
    records = [reader.read(block, row) for block, size in enumerate(reader.sizes) for row in range(size)]
    assert [list(record.captions) for record in records] == CAPTIONS
    assert figures(path) == wanted
    assert wanted[2]["bleu4"] == pytest.approx(1.0)
    assert 0 < wanted[1]["mean_recall"] < 1
