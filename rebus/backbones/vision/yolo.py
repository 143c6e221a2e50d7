"""Tiny YOLOv2: boxes, how likely each holds a thing, and which of some classes it is, in one pass; Darknet files.

Redmon and Farhadi, "YOLO9000: Better, Faster, Stronger", 2017. Every cell of a grid, a 32nd of the image's size,
predicts a box for each anchor. Images are RGB in [0, 1], stretched to the network's size, which may be any multiple of
32 pixels.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from rebus.core.errors import BadCheckpoint, BadConfig, MissingFile

STRIDE = 32  # pixels a cell
_NUM_HALVINGS = 5  # the first five convolutions are followed by max pooling of stride 2, the sixth by one of stride 1
_EPS = 1e-6  # of BatchNorm, in Darknet added to the deviation instead


@dataclass(frozen=True, kw_only=True)
class YOLOConfig:
    """The release for COCO. `anchors`: width and height in cells."""

    widths: tuple[int, ...] = (16, 32, 64, 128, 256, 512, 1024, 512)  # of the 3 × 3 convolutions
    anchors: tuple[tuple[float, float], ...] = (
        (0.57273, 0.677385),
        (1.87446, 2.06253),
        (3.33843, 5.47434),
        (7.88282, 3.52778),
        (9.77052, 9.16828),
    )
    num_classes: int = 80
    image_size: int = 416

    def __post_init__(self) -> None:
        if len(self.widths) <= _NUM_HALVINGS or min(self.widths) < 1 or not self.anchors:
            raise BadConfig(f"YOLO expects more than {_NUM_HALVINGS} widths above 0, and anchors; got {self}")
        if self.image_size < STRIDE or self.image_size % STRIDE:
            raise BadConfig(f"image_size {self.image_size}: expected a multiple of {STRIDE} pixels")


PRESETS = {"tiny": YOLOConfig(widths=(4, 4, 6, 8, 8, 10, 12), anchors=((1.0, 1.0), (3.0, 2.0)), num_classes=3)}


class Candidates(NamedTuple):
    """Every box of the grid: `boxes` (B, N, 4) xyxy in shares of the image, reaching beyond it at the border;
    `objectness` (B, N) and `classes` (B, N, V) are probabilities, the latter given that there is a thing."""

    boxes: Tensor
    objectness: Tensor
    classes: Tensor


class YOLO(nn.Module):
    def __init__(self, cfg: YOLOConfig):
        super().__init__()
        self.cfg = cfg
        ins = (3, *cfg.widths[:-1])
        self.convs = nn.ModuleList(_Convolution(i, o) for i, o in zip(ins, cfg.widths, strict=True))
        self.head = nn.Conv2d(cfg.widths[-1], len(cfg.anchors) * (5 + cfg.num_classes), 1)

    def forward(self, pixels: Float[Tensor, "B 3 Y X"]) -> Candidates:
        x = pixels
        for number, conv in enumerate(self.convs):
            x = conv(x)
            if number < _NUM_HALVINGS:
                x = F.max_pool2d(x, 2)
            elif number == _NUM_HALVINGS:  # keeps the size: the last row and column meet themselves
                x = F.max_pool2d(F.pad(x, (0, 1, 0, 1), mode="replicate"), 2, stride=1)
        x = self.head(x).unflatten(1, (len(self.cfg.anchors), -1)).permute(0, 1, 3, 4, 2)  # B A H W 5+V
        rows, columns = x.shape[2:4]
        cells = torch.tensor([columns, rows], dtype=x.dtype, device=x.device)
        y_at, x_at = (torch.arange(n, dtype=x.dtype, device=x.device) for n in (rows, columns))
        corner = torch.stack(torch.meshgrid(x_at, y_at, indexing="xy"), dim=-1)  # H W 2
        anchors = torch.tensor(self.cfg.anchors, dtype=x.dtype, device=x.device)[:, None, None]
        centre = (x[..., :2].sigmoid() + corner) / cells
        half = x[..., 2:4].exp() * anchors / cells / 2
        boxes = torch.cat([centre - half, centre + half], dim=-1)
        return Candidates(
            boxes.flatten(1, 3), x[..., 4].sigmoid().flatten(1), x[..., 5:].softmax(-1).flatten(1, 3)
        )  # fmt: skip


class _Convolution(nn.Module):
    """3 × 3, normalised, leaky."""

    def __init__(self, width_in: int, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width_in, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width, eps=_EPS)

    def forward(self, x: Float[Tensor, "B C Y X"]) -> Float[Tensor, "B D Y X"]:
        return F.leaky_relu(self.norm(self.conv(x)), 0.1)


def read_darknet(folder: Path, name: str) -> tuple[YOLOConfig, dict[str, Tensor]]:
    """The configuration and the weights, by our names, in the files `name.cfg` and `name.weights` of a folder.

    Raises `MissingFile`, `BadConfig` for another network than Tiny YOLOv2, `BadCheckpoint` for weights of another size.
    """
    for file in (folder / f"{name}.cfg", folder / f"{name}.weights"):
        if not file.is_file():
            raise MissingFile(f"{file} is not there: the package that holds it is damaged, install it again")
    cfg = read_cfg((folder / f"{name}.cfg").read_text(encoding="utf-8", errors="replace"))
    return cfg, read_weights(folder / f"{name}.weights", cfg)


def read_cfg(text: str) -> YOLOConfig:
    """A Darknet `.cfg` as a configuration. Raises `BadConfig` for a network that is no Tiny YOLOv2."""
    sections = _sections(text)
    try:
        convs = [values for kind, values in sections if kind == "convolutional"]
        region = sections[-1][1]
        anchors = [float(number) for number in region["anchors"].split(",")]
        cfg = YOLOConfig(
            widths=tuple(int(conv["filters"]) for conv in convs[:-1]),
            anchors=tuple(zip(anchors[::2], anchors[1::2], strict=True)),
            num_classes=int(region["classes"]),
            image_size=int(sections[0][1]["width"]),
        )
    except (KeyError, IndexError, ValueError) as error:
        raise BadConfig(f"no Darknet configuration of a YOLOv2: {type(error).__name__}: {error}") from None
    if [(kind, *_shape(kind, values)) for kind, values in sections[1:]] != list(_layers(cfg)):
        raise BadConfig("a Darknet network of other layers than those of Tiny YOLOv2, the only one that is read here")
    return cfg


def read_weights(file: Path, cfg: YOLOConfig) -> dict[str, Tensor]:
    """The tensors of a Darknet `.weights` file: a header, then float32 in the order of the layers, of each the bias and
    the normalisation (scale, mean, variance) before the kernel. Raises `BadCheckpoint`."""
    with torch.device("meta"):
        network = YOLO(cfg)
    order = [
        *(
            f"convs.{i}.{name}"
            for i in range(len(cfg.widths))
            for name in ("norm.bias", "norm.weight", "norm.running_mean", "norm.running_var", "conv.weight")
        ),
        "head.bias",
        "head.weight",
    ]
    shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
    data = file.read_bytes()
    major, minor = np.frombuffer(data[:8].ljust(8, b"\0"), "<i4")
    header = 20 if major * 10 + minor >= 2 else 16  # three numbers of the version, then the images seen, 8 or 4 bytes
    wanted = header + 4 * sum(shapes[name].numel() for name in order)
    if len(data) != wanted:
        raise BadCheckpoint(f"{file}: a Tiny YOLOv2 of this configuration has {wanted:,} bytes; got {len(data):,}")
    values = torch.from_numpy(np.frombuffer(data, "<f4", offset=header).astype(np.float32))
    parts = values.split([shapes[name].numel() for name in order])
    tensors = {name: part.view(shapes[name]) for name, part in zip(order, parts, strict=True)}
    steps = {name: torch.tensor(0) for name in shapes if name.endswith("num_batches_tracked")}
    return {**tensors, **steps}


def _sections(text: str) -> Sequence[tuple[str, Mapping[str, str]]]:
    """(kind, settings) of each section, in order."""
    found: list[tuple[str, dict[str, str]]] = []
    for line in text.splitlines():
        line = line.split("#")[0].strip()
        if line.startswith("["):
            found.append((line.strip("[]"), {}))
        elif "=" in line and found:
            key, _, value = line.partition("=")
            found[-1][1][key.strip()] = value.strip()
    return found


def _shape(kind: str, values: Mapping[str, str]) -> Sequence[str]:
    """What decides the function of a layer."""
    names = {
        "convolutional": ("filters", "size", "stride", "pad", "batch_normalize", "activation"),
        "maxpool": ("size", "stride"),
        "region": ("num", "coords", "softmax"),
    }
    return [values.get(name, "0") for name in names.get(kind, ())]


def _layers(cfg: YOLOConfig) -> Iterator[tuple[str, ...]]:
    """The layers of Tiny YOLOv2, as `_shape` tells them."""
    for number, width in enumerate(cfg.widths):
        yield "convolutional", str(width), "3", "1", "1", "1", "leaky"
        if number <= _NUM_HALVINGS:
            yield "maxpool", "2", "2" if number < _NUM_HALVINGS else "1"
    yield "convolutional", str(len(cfg.anchors) * (5 + cfg.num_classes)), "1", "1", "1", "0", "linear"
    yield "region", str(len(cfg.anchors)), "4", "1"
