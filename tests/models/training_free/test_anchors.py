"""The search for the nearest rows: exact however it is done."""

import pytest
import torch

from rebus.models.training_free.anchors import Anchors, Screen


@pytest.fixture
def table():
    torch.manual_seed(0)
    return torch.randn(700, 37) * torch.rand(700, 1), torch.randn(4, 37)


def same(a, b):
    return torch.equal(a.similarity, b.similarity) and torch.equal(a.at, b.at)


def test_equals_float64(table):
    rows, queries = table
    cosine = torch.nn.functional.normalize(queries.double()) @ torch.nn.functional.normalize(rows.double()).T
    values, places = cosine.topk(60)
    found = Anchors([rows]).nearest(queries, 60)
    torch.testing.assert_close(found.similarity, values, atol=1e-14, rtol=0)
    assert torch.equal(found.at, places)


@pytest.mark.parametrize("width", [37, 64])  # at the first, screens are not read
@pytest.mark.parametrize("close", [0.0, 3.0])  # the second: all rows point one way, and are near each other
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_blocks_shards_and_screens_change_no_bit(dtype, close, width):
    torch.manual_seed(0)
    rows = ((torch.randn(700, width) + close) * torch.rand(700, 1)).to(dtype)
    queries = torch.randn(4, width) + close
    whole = Anchors([rows]).nearest(queries, 50)
    parts = [rows[:333], rows[333:334], rows[334:]]
    screens = [Screen.of(part, block=100) for part in parts]
    assert same(Anchors([rows]).nearest(queries, 50, block_bytes=7000), whole)
    assert same(Anchors(parts).nearest(queries, 50), whole)
    assert same(Anchors(parts, screens).nearest(queries, 50, block_bytes=5000), whole)
    assert same(Anchors(parts, [screens[0], None, screens[2]]).nearest(queries, 50), whole)
    one_by_one = [Anchors(parts, screens).nearest(q[None], 50) for q in queries]
    assert torch.equal(torch.cat([n.similarity for n in one_by_one]), whole.similarity)


def test_a_screen_keeps_its_promise(table):
    rows, _ = table
    screen = Screen.of(rows)
    unit = torch.nn.functional.normalize(rows, dim=1)
    assert float((unit - screen.codes * screen.scale[:, None]).norm(dim=1).max()) <= screen.slack < 0.05


@pytest.mark.parametrize("offset", [8, 16, 24])
def test_screens_may_lie_anywhere_in_a_file(offset):
    torch.manual_seed(0)
    rows, queries = torch.randn(300, 64), torch.randn(4, 64)
    screen = Screen.of(rows)
    memory = torch.empty(300 * 64 + 128, dtype=torch.int8)
    start = -memory.data_ptr() % 64 + offset
    codes = memory[start : start + 300 * 64].view(300, 64).copy_(screen.codes)
    moved = Screen(codes, screen.scale, screen.slack)
    assert same(Anchors([rows], [moved]).nearest(queries, 20), Anchors([rows]).nearest(queries, 20))


def test_the_quick_pass_is_no_further_off_than_it_says():
    torch.manual_seed(0)
    rows, queries = torch.randn(500, 64) + 2, torch.nn.functional.normalize(torch.randn(3, 64) + 1).double()
    anchors = Anchors([rows], [Screen.of(rows)])
    cosine = queries @ torch.nn.functional.normalize(rows.double()).T
    slack, rounding = anchors._slack(queries)
    off = [(quick.double() - cosine[:, at : at + quick.shape[1]]).abs() for at, quick in anchors._quick(queries, 9000)]
    assert (torch.cat(off, dim=1) <= slack + rounding * cosine.abs()).all()
    assert slack < 0.05


def test_masked_rows_are_as_if_never_there(table):
    rows, queries = table
    kept = torch.rand(700) > 0.3
    masked = Anchors([rows], kept=kept).nearest(queries, 40)
    never = Anchors([rows[kept]]).nearest(queries, 40)
    assert torch.equal(masked.similarity, never.similarity)
    assert torch.equal(masked.at, kept.nonzero()[:, 0][never.at])


def test_equal_rows_go_by_their_place_and_negative_ones_count_as_zero():
    rows = torch.tensor([[-1.0, 0.0], [2.0, 0.0], [1.0, 0.0], [0.0, 1.0], [3.0, 0.0]])
    found = Anchors([rows]).nearest(torch.tensor([[1.0, 0.0]]), 4)
    assert found.similarity.tolist() == [[1, 1, 1, 0]]
    assert found.at[0, :3].tolist() == [1, 2, 4]


def test_zeros_and_few_rows_are_answered():
    found = Anchors([torch.eye(3)]).nearest(torch.zeros(1, 3), 10)
    assert found.similarity.tolist() == [[0, 0, 0]]
    assert Anchors([torch.empty(0, 3)]).nearest(torch.ones(2, 3), 10).similarity.shape == (2, 0)


def test_a_row_that_is_no_number_takes_none_of_its_neighbours_along():
    torch.manual_seed(0)
    rows, queries = torch.randn(700, 64), torch.randn(4, 64)
    broken = rows.clone()
    broken[::9] = torch.nan
    kept = torch.ones(700, dtype=torch.bool)
    kept[::9] = False
    assert same(Anchors([broken]).nearest(queries, 5), Anchors([rows], kept=kept).nearest(queries, 5))
