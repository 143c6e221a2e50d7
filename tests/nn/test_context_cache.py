"""A context that several rows read: shared and copied alike."""

import torch

from rebus.nn.attention import Attention
from rebus.nn.cache import Cache, ContextCache


def filled(rows, slots, used, layers=2):
    torch.manual_seed(0)
    cache = Cache.empty(layers, (rows, 2, slots, 4), torch.device("cpu"), torch.float32)
    cache, _ = cache.open(torch.ones(rows, used, dtype=torch.bool))
    for layer in range(layers):
        cache.write(layer, torch.randn(rows, 2, used, 4), torch.randn(rows, 2, used, 4))
    return cache


def test_rows_that_share_a_context_look_it_up_as_if_each_had_its_own():
    torch.manual_seed(0)
    layer = Attention(8, 2)
    x, context = torch.randn(6, 3, 8), torch.randn(2, 5, 8)
    mask = torch.tensor([[True] * 5, [True, True, False, True, False]])[:, None, None]
    with torch.no_grad():
        shared = layer.look_up(x, layer.keys_values(context), mask)
        alone = layer.look_up(x, layer.keys_values(context.repeat_interleave(3, 0)), mask.repeat_interleave(3, 0))
    torch.testing.assert_close(shared, alone)


def test_beams_share_and_prompts_leave():
    context = tuple((torch.randn(3, 2, 5, 4), torch.randn(3, 2, 5, 4)) for _ in range(2))
    mask = torch.rand(3, 1, 1, 5) > 0.3
    cache = ContextCache(filled(3, 40, 3), context, mask)
    begun = cache.select_beams(torch.tensor([[0, 0], [1, 1], [2, 2]]), unused=32)
    assert begun.own.slots == 8
    assert begun.context[0][0] is context[0][0]
    later = begun.select_beams(torch.tensor([[1, 0], [5, 5]]))  # the prompt in the middle is decided
    assert later.own.slots == 40
    assert torch.equal(later.context[1][1], context[1][1][[0, 2]])
    assert torch.equal(later.mask, mask[[0, 2]])
    for old, new in zip(cache.own.keys, later.own.keys, strict=True):
        assert torch.equal(new[:, :, :3], old[[0, 0, 2, 2]][:, :, :3])
        assert not new[:, :, 8:].any()
    alone = later.select(torch.tensor([3, 0]))
    assert torch.equal(alone.context[0][0], context[0][0][[2, 0]])
    assert torch.equal(alone.own.real, cache.own.real[[2, 0]])


def test_what_was_read_stays_readable_when_slots_are_added():
    cache = filled(2, 4, 3).select(torch.tensor([1, 0]), slots=9)
    cache, positions = cache.open(torch.ones(2, 1, dtype=torch.bool))
    assert positions.tolist() == [[3], [3]]
    assert cache.causal()[:, 0, 0].tolist() == [[True] * 4 + [False] * 5] * 2
