import torch

from rebus.nn.cache import Cache


def empty(rows=2, slots=5, layers=1):
    return Cache.empty(layers, (rows, 1, slots, 2), torch.device("cpu"), torch.float32)


def test_padding_on_either_side_gets_slots_and_no_positions():
    real = torch.tensor([[False, True, True], [True, True, False]])
    cache, positions = empty().open(real)
    assert positions[0, 1:].tolist() == [0, 1]
    assert positions[1, :2].tolist() == [0, 1]
    assert cache.slot.item() == 3
    cache, positions = cache.open(torch.ones(2, 1, dtype=torch.bool))
    assert positions[:, 0].tolist() == [2, 2]
    assert cache.real.tolist() == [[False, True, True, True, False], [True, True, False, True, False]]
    assert cache.next_position.tolist() == [3, 3]


def test_what_is_written_is_found_in_its_slots():
    cache, _ = empty().open(torch.ones(2, 3, dtype=torch.bool))
    first = torch.randn(2, 1, 3, 2)
    cache.write(0, first, 2 * first)
    cache, _ = cache.open(torch.ones(2, 1, dtype=torch.bool))
    second = torch.randn(2, 1, 1, 2)
    keys, values = cache.write(0, second, 2 * second)
    torch.testing.assert_close(keys, torch.cat([first, second, torch.zeros(2, 1, 1, 2)], dim=2))
    torch.testing.assert_close(values, 2 * keys)


def test_selected_rows_are_copies():
    cache, _ = empty().open(torch.tensor([[True, True], [False, True]]))
    cache.write(0, torch.ones(2, 1, 2, 2), torch.ones(2, 1, 2, 2))
    chosen = cache.select(torch.tensor([1, 1, 0]))
    assert chosen.real[:, :2].tolist() == [[False, True], [False, True], [True, True]]
    assert chosen.next_position.tolist() == [1, 1, 2]
    chosen, _ = chosen.open(torch.ones(3, 1, dtype=torch.bool))
    chosen.write(0, torch.full((3, 1, 1, 2), 7.0), torch.ones(3, 1, 1, 2))
    assert not (cache.keys[0] == 7).any()
    assert (chosen.keys[0][:, :, 2] == 7).all()
