"""RefCOCO: phrases with their things; the pickle is read without running anything of it."""

import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from rebus.core.errors import RebusError, UsageError
from rebus.data.layouts import open_layout
from rebus.data.layouts.refcoco import RefCOCO
from rebus.data.record import BadRecord
from tests.data.layouts_annotated.samples import PICTURES, instances, picture, write


def ref(number: int, image: int, annotation: int, split: str, *texts: str) -> dict[str, Any]:
    sentences = [{"tokens": t.split(), "raw": t, "sent_id": number * 10 + n, "sent": t} for n, t in enumerate(texts)]
    return {
        "ref_id": number,
        "ann_id": annotation,
        "image_id": image,
        "category_id": 18,
        "file_name": f"COCO_train2014_{image:012}_{annotation}.jpg",
        "sent_ids": [s["sent_id"] for s in sentences],
        "sentences": sentences,
        "split": split,
    }


REFS = [
    ref(1, 285, 9, "val", "die Käfer links"),
    ref(2, 139, 8, "testA", "the person"),
    ref(3, 285, 7, "val", "dog", "the brown dog"),
    ref(4, 139, 8, "train", "a man"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "refcoco" / "instances.json", instances())
    (tmp_path / "refcoco" / "refs(unc).p").write_bytes(pickle.dumps(REFS, protocol=2))
    for item in PICTURES:
        picture(tmp_path / "images" / "train2014" / item["file_name"])
    return tmp_path / "refcoco"


@pytest.mark.parametrize("form", ["pickle", "json"])
def test_phrases_of_a_picture_are_one_record(folder: Path, form: str) -> None:
    if form == "json":
        (folder / "refs(unc).p").unlink()
        write(folder / "refs.json", REFS)
    reader = pickle.loads(pickle.dumps(open_layout(folder)))
    assert reader.sizes == (1,)
    assert reader.labels == ("person", "Käfer", "dog")
    record = reader.read(0, 0)
    assert record.image == folder.parent / "images" / "train2014" / "000000000285.jpg"
    assert [(phrase.text, phrase.thing.label, phrase.thing.box) for phrase in record.phrases] == [
        ("die Käfer links", "Käfer", (2, 4, 3, 24)),
        ("dog", "dog", (10, 10, 30, 30)),
        ("the brown dog", "dog", (10, 10, 30, 30)),
    ]
    assert record.facts["image_id"] == 285
    assert [p.text for p in RefCOCO(folder, "testA").read(0, 0).phrases] == ["the person"]
    with pytest.raises(UsageError, match='no split "testB"; there are testA, train, val'):
        RefCOCO(folder, "testB")


def test_a_pickle_of_python_2(folder: Path) -> None:
    """The released ones: protocol 0, byte texts, as cPickle wrote them."""
    text = (
        "(lp1\n(dp2\nS'split'\nS'val'\nsS'ref_id'\nI1\nsS'ann_id'\nL7L\nsS'image_id'\nI285\nsS'sentences'\n"
        "(lp3\n(dp4\nS'sent'\nVdog \\u00e4\nsS'raw'\nS'caf\\xc3\\xa9'\nsasa."
    )
    (folder / "refs(unc).p").write_bytes(text.encode())
    assert [p.text for p in RefCOCO(folder).read(0, 0).phrases] == ["dog ä"]


class Canary:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_nothing_in_a_pickle_is_run(folder: Path, tmp_path: Path) -> None:
    canary = tmp_path / "sang"
    hidden = [{**REFS[0], "sentences": Canary(canary)}]
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        (folder / "refs(unc).p").write_bytes(pickle.dumps(hidden, protocol=protocol))
        with pytest.raises(RebusError, match=r"refs\(unc\).p: not a pickle of only .*: it asks for (posix|nt).mkdir"):
            RefCOCO(folder)
    assert not canary.exists()
    pickle.loads((folder / "refs(unc).p").read_bytes())  # it does sing when it is run
    assert canary.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no pickle at all",
        pickle.dumps(REFS)[:-20],
        pickle.dumps({1, 2}),
        b"c__builtin__\neval\n(S'1'\ntR.",
        b"P1\n.",
        b"\x80\x02\x82\x01.",
        b"(lp999999999999999999\n.",
        b"]" + b"(lq\x00" * 10 + b"b.",
        b"]r\xff\xff\xff\x7f.",
        b"X\xff\xff\xff\x7fa.",
        b"(" * 100_000 + b"l" * 100_000 + b".",
    ],
    ids=[
        "empty",
        "no pickle",
        "cut",
        "a set",
        "eval",
        "kept elsewhere",
        "extension",
        "memo",
        "build",
        "large memo",
        "large text",
        "deep",
    ],
)
def test_damaged_and_odd_pickles_are_one_line(folder: Path, content: bytes) -> None:
    (folder / "refs(unc).p").write_bytes(content)
    with pytest.raises(RebusError) as error:
        RefCOCO(folder)
    assert "refs(unc).p" in str(error.value)
    assert "\n" not in str(error.value)


def test_damaged_phrases_are_records_of_their_own(folder: Path) -> None:
    refs = [REFS[0], {**REFS[2], "sentences": [{"raw": "x"}]}, ref(7, 632, 12345, "val", "a"), {"split": 5}]
    refs += [ref(8, 77, 7, "val", "nowhere"), ref(9, 139, 7, "val", "of another image")]
    (folder / "refs(unc).p").write_bytes(pickle.dumps(refs))
    reader = RefCOCO(folder)
    assert reader.sizes == (6,)
    assert len(reader.read(0, 0).phrases) == 1
    for row, message in [
        (1, r"refs\(unc\).p:632: annotation 12345 is not in instances.json"),
        (2, r"refs\(unc\).p:77: the image is not in instances.json"),
        (3, r"refs\(unc\).p:139: annotation 7 belongs to image 285"),
        (4, r'refs\(unc\).p:3: "sent" is missing'),
        (5, r'refs\(unc\).p:entry 3: "split" should be a text; got 5'),
    ]:
        with pytest.raises(BadRecord, match=message):
            reader.read(0, row)


def test_files_that_lack_or_are_too_many(folder: Path) -> None:
    (folder / "refs(google).p").write_bytes(pickle.dumps(REFS))
    with pytest.raises(UsageError, match=r"several files of phrases, give one .*: refs\(google\).p, refs\(unc\)"):
        RefCOCO(folder)
    assert RefCOCO(folder / "refs(google).p").sizes == (1,)
    (folder / "instances.json").write_text('{"images": [\n{"id": 1}\n')
    with pytest.raises(RebusError, match=r"instances.json:3:1: damaged JSON"):
        RefCOCO(folder / "refs(google).p")
