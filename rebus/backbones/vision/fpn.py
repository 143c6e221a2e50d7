"""Feature pyramid: what a coarse map knows is handed down to the finer ones, so that each level can tell things apart.

Lin et al., "Feature Pyramid Networks for Object Detection", 2017. As in the TensorFlow reference of ViLD: levels 2 to
6, convolutions with bias and BatchNorm, level 6 made of level 5.
"""

from collections.abc import Sequence
from functools import partial

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from rebus.nn.same_padding import pad_same

FIRST, LAST = 2, 6  # levels; a cell of level l covers 2^l pixels
STRIDES = tuple(2**level for level in range(FIRST, LAST + 1))

# The BatchNorm of the reference: TensorFlow states 1 − momentum, 0.997.
batch_norm1d = partial(nn.BatchNorm1d, eps=1e-4, momentum=0.003)
batch_norm2d = partial(nn.BatchNorm2d, eps=1e-4, momentum=0.003)


class FPN(nn.Module):
    """C2 … C5 → P2 … P6, all of one width."""

    def __init__(self, widths: Sequence[int], width: int):
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(each, width, 1) for each in widths)
        self.output = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in widths)
        self.coarsest = nn.Conv2d(width, width, 3, stride=2)
        self.norms = nn.ModuleList(batch_norm2d(width) for _ in STRIDES)
        for conv in self.modules():
            if isinstance(conv, nn.Conv2d):
                nn.init.xavier_uniform_(conv.weight)
                assert conv.bias is not None
                nn.init.zeros_(conv.bias)

    def forward(self, maps: list[Float[Tensor, "B _ _ _"]]) -> list[Float[Tensor, "B C _ _"]]:
        x = [lateral(one) for lateral, one in zip(self.lateral, maps, strict=True)]
        for i in reversed(range(len(x) - 1)):
            x[i] = x[i] + F.interpolate(x[i + 1], size=x[i].shape[-2:], mode="nearest")
        x = [output(one) for output, one in zip(self.output, x, strict=True)]
        x.append(self.coarsest(pad_same(x[-1], 3)))  # of P5 before its BatchNorm
        return [norm(one) for norm, one in zip(self.norms, x, strict=True)]
