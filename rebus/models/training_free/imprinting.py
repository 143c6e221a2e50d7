"""A new word from a few examples, without training: one more class of a classifier, or pairs that count enough.

Qi et al., "Low-Shot Learning with Imprinted Weights", 2018: the mean of the examples becomes the class's row. Features
of images have much in common, which would make such a row fit every image a little; so what an image of anything shows
is taken off. In a table of captioned images each example is a pair of its own, heavy enough to be seen among the many
others that an image resembles.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from rebus.core.errors import NotFinite
from rebus.models.training_free.pairs import Pairs

SHARE = 0.25  # more finds a taught word better, and hides more of what else the same images show


def imprint(
    table: Pairs,
    image: Float[Tensor, "N D"],
    text: Float[Tensor, "E"],
    name: str,
    caption: str,
    usual: Float[Tensor, "D"] | None = None,
) -> str:
    """Add a class to a table whose pairs are the classes of a classifier; gives its id, `name`.

    `image`: examples as the image encoder sees them; `usual`: the mean direction of images of anything. The row is as
    long as the others are on average, its bias such that on the examples the class is as likely as all others together.
    """
    rows, bias = table.classifier()
    examples = image.to(rows)
    if not bool(examples.isfinite().all()):
        raise NotFinite(f'"{caption}": the vector of an example holds NaN or infinity')
    direction = F.normalize(examples, dim=1).mean(0)
    row = F.normalize(direction if usual is None else direction - usual.to(rows), dim=0) * rows.norm(dim=1).mean()
    others = torch.logsumexp(examples @ rows.T + bias, dim=1)
    table.add(row[None], text[None], [name], [caption], bias=(others - examples @ row).mean()[None])
    return name


def example_weight(table: Pairs, image: Float[Tensor, "N D"]) -> float:
    """The weight at which examples of a word make `SHARE` of what describes one of them, the pairs of `table`, among
    which they are not yet, the rest; from 1 to the k of the table. A single example is compared with itself."""
    unit = F.normalize(image.double(), dim=1)
    alike = (unit @ unit.T).clamp(min=0) ** (2 * table.p)
    if len(image) > 1:
        alike.fill_diagonal_(0)
    others = table.nearest_images(image)
    squares = others.similarity ** (2 * table.p)
    if table.weights is not None:
        squares = squares * table.weights.to(squares)[others.at]
    wanted = SHARE / (1 - SHARE) * float(squares.sum() / alike.sum().clamp(min=1e-300))
    return min(max(wanted, 1.0), float(max(table.k, 1)))
