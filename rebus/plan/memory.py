"""What one GPU holds while it trains, by purpose; and how many examples fit at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rebus.objectives import SigmoidLoss
from rebus.plan.anatomy import Anatomy
from rebus.plan.cost import PartCost

Sharding = Literal["ddp", "fsdp", "fsdp+tp"]
RESERVE = 0.06  # of the memory: the driver's context, workspaces, gaps between tensors
_PAIR_SOFTMAX = 16  # bytes of a pair: its scores both ways, and the logarithms of their softmax, in float32
_PAIR_SIGMOID = 24  # cosine, score, sign, log-sigmoid and its buffer, for the chunk at hand


@dataclass(frozen=True, kw_only=True)
class Division:
    """`shards` groups of `within` GPUs each. A group sees the same examples and shares the decoder's matrices (tensor
    parallelism); with FSDP, weights and optimiser are dealt out over the groups."""

    sharding: Sharding
    shards: int
    within: int = 1


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on one GPU."""

    weights: int
    copies: int  # in bfloat16, and gathered from the other GPUs for a while
    gradients: int
    optimiser: int
    loss: int
    activations: int
    an_example: int  # of the activations

    @property
    def fixed(self) -> int:
        """What does not depend on the examples at a time."""
        return self.weights + self.copies + self.gradients + self.optimiser + self.loss

    @property
    def total(self) -> int:
        return self.fixed + self.activations


def memory(
    body: Anatomy, parts: Sequence[PartCost], division: Division, *, bf16: bool, batch: int, at_a_time: int
) -> Memory:
    """For a global `batch`, of which a group takes `at_a_time` examples through the network together."""
    params, trained = sum(p.params for p in parts), sum(p.trained for p in parts)
    dealt = sum(p.split for p in parts)
    here = 1 - dealt / max(1, params) * (1 - 1 / division.within)  # share of all numbers that a group's GPU has
    pieces = 1 if division.sharding == "ddp" else division.shards
    copies = int(2 * sum(p.copied for p in parts) * here) if bf16 else 0
    if pieces > 1:  # what is outside of blocks, with its gradient; the block at work, the next one, a gradient
        outside, block = sum(p.single for p in parts), max(p.largest for p in parts)
        copies += int(4 * (2 * outside + 3 * block * here))
    an_example = sum(p.kept for p in parts) + max(p.kept_once for p in parts) + body.transient
    an_example -= int(sum(p.split_kept for p in parts) * (1 - 1 / division.within))
    return Memory(
        weights=int(4 * params * here / pieces),
        copies=copies,
        gradients=int(4 * trained * here / pieces),
        optimiser=int(8 * trained * here / pieces),
        loss=loss_bytes(body, batch, division.shards),
        activations=an_example * at_a_time,
        an_example=an_example,
    )


def loss_bytes(body: Anatomy, batch: int, shards: int) -> int:
    """What a contrastive loss needs beside the network, of each GPU: softmax compares its rows with everybody's; the
    sigmoid goes round the ring, a chunk of images with the texts of one GPU at a time."""
    if body.contrast is None:
        return 0
    rows = -(-batch // shards)
    if body.contrast == "softmax":
        gathered = 4 * 4 * batch * body.embed  # both towers' vectors and their gradients
        return _PAIR_SOFTMAX * rows * batch + gathered
    return _PAIR_SIGMOID * min(rows, SigmoidLoss().chunk) * rows + 4 * 6 * rows * body.embed


def usable(gigabytes: float) -> int:
    """Bytes of a GPU's memory that a training may fill."""
    return int(gigabytes * 1e9 * (1 - RESERVE))


def most_at_a_time(held: Memory, available: int) -> int:
    """Examples that fit together beside what is fixed; 0 where not even one does."""
    return max(0, (available - held.fixed) // max(1, held.an_example))
