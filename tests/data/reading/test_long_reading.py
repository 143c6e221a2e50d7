"""A bar where reading takes long and somebody watches; the items are the same."""

import io
import sys

import pytest

from rebus.data.reading import long_reading
from rebus.data.reading.long_reading import watched


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("patience, terminal, shown", [(-1, True, True), (-1, False, False), (60, True, False)])
def test_a_bar_after_some_time(patience: float, terminal: bool, shown: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(long_reading, "PATIENCE", patience)
    assert list(watched(range(1000), 1000, "reading a.csv")) == [*range(1000)]
    assert ("reading a.csv" in stderr.getvalue()) is shown
    assert list(watched([], 0, "x")) == []
