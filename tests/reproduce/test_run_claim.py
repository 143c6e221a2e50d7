"""Cells are measured once, kept at once, and gone on with."""

import json

import pytest

from rebus.core.errors import RebusError, UsageError
from rebus.reproduce import report
from rebus.reproduce import run_claim as running
from rebus.reproduce.claim import Line, Plot, Read
from tests.reproduce import made_up


def figures(found):
    return [(cell["setting"], cell["seed"], cell["figures"]) for cell in found["cells"]]


def test_interrupted_and_resumed_is_as_if_it_had_not_been(tmp_path):
    claim = made_up.claim()
    whole = running.run(claim, tmp_path / "whole")

    def stop(cell, done):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        running.run(claim, tmp_path / "parts", report=stop)
    kept = json.loads((tmp_path / "parts" / "results.json").read_bytes())
    assert len(kept["cells"]) == 3
    told = []
    again = running.run(claim, tmp_path / "parts", report=lambda cell, done: told.append(done))
    assert told == [4, 5, 6]
    assert figures(again) == figures(whole)
    assert figures(running.run(claim, tmp_path / "parts")) == figures(whole)
    assert [path.name for path in (tmp_path / "parts").iterdir()] == ["results.json"]


@pytest.mark.slow
def test_processes_give_the_same_numbers_with_one_thread_each(tmp_path):
    claim = made_up.claim(seeds=(1,))
    alone, beside = running.run(claim, tmp_path / "1"), running.run(claim, tmp_path / "2", jobs=2)
    assert figures(alone) == figures(beside)
    assert all(cell["figures"]["threads"] == 1 for cell in beside["cells"])


@pytest.mark.slow
def test_a_cell_that_fails_is_named_and_the_others_stay(tmp_path):
    with pytest.raises(RebusError, match="no such luck"):
        running.run(made_up.claim(made_up.Budget(fails=True)), tmp_path / "here")
    assert len(json.loads((tmp_path / "here" / "results.json").read_bytes())["cells"]) == 2
    with pytest.raises(RebusError, match="s, seed 2: RebusError: no such luck"):
        running.run(made_up.claim(made_up.Budget(fails=True), seeds=(2,)), tmp_path / "there", jobs=2)


def test_results_of_something_else_are_refused(tmp_path):
    running.run(made_up.claim(), tmp_path)
    with pytest.raises(UsageError, match="another claim or version"):
        running.run(made_up.claim(made_up.Budget(numbers=5)), tmp_path)
    (tmp_path / "results.json").write_text('{"cells": [')
    with pytest.raises(UsageError, match="not the results of a claim"):
        running.run(made_up.claim(), tmp_path)


def test_page_and_summary(tmp_path):
    claim = made_up.claim()
    found = running.run(claim, tmp_path)
    told = report.summary(claim, found)
    assert (told["verdict"], told["holds"]) == ("holds", True)
    assert set(told["statements"][0]["values"]) == {"1", "2", "3"}
    page = report.page(claim, found, None)
    assert "| ours | score | 1." in page
    assert "Ours is above theirs." in page
    assert "matplotlib is not installed" in page
    assert "![the figures](figures.png)" in report.page(claim, found, "figures.png")


def test_picture(tmp_path):
    pytest.importorskip("matplotlib")
    claim = made_up.claim()
    drawn = report.image(claim, running.run(claim, tmp_path))
    assert drawn is not None
    assert drawn.startswith(b"\x89PNG")


@pytest.mark.parametrize("log", [False, True])
def test_no_point_is_cut_off(log):
    figure = pytest.importorskip("matplotlib.figure")
    measured = {"low": {1: {"a": 1.0, "b": 10.0}}, "high": {1: {"a": 2.0, "b": 20.0}}}
    lines = tuple(Line(name, tuple((way, Read(way, name)) for way in measured)) for name in ("a", "b"))
    axes = figure.Figure().subplots()
    report._draw(axes, Plot("title", "way", "score", lines, log_y=log), measured, (1,))
    bottom, top = axes.get_ylim()
    assert top > 20
    assert bottom == 0 if not log else 0 < bottom < 1
    below = {"low": {1: {"a": -1.0}}, "high": {1: {"a": 2.0}}}
    axes = figure.Figure().subplots()
    report._draw(axes, Plot("title", "way", "score", lines[:1]), below, (1,))
    assert axes.get_ylim()[0] < -1
