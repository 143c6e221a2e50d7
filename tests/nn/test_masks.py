import pytest
import torch

from rebus.nn.masks import attention_mask, causal_blocks


@pytest.mark.parametrize("prefix", [0, 1, 3, 6])
def test_a_prefix_sees_itself_and_the_rest_is_causal(prefix):
    mask = attention_mask(causal_blocks(prefix, 6))[0, 0]
    for query in range(6):
        for key in range(6):
            assert mask[query, key] == (key <= query or (key < prefix and query < prefix))


def test_one_block_sees_everything():
    assert attention_mask(torch.zeros(4, dtype=torch.int64)).all()


def test_nobody_sees_padding():
    real = torch.tensor([[True, True, False], [False, True, True]])
    mask = attention_mask(causal_blocks(0, 3), real)
    assert mask.shape == (2, 1, 3, 3)
    assert not mask[0, 0, :, 2].any()
    assert not mask[1, 0, :, 0].any()
    assert mask[1, 0, 2].tolist() == [False, True, True]


def test_a_window_keeps_the_near_past_and_the_prefix_whole():
    mask = attention_mask(causal_blocks(4, 8), window=2)[0, 0]
    assert mask[:4, :4].all()
    assert mask[7].tolist() == [False] * 6 + [True] * 2
    positions = torch.tensor([[0, 0, 1, 2]])  # one padded token in front
    mask = attention_mask(causal_blocks(0, 4)[None], positions=positions, window=2)[0, 0]
    assert mask[3].tolist() == [False, False, True, True]


def test_queries_may_be_fewer_than_keys():
    blocks = causal_blocks(2, 5)
    whole = attention_mask(blocks)
    assert torch.equal(attention_mask(blocks, query_blocks=blocks[3:]), whole[:, :, 3:])
