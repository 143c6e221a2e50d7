import torch

from rebus.nn.rope import rope_table, rotate


def test_pairs_are_turned_by_position_times_frequency():
    x = torch.randn(1, 1, 1, 6)
    turned = rotate(x, rope_table(torch.tensor([[5]]), 6, base=100.0))[0, 0, 0]
    for i in range(3):
        angle = torch.tensor(5 * 100.0 ** (-2 * i / 6))
        a, b = x[0, 0, 0, i], x[0, 0, 0, i + 3]
        torch.testing.assert_close(turned[i], a * angle.cos() - b * angle.sin())
        torch.testing.assert_close(turned[i + 3], b * angle.cos() + a * angle.sin())


def test_only_the_distance_counts():
    q, k = torch.randn(2, 1, 1, 1, 16).unbind()
    products = [
        (rotate(q, rope_table(torch.tensor([[at + 3]]), 16)) * rotate(k, rope_table(torch.tensor([[at]]), 16))).sum()
        for at in (0, 7, 1000)
    ]
    torch.testing.assert_close(products[0], products[1])
    torch.testing.assert_close(products[0], products[2], rtol=1e-3, atol=1e-3)


def test_position_zero_and_lengths_stay():
    x = torch.randn(2, 3, 4, 8)
    table = rope_table(torch.arange(4).expand(2, -1), 8)
    turned = rotate(x, table)
    torch.testing.assert_close(turned[:, :, 0], x[:, :, 0])
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))


def test_tables_come_in_the_wanted_type():
    assert all(part.dtype == torch.bfloat16 for part in rope_table(torch.tensor([[1]]), 4, dtype=torch.bfloat16))
