"""Every record once a pass, in an order that the seed alone decides."""

import pickle

import pytest

from rebus.core.errors import UsageError
from rebus.data.shuffle import ShuffledOrder

SIZES = [5, 0, 3, 7, 1, 4]
ALL = [(block, row) for block, size in enumerate(SIZES) for row in range(size)]


@pytest.mark.parametrize("window", [1, 6, 100])
def test_every_record_comes_once_a_pass(window: int) -> None:
    order = ShuffledOrder(SIZES, seed=3, window=window)
    assert len(order) == 20
    first, second = list(order.places(0, 20)), list(order.places(20, 40))
    assert sorted(first) == sorted(second) == ALL
    assert first != second


def test_the_seed_decides_and_any_number_can_be_asked_first() -> None:
    order = ShuffledOrder(SIZES, seed=3, window=6)
    places = list(order.places(0, 60))
    again = pickle.loads(pickle.dumps(ShuffledOrder(SIZES, seed=3, window=6)))
    assert [again.place(n) for n in reversed(range(60))] == places[::-1]
    assert list(ShuffledOrder(SIZES, seed=4, window=6).places(0, 60)) != places


def test_rows_stay_within_their_window() -> None:
    order = ShuffledOrder([10] * 8, seed=0, window=20)
    for begin in range(0, 80, 20):
        assert len({block for block, _ in order.places(begin, begin + 20)}) == 2


def test_without_shuffling_the_order_is_that_on_disk() -> None:
    assert list(ShuffledOrder(SIZES, seed=3, shuffle=False).places(0, 40)) == ALL * 2
    with pytest.raises(UsageError, match="holds no records"):
        ShuffledOrder([0, 0], seed=0)
