"""The progress bar: what counts is read on 80 columns."""

import io
import sys

import pytest

from rebus.cli.output import bar


@pytest.mark.parametrize("width", [80, 100])
def test_steps_total_and_time_are_never_cut(monkeypatch, width):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    with bar("paligemma_captions", 20_000, done=12_345) as progress:
        progress.advance(count=10)
        progress.advance("loss 1.2345 · norm 0.12 · rate 1.0e-04 · 123/s · 40% of the peak · 12.3 GB")
    said = screen.getvalue()
    assert "12356/20000" in said
    assert "-:--:--" in said or "0:0" in said
    assert "loss 1.2" in said
