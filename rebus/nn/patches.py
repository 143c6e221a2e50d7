"""Images as rows of patches: what makes an image a sentence for a transformer. Dosovitskiy et al. 2020."""

from jaxtyping import Float
from torch import Tensor, nn

from rebus.nn.linear import linear


def cut(pixels: Float[Tensor, "B C Y X"], size: int) -> Float[Tensor, "B P F"]:
    """Flat patches, row by row, channels first within a patch; what fills no patch at the right and bottom is left."""
    rows, cols = pixels.shape[-2] // size, pixels.shape[-1] // size
    whole = pixels[..., : rows * size, : cols * size]
    grid = whole.unflatten(3, (cols, size)).unflatten(2, (rows, size))  # B C rows p cols p
    return grid.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


class PatchProjection(nn.Conv2d):
    """The convolution of the paper. Its windows do not overlap: it is a linear layer on patches, and faster as one."""

    def __init__(self, num_channels: int, width: int, size: int, bias: bool):
        super().__init__(num_channels, width, size, size, bias=bias)

    def forward(self, pixels: Float[Tensor, "B C Y X"]) -> Float[Tensor, "B P D"]:
        return linear(cut(pixels, self.kernel_size[0]), self.weight.flatten(1), self.bias)
