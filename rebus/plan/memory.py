"""What one GPU holds while it trains, by purpose."""

from dataclasses import dataclass
from typing import Literal

from rebus.plan.step import Contrast, Trace

Sharding = Literal["ddp", "fsdp", "fsdp+tp"]
RESERVE = 0.06  # of the memory: the driver's context, workspaces, gaps between tensors
_PAIR_SOFTMAX = 16  # bytes of a pair: its scores both ways, and the logarithms of their softmax, in float32
_PAIR_SIGMOID = 24  # cosine, score, sign, log-sigmoid and its buffer, for the chunk at hand


@dataclass(frozen=True, kw_only=True)
class Division:
    """`shards` groups of `within` GPUs each. A group sees the same examples and shares the decoder's matrices (tensor
    parallelism); with FSDP, weights and optimizer state are sharded over the groups."""

    sharding: Sharding
    shards: int
    within: int = 1


@dataclass(frozen=True, kw_only=True)
class MemoryUse:
    """Bytes on one GPU."""

    weights: int
    copies: int  # in bfloat16, and gathered from the other GPUs for a while
    gradients: int
    optimiser: int
    loss: int
    activations: int
    an_example: int  # of the activations: what one example more takes

    @property
    def fixed(self) -> int:
        """What does not depend on the examples at a time."""
        return self.weights + self.copies + self.gradients + self.optimiser + self.loss

    @property
    def total(self) -> int:
        return self.fixed + self.activations


def memory(trace: Trace, division: Division, *, batch: int, at_a_time: int) -> MemoryUse:
    """For a global `batch`, of which a group takes `at_a_time` examples through the network together.

    `trace` is that of one GPU of a group. Gradients are taken to be there all the time, as they are between the parts
    of a batch, and as the buckets that ranks exchange.
    """
    pieces = 1 if division.sharding == "ddp" else division.shards
    copies = trace.copies  # autocast's, of one process; several gather what they need in the precision of the products
    if division.shards > 1:  # what is outside of blocks, with its gradient; the block at work, the next one, a gradient
        copies = (2 * trace.outside + 3 * trace.block) // (2 if trace.copies else 1)
    activations = trace.activations(at_a_time)
    return MemoryUse(
        weights=trace.held // pieces,
        copies=copies,
        gradients=4 * trace.trained // pieces,
        optimiser=8 * trace.trained // pieces,
        loss=loss_bytes(trace.contrast, batch, division.shards),
        activations=activations - trace.copies,
        an_example=activations - trace.activations(at_a_time - 1),
    )


def loss_bytes(contrast: Contrast | None, batch: int, shards: int) -> int:
    """What a contrastive loss needs beside the network, of each GPU: softmax compares its rows with everybody's; the
    sigmoid goes round the ring, a chunk of images with the texts of one GPU at a time."""
    if contrast is None:
        return 0
    rows = -(-batch // shards)
    if contrast.kind == "softmax":
        gathered = 4 * 4 * batch * contrast.width  # both encoders' vectors and their gradients
        return _PAIR_SOFTMAX * rows * batch + gathered
    return _PAIR_SIGMOID * min(rows, contrast.chunk) * rows + 4 * 6 * rows * contrast.width


def usable(gigabytes: float) -> int:
    """Bytes of a GPU's memory that a training run may use."""
    return int(gigabytes * 1e9 * (1 - RESERVE))


def most_at_a_time(trace: Trace, held: MemoryUse, available: int) -> int:
    """Examples that fit together beside what is fixed; 0 where not even one does."""
    return trace.most_examples(available - held.fixed + trace.copies)
