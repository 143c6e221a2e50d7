"""Two or three coloured shapes on 48 pixels, with their boxes and with proposals near them and beside them: detection
without a proposal network, in minutes. The shapes and colours are those of `shapes_world`."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou

from rebus.reproduce import shapes_world as shapes

SIZE = 48
MOST = 3  # things in an image
NOVEL_SHAPES = (3, 5, 6)  # diamond, ring, saltire: 24 of the 64 classes, which have no labels
NAMES = tuple(f"{shapes.COLOUR_NAMES[colour]} {shapes.SHAPES[shape][0]}" for shape, colour in shapes.PAIRS)
NOVEL = torch.tensor([shape in NOVEL_SHAPES for shape, _ in shapes.PAIRS])
JITTER = 1.2  # pixels, standard deviation of a proposal's sides
ABSENT = -1
_CELL = SIZE // 2  # each thing has a quarter of the image to itself


@dataclass(frozen=True)
class Scenes:
    """`pixels` (N, 3, 48, 48) in [−1, 1]; `boxes` (N, 3, 4) xyxy and `classes` (N, 3), the row in `NAMES` or −1;
    `proposals` (N, 10, 4) with the class of what they show in `shown` (N, 10): −1 nothing; `real` (N, 10): there is a
    proposal."""

    pixels: Tensor
    boxes: Tensor
    classes: Tensor
    proposals: Tensor
    shown: Tensor
    real: Tensor


def scenes(seed: int, number: int) -> Scenes:
    """That many scenes; of the proposals, two are near each thing and up to four show background (IoU below 0.3)."""
    rng = np.random.Generator(np.random.PCG64([seed, number]))
    classes = rng.integers(len(NAMES), size=(number, MOST))
    classes[rng.random(number) < 0.5, MOST - 1] = ABSENT
    radius = rng.uniform(5, 9, size=(number, MOST))
    cells = rng.permuted(np.tile(np.arange(4), (number, 1)), axis=1)[:, :MOST]
    centres = [_CELL * at + rng.uniform(radius + 1, _CELL - radius - 1) for at in (cells % 2, cells // 2)]
    boxes = np.stack([centres[0] - radius, centres[1] - radius, centres[0] + radius, centres[1] + radius], axis=-1)
    boxes[classes == ABSENT] = 0
    near = boxes.repeat(2, axis=1) + rng.normal(0, JITTER, size=(number, 2 * MOST, 4))
    corner, side = rng.uniform(0, SIZE - 10, size=(number, 4, 2)), rng.uniform(8, 20, size=(number, 4, 2))
    aside = np.concatenate([corner, np.minimum(corner + side, SIZE)], axis=-1)
    true, beside = torch.from_numpy(boxes), torch.from_numpy(aside)
    apart = torch.stack([box_iou(*pair).amax(dim=1) < 0.3 for pair in zip(beside, true, strict=True)])
    shown = torch.from_numpy(classes.repeat(2, axis=1))
    return Scenes(
        pixels=drawn(classes, centres[0], centres[1], radius, rng),
        boxes=true.float(),
        classes=torch.from_numpy(classes),
        proposals=torch.cat([torch.from_numpy(near), beside], dim=1).float().clamp(0, SIZE),
        shown=torch.cat([shown, torch.full((number, 4), ABSENT)], dim=1),
        real=torch.cat([shown != ABSENT, apart], dim=1),
    )


def drawn(
    classes: np.ndarray, x0: np.ndarray, y0: np.ndarray, radius: np.ndarray, rng: np.random.Generator, size: int = SIZE
) -> Tensor:
    """Each thing on a noisy ground, by four samples a pixel. classes (N, K): rows in `NAMES`, −1 for none; centres and
    radii (N, K) in pixels → (N, 3, size, size) in [−1, 1]."""
    number, fine = len(classes), 2
    ground = np.array(shapes.BACKGROUNDS, dtype=np.float32)[rng.integers(len(shapes.BACKGROUNDS), size=number)] / 255
    image = np.broadcast_to(ground[:, :, None, None], (number, 3, size, size)).copy()
    inks = np.array(list(shapes.COLOURS.values()), dtype=np.float32) / 255
    at = (np.arange(size * fine) + 0.5) / fine
    for thing in range(classes.shape[1]):
        kind = np.maximum(classes[:, thing], 0)
        far = radius[:, thing, None, None]
        x, y = ((at - centre[:, thing, None]) for centre in (x0, y0))
        inside = shapes.is_inside(kind[:, None, None] // len(inks), x[:, None, :] / far, y[:, :, None] / far)
        inside = inside & (classes[:, thing] != ABSENT)[:, None, None]
        ink = inside.reshape(number, size, fine, size, fine).mean(axis=(2, 4), dtype=np.float32)[:, None]
        image += ink * (inks[kind % len(inks)][:, :, None, None] - image)
    image += shapes.NOISE * rng.standard_normal(image.shape, dtype=np.float32)
    return torch.from_numpy(2 * image - 1)
