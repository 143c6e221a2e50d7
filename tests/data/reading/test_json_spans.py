"""Lists in JSON files, element by element; what is held in memory."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from rebus.core.errors import MissingFile, RebusError
from rebus.data.reading.byte_lru_cache import ByteLRU
from rebus.data.reading.json_spans import JsonFile, read_json

CONTENT = {
    "größe": {"a": [1, {"b": "ü]"}]},
    "rows": [1, 'zwölf, "]}', {"x": [[]], "ä": None}, [], -1.5e3],
    "none": [],
    "last": True,
}


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("start", ["", "\ufeff", " \n\t"])
def test_elements_are_read_again_as_they_were(tmp_path: Path, indent: int | None, ascii_only: bool, start: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(start + json.dumps(CONTENT, indent=indent, ensure_ascii=ascii_only) + "\n", encoding="utf-8")
    spans: list[tuple[int, int]] = []
    others: list[Any] = []
    source = JsonFile.open(path)
    rest = source.scan({"rows": ([], lambda _, a, b: spans.append((a, b))), "none": ([], lambda *a: others.append(a))})
    assert rest == {"größe": CONTENT["größe"], "last": True}
    assert others == []
    assert pickle.loads(pickle.dumps(source)).elements(spans) == CONTENT["rows"]
    assert source.elements(spans[::-1][:2]) == [-1500.0, []]
    assert read_json(path) == CONTENT


@pytest.mark.parametrize("content", [[1, {"ä": 2}], {}, [], "ö", 3, None, {"a": {}}])
def test_whole_files(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    assert read_json(path) == content


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "a.json: empty file"),
        (b"{", r"a.json:1:2: damaged JSON: ends too early"),
        (b'{"a": 1,}', r"a.json:1:9: "),
        (b'{"a" 1}', r"a.json:1:6: damaged JSON: expected ':'"),
        (b'{"rows": [1, 2}', r"a.json:1:15: damaged JSON: expected ',' or '\]'"),
        (b'{"rows": [1,\n\n x]}', r"a.json:3:2: "),
        (b'{"rows": [1]} {', r"a.json:1:15: damaged JSON: trailing characters"),
        (b'\xef\xbb\xbf{"rows": x}', r"a.json:1:13: damaged JSON"),
        (b"\xff\xfe{\x00}\x00", r"a.json:1:1: "),
        (b'{"a": "\xff"}', "a.json: damaged JSON"),
        (b'{"a": [' + b"9" * 5000 + b"]}", "a.json: damaged JSON"),
        (b'{"rows": ' + b"[" * 100_000, "a.json: damaged JSON"),
    ],
)
def test_damage_is_one_line_with_its_place(tmp_path: Path, text: bytes, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(text)
    with pytest.raises(RebusError, match=message) as error:
        JsonFile.open(path).scan({"rows": ([], lambda *_: None)})
    assert "\n" not in str(error.value)


def test_only_the_fields_asked_for_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    huge = b"9" * 5000
    path.write_bytes(
        b'{"rows": [{"id": 1, "x": "\xff", "y": ' + huge + b'}, {"x": 1}, {"id": ' + huge + b'}, {"id": "\xff"}, '
        b'{"id": {"\xc3\xb6": [123456789012345678901234567890]}}, [1], ' + huge + b"]}"
    )
    found: list[Any] = []
    source = JsonFile.open(path)
    source.scan({"rows": (["id"], lambda item, a, b: found.append((item, (a, b))))})
    assert [item for item, _ in found] == [
        {"id": 1}, {}, {}, {}, {"id": {"ö": [123456789012345678901234567890]}}, {}, {}
    ]  # fmt: skip
    spans = [span for _, span in found]
    assert source.elements([spans[1], spans[5]]) == [{"x": 1}, [1]]
    for damaged in (0, 2, 3, 6):
        with pytest.raises(RebusError, match=r"cannot be read at its place in a.json"):
            source.elements([spans[damaged]])


def test_missing_files_and_elements_that_are_spoilt(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match=r"b.json: cannot be read"):
        JsonFile.open(tmp_path / "b.json")
    path = tmp_path / "a.json"
    path.write_bytes(b'{"rows": ["\xff", 1]}')
    spans: list[tuple[int, int]] = []
    source = JsonFile.open(path)
    source.scan({"rows": ([], lambda _, a, b: spans.append((a, b)))})
    assert source.elements(spans[1:]) == [1]
    with pytest.raises(RebusError, match=r"cannot be read at its place in a.json"):
        source.elements(spans)
    path.unlink()
    with pytest.raises(RebusError, match="cannot be read"):
        source.elements(spans)


def test_the_newest_are_held_up_to_the_room() -> None:
    made: list[str] = []
    held: ByteLRU[str] = ByteLRU(10)

    def get(name: str, size: int) -> str:
        return held.get(name, lambda: (made.append(name) or name.upper(), size))

    assert [get("a", 4), get("b", 4), get("a", 4), get("c", 4), get("a", 4), get("b", 4)] == [
        "A",
        "B",
        "A",
        "C",
        "A",
        "B",
    ]
    assert made == ["a", "b", "c", "b"]
    get("large", 99)
    get("large", 99)
    assert made[-1] == "large"
    assert pickle.loads(pickle.dumps(held)).get("large", lambda: ("new", 1)) == "new"


def test_numbers_that_are_not_finite_are_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    content = {"rows": [{"id": 1, "x": float("inf"), "y": ["NaN", -float("inf")]}, {"id": float("inf")}], "a": ", NaN,"}
    path.write_text(json.dumps(content))
    found: list[Any] = []
    source = JsonFile.open(path)
    rest = source.scan({"rows": (["id"], lambda item, a, b: found.append((item, (a, b))))})
    assert rest == {"a": ", NaN,"}
    assert [item for item, _ in found] == [{"id": 1}, {"id": []}]
    assert source.elements([span for _, span in found]) == content["rows"]
    assert read_json(path) == content
