import logging

import pytest
import torch

from rebus.core.errors import BadImage, RebusError
from rebus.tasks import batching as batches
from rebus.tasks.batching import in_batches


def test_results_come_in_order():
    seen = []
    assert in_batches(range(7), lambda b: seen.append(len(b)) or [x * x for x in b], size=3, what="n") == [
        x * x for x in range(7)
    ]
    assert seen == [3, 3, 1]
    assert in_batches([], lambda b: b, size=3, what="n") == []


def test_fault_27_out_of_memory_halves_the_batch_and_says_so(caplog):
    seen = []

    def work(batch):
        seen.append(len(batch))
        if len(batch) > 2:
            raise torch.OutOfMemoryError("no memory")
        return list(batch)

    with caplog.at_level(logging.WARNING, logger="rebus"):
        assert in_batches(range(10), work, size=8, what="images") == list(range(10))
    assert seen == [8, 4, 2, 2, 2, 2, 2]
    assert "out of memory with 8 images per batch; continuing with 4" in caplog.text


def test_fault_27_a_single_item_that_does_not_fit_is_an_error():
    def work(batch):
        raise torch.OutOfMemoryError("no memory")

    with pytest.raises(RebusError, match="out of memory with a single item"):
        in_batches([1, 2], work, size=2, what="images")


def test_errors_number_the_rows_as_the_caller_does():
    def work(batch):
        if 5 in batch:
            raise BadImage(f"images[{list(batch).index(5)}]: empty file")
        return list(batch)

    with pytest.raises(BadImage, match=r"^images\[5\]: empty"):
        in_batches(range(9), work, size=4, what="images")
    with pytest.raises(BadImage, match=r"^images\[50\]: empty"):
        in_batches(range(9), work, size=4, what="images", numbers=[10 * n for n in range(9)])


def test_a_bar_is_shown_on_a_terminal_once_it_takes_time(monkeypatch, capsys):
    monkeypatch.setattr(batches, "PATIENCE", -1)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    in_batches(range(4), list, size=1, what="images")
    shown = capsys.readouterr()
    assert "images" in shown.err
    assert not shown.out


def test_no_bar_without_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(batches, "PATIENCE", -1)
    in_batches(range(4), list, size=1, what="images")
    assert not capsys.readouterr().err
