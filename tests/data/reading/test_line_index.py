"""Lines are found wherever the pieces of a file happen to end."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rebus.core.errors import LimitExceeded
from rebus.data.reading import line_index as lines_module
from rebus.data.reading.line_index import LineIndex, find_lines, first_line
from rebus.data.record import BadRecord

TEXTS = st.lists(st.sampled_from([b"", b"\r", b"a", b"ab\r", b"{}", b" x"]), max_size=12)


@given(TEXTS, st.booleans(), st.integers(1, 5))
def test_every_line_that_holds_something_is_a_row(texts: list[bytes], ends: bool, size: int) -> None:
    data = b"\n".join(texts) + (b"\n" if ends else b"")
    lines = find_lines(iter([data[at : at + size] for at in range(0, len(data), size)]))
    lines = LineIndex.from_arrays(lines.to_arrays())
    whole = data.split(b"\n")
    last = len(whole)
    wanted = {n: t.rstrip(b"\r") for n, t in enumerate(whole, 1) if t.rstrip(b"\r") or (n == last and t)}
    found = {lines.number(n): lines.read(io.BytesIO(data), n, "").rstrip(b"\r\n") for n in range(len(lines))}
    assert found == wanted


def test_a_cut_line_is_none() -> None:
    assert len(find_lines(iter([b"a\nb\nc"]))) == 3
    assert len(find_lines(iter([b"a\nb\nc"]), lambda: True)) == 2


def test_a_line_is_refused_that_is_not_there_or_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = find_lines(iter([b"abc\ndef\n"]))
    with pytest.raises(BadRecord, match="x:2: the file has become shorter"):
        lines.read(io.BytesIO(b"abc\nd"), 1, "x:2")
    monkeypatch.setattr(lines_module, "MAX_LINE", 2)
    with pytest.raises(BadRecord, match="a line of 4 bytes; at most 2"):
        lines.read(io.BytesIO(b"abc\ndef\n"), 1, "x:2")
    with pytest.raises(LimitExceeded):
        first_line(iter([b"aa", b"bb"]))


def test_the_first_line_may_follow_empty_ones() -> None:
    assert first_line(iter([b"\n \n", b"\n{", b"}\nx"])) == b"{}"
    assert first_line(iter([])) == b""
