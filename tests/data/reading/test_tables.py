"""Tables row by row: what the csv and json modules write comes back, and damage stays in its row."""

import csv
import io
import json
import pickle
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rebus.core.errors import RebusError, UsageError
from rebus.data.reading import tables
from rebus.data.reading.tables import BadTable, Table
from rebus.data.record import BadRecord

CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=12)


@settings(max_examples=25)
@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=8), st.sampled_from([".csv", ".tsv"]), st.booleans())
def test_what_csv_writes_comes_back(rows: list[tuple[str, str]], ending: str, mark: bool) -> None:
    text = io.StringIO()
    writer = csv.writer(text, delimiter="," if ending == ".csv" else "\t")
    writer.writerows([("file", "text"), *rows])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"t{ending}"
        path.write_bytes((b"\xef\xbb\xbf" if mark else b"") + text.getvalue().encode())
        table = Table.open(path)
        assert table.columns == ("file", "text")
        assert [(row["file"], row["text"]) for row in table.rows() if row] == rows
        assert [tuple(table.row(n).values()) for n in range(len(table))] == rows


VALUES = st.dictionaries(CELLS, st.one_of(st.none(), CELLS, st.integers(), st.lists(CELLS, max_size=2)), min_size=1)


@settings(max_examples=25)
@given(st.lists(VALUES, min_size=1, max_size=6), st.booleans(), st.sampled_from([None, 1]))
def test_what_json_writes_comes_back(rows: list[dict[str, object]], ascii_only: bool, indent: int | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        whole, lines = Path(folder) / "t.json", Path(folder) / "t.jsonl"
        whole.write_text(json.dumps(rows, ensure_ascii=ascii_only, indent=indent), encoding="utf-8")
        lines.write_text("\n\n".join(json.dumps(row, ensure_ascii=ascii_only) for row in rows), encoding="utf-8")
        for path in (whole, lines):
            table = pickle.loads(pickle.dumps(Table.open(path)))
            assert [table.row(n) for n in range(len(table))] == rows
        assert Table.open(lines).key(len(rows) - 1) == f"t.jsonl:{2 * len(rows) - 1}"


def test_a_damaged_line_of_csv_leaves_the_others(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(
        b'file,text\na.jpg,one\nb.jpg,"never closed\nc.jpg,"two\nlines"\nd.jpg,"x"y\n\ne.jpg\nf.jpg,\xff\ng.jpg,last'
    )
    table = Table.open(path)
    rows = []
    for n in range(len(table)):
        try:
            rows.append((table.key(n), table.row(n)["text"]))
        except BadRecord as error:
            rows.append((error.key, str(error)))
    assert rows == [
        ("t.csv:2", "one"),
        ("t.csv:3", "t.csv:3: unexpected end of data; a quote inside quotes is written twice"),
        ("t.csv:4", "two\nlines"),
        ("t.csv:6", "t.csv:6: ',' expected after '\"'; a quote inside quotes is written twice"),
        ("t.csv:8", "t.csv:8: 1 cells; the header names 2 (file, text)"),
        ("t.csv:9", "t.csv:9: not UTF-8 (byte 6 of the line)"),
        ("t.csv:10", "last"),
    ]


@pytest.mark.parametrize(
    "line", [b'{"file": ', b"[1, 2]", b"null", b"\xff\xfe", b"[" * 100_000, b'"text"', b"{" + b"1" * 9_000]
)
def test_a_damaged_line_of_json_leaves_the_others(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(b'{"n": 1}\n' + line + b'\n{"n": 3}\n')
    table = Table.open(path)
    assert (table.row(0), table.row(2)) == ({"n": 1}, {"n": 3})
    with pytest.raises(BadRecord, match=r"^t\.jsonl:2: "):
        table.row(1)


@pytest.mark.parametrize(
    "name, data, says",
    [
        ("t.csv", b"", "empty; expected a first line"),
        ("t.csv", b"a,b\n", "no rows in it"),
        ("t.csv", b"a,a\n1,2\n", "a column is named twice"),
        ("t.csv", "a,b\n1,2\n".encode("utf-16"), "UTF-16; save it as UTF-8"),
        ("t.json", b'{"a": 1}', r"no JSON list \(wanted \[ at letter 0\)"),
        ("t.json", b'[{"a": 1}, {"a": ', "no JSON list"),
        ("t.json", b'[{"a": 1}] x', "something follows the list"),
        ("t.json", b"[]", "no rows in it"),
        ("t.jsonl", b"\n\n", "no rows in it"),
        ("t.dat", b"a", "a table ends in .csv, .tsv"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, name: str, data: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(BadTable, match=says):
        Table.open(tmp_path / name)


def test_rows_without_columns_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text("nothing\nhere\n")
    with pytest.raises(BadTable, match="none of its first rows"):
        _ = Table.open(tmp_path / "t.jsonl").columns


def test_rows_of_a_split_and_the_damaged_ones(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(
        '{"split": "train"}\n{"split": "validation"}\n{bad\n{"split": null}\n{"split": 3}\n{"split": "train"}\n'
    )
    table = Table.open(path)
    assert table.rows_of("train").tolist() == [0, 2, 4, 5]
    assert table.rows_of("val").tolist() == [1, 2, 4]
    with pytest.raises(UsageError, match='no rows of the split "test"; it has train, validation'):
        table.rows_of("test")


def test_a_table_that_changes_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"a": 1}\n')
    table = Table.open(path)
    path.write_text('{"a": 1}\n{"a": 2}\n')
    tables._lines.cache_clear()  # as in another process
    with pytest.raises(RebusError, match="has changed since it was opened"):
        table.row(0)
