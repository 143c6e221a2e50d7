"""What the BatchNorm layers of a run take their statistics from: the whole batch, this rank's part, or the past.

"synchronised": all ranks together, so that several train as one does. "ghost": each rank, and each part of
`accumulate`, on its own (Hoffer et al., "Train longer, generalize better", 2017, Sec. 4), which is another run with
other numbers. "frozen": the running statistics, as in evaluation; gains and biases may still learn.
"""

from typing import Literal

import torch
from torch import Tensor
from torch import distributed as dist

from rebus.nn.batch_norm import SynchronisedBatchNorm, batch_norms
from rebus.objectives import Learner
from rebus.train.distributed import Ranks

Statistics = Literal["synchronised", "ghost", "frozen"]


class BatchNorms:
    """Sets up the BatchNorm layers of a learner, in place, and keeps their running statistics right.

    A layer whose gains are frozen keeps its statistics too: a frozen part of a network stays as it is.
    """

    def __init__(self, learner: Learner, statistics: Statistics, place: Ranks):
        self.learner, self.place = learner, place
        norms = batch_norms(learner.network)
        still = {n for n, norm in norms.items() if norm.weight is not None and not norm.weight.requires_grad}
        self.frozen = [norm for name, norm in norms.items() if statistics == "frozen" or name in still]
        self.live = [norm for norm in norms.values() if norm not in self.frozen]
        if statistics == "synchronised" and place.parts > 1:
            names = [name for name, norm in norms.items() if norm in self.live]
            self.live = [SynchronisedBatchNorm(norms[name], place.examples) for name in names]
            for name, norm in zip(names, self.live, strict=True):
                parent, _, own = name.rpartition(".")
                setattr(learner.network.get_submodule(parent), own, norm)
        learner.ghost = statistics == "ghost"
        self.averages = learner.ghost and place.parts > 1
        self._before: list[Tensor] = []

    def train(self) -> None:
        """The learner in training mode, but for layers that keep their statistics."""
        self.learner.train()
        for norm in self.frozen:
            norm.eval()

    def before_step(self) -> None:
        """Remember the running statistics, in case the step is left out."""
        self._before = [buffer.clone() for buffer in self._buffers()]

    def leave_out(self) -> None:
        """Put them back: a batch without a finite loss would otherwise stay in them for ever."""
        for buffer, value in zip(self._buffers(), self._before, strict=True):
            buffer.copy_(value)

    def after_step(self) -> None:
        """Where each rank has its own statistics, all continue with their mean, which is also saved."""
        if self.averages and self.live:
            floats = [buffer for buffer in self._buffers() if buffer.is_floating_point()]
            flat = torch.cat([buffer.flatten() for buffer in floats])
            dist.all_reduce(flat)
            means = (flat / self.place.ranks).split([buffer.numel() for buffer in floats])
            for buffer, mean in zip(floats, means, strict=True):
                buffer.copy_(mean.view_as(buffer))

    def _buffers(self) -> list[Tensor]:
        return [buffer for norm in self.live for buffer in norm.buffers()]
