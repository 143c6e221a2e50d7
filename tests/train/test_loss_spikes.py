"""Steps that go wrong are left out; too many end the run, and the last checkpoint stays."""

import math

import pytest

from rebus.core.errors import RebusError
from rebus.train.loss_spikes import LossGuard


def test_fault_28_what_is_not_finite_is_left_out() -> None:
    guard = LossGuard(0.0, 7, 1e-3)
    assert guard.accepts(1, 2.0, 1.0)
    assert not guard.accepts(2, math.nan, 1.0)
    assert not guard.accepts(3, 2.0, math.inf)
    assert guard.skipped == 2
    assert guard.accepts(4, 2.0, 1.0)
    assert guard.skipped == 0


def test_fault_28_twenty_in_a_row_end_the_run_and_name_the_batches() -> None:
    guard = LossGuard(0.0, 7, 1e-3)
    for step in range(11, 30):
        guard.accepts(step, math.nan, 1.0)
    with pytest.raises(RebusError, match=r"steps 11 to 30 \(batches 10 to 29 of seed 7\).*lower optim.lr than 0.001"):
        guard.accepts(30, math.nan, 1.0)


def test_fault_28_a_spike_is_measured_by_what_is_usual() -> None:
    guard = LossGuard(10.0, 0, 1e-3)
    for step in range(40):
        assert guard.accepts(step, 2.0 + 0.1 * (step % 3), 1.0)
    assert guard.accepts(41, 2.9, 1.0)
    assert not guard.accepts(42, 9.0, 1.0)
    again = LossGuard(10.0, 0, 1e-3)
    again.restore(guard.state())
    assert again.state() == guard.state()
    assert not again.accepts(43, 9.0, 1.0)
    assert LossGuard(0.0, 0, 1e-3).accepts(1, 1e9, 1.0)
