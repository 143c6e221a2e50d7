import pytest
import torch
from torch.nn import functional as F

from rebus.nn.positions import resize_grid


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
@pytest.mark.parametrize("antialias", [True, False])
def test_a_table_is_resized_like_a_picture(mode, antialias):
    table = torch.randn(6, 5)
    resized = resize_grid(table, (2, 3), (4, 2), mode=mode, antialias=antialias)
    picture = table.T.reshape(1, 5, 2, 3)
    expected = F.interpolate(picture, (4, 2), mode=mode, antialias=antialias, align_corners=False)
    torch.testing.assert_close(resized, expected[0].reshape(5, 8).T)


def test_the_same_grid_is_the_same_table():
    table = torch.randn(6, 5)
    assert resize_grid(table, (2, 3), (2, 3), antialias=True) is table
    assert resize_grid(table.bfloat16(), (2, 3), (3, 3), antialias=True).dtype == torch.bfloat16
