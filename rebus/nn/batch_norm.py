"""BatchNorm over ranks, over micro-batches, and with recomputed blocks.

Ioffe & Szegedy, "Batch Normalization", 2015. In training each channel is normalised by the statistics of the batch,
so what an example becomes depends on the others that go through the network with it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch import distributed as dist
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm


def batch_norms(network: nn.Module) -> dict[str, BatchNorm]:
    """The BatchNorm layers of a network, by name."""
    return {name: module for name, module in network.named_modules() if isinstance(module, BatchNorm)}


def live_batch_norms(network: nn.Module) -> dict[str, BatchNorm]:
    """Those that take the statistics of the batch, as things stand, and not their running ones."""
    return {name: norm for name, norm in batch_norms(network).items() if norm.training}


@contextmanager
def statistics_held(network: nn.Module) -> Iterator[None]:
    """Inside, running statistics stay as they are: for what goes through the network a second time. What is seen
    goes into copies, since a layer that updates nothing also saves fewer tensors for the backward pass."""
    held = [(norm, dict(norm.named_buffers())) for norm in live_batch_norms(network).values()]
    for norm, buffers in held:
        for name, buffer in buffers.items():
            setattr(norm, name, buffer.clone())
    try:
        yield
    finally:
        for norm, buffers in held:
            for name, buffer in buffers.items():
                setattr(norm, name, buffer)


class SynchronisedBatchNorm(BatchNorm):
    """Takes the place of a BatchNorm: the same layer over the rows of all ranks, with exact gradients.

    `nn.SyncBatchNorm` does this on GPUs alone.
    """

    def __init__(self, norm: BatchNorm, group: Any = None):
        super().__init__(norm.num_features, norm.eps, norm.momentum, norm.affine, device="meta")
        self.weight, self.bias = norm.weight, norm.bias
        for name, buffer in norm.named_buffers():
            self.register_buffer(name, buffer)
        self.group = group
        self.train(norm.training)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, x: Float[Tensor, "B C *S"]) -> Float[Tensor, "B C *S"]:
        running_mean, running_var = self.running_mean, self.running_var
        assert running_mean is not None
        assert running_var is not None
        if not self.training:
            y = F.batch_norm(x, running_mean, running_var, self.weight, self.bias, False, 0.0, self.eps)
        else:
            y, mean, var, number = _Normalise.apply(x, self.weight, self.bias, self.eps, self.group)
            if self.track_running_stats and self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
                share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
                running_mean.lerp_(mean.to(running_mean.dtype), share)
                running_var.lerp_((var * number / (number - 1).clamp(min=1)).to(running_var.dtype), share)
        return y


class _Normalise(torch.autograd.Function):
    """(x − mean) / √(var + ε) · w + b over the rows of all ranks; and mean, variance and the number of values.

    As with gathered embeddings, each rank's gradient is the sum of what every rank's loss asks for.
    """

    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, group: Any
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        exact = torch.promote_types(x.dtype, torch.float32)
        over = [0, *range(2, x.ndim)]
        own_var, own_mean = torch.var_mean(x.to(exact), over, correction=0)
        own_number = own_mean.new_tensor([x.numel() / x.shape[1]])
        own = torch.cat([own_mean, own_var, own_number])
        all_ranks = [torch.empty_like(own) for _ in range(dist.get_world_size(group))]
        dist.all_gather(all_ranks, own, group=group)
        means, variances, numbers = torch.stack(all_ranks).split([x.shape[1], x.shape[1], 1], dim=1)
        number = numbers.sum()
        mean = (means * numbers).sum(0) / number
        var = ((variances + (means - mean).square()) * numbers).sum(0) / number
        ctx.save_for_backward(x, weight, mean, (var + eps).rsqrt(), number)
        ctx.group = group
        ctx.mark_non_differentiable(mean, var, number)
        ctx.set_materialize_grads(False)
        return F.batch_norm(x, mean, var, weight, bias, False, 0.0, eps), mean, var, number

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[no-untyped-def]
        x, weight, mean, scale, number = ctx.saved_tensors
        over, shape = [0, *range(2, x.ndim)], [1, -1, *[1] * (x.ndim - 2)]
        unit = (x.to(mean.dtype) - mean.view(shape)) * scale.view(shape)
        grad = grad.to(mean.dtype)
        d_bias, d_weight = grad.sum(over), (grad * unit).sum(over)
        sums = torch.stack([d_bias, d_weight])
        dist.all_reduce(sums, group=ctx.group)
        by_bias, by_weight = (part.view(shape) / number for part in sums)
        times = scale if weight is None else scale * weight
        d_x = (times.view(shape) * (grad - by_bias - unit * by_weight)).to(x.dtype)
        if weight is None:
            return d_x, None, None, None, None
        return d_x, d_weight.to(weight.dtype), d_bias.to(weight.dtype), None, None
