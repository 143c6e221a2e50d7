"""Activation checkpointing: keep only a block's inputs, and recompute its activations in the backward pass.

Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016.
"""

from collections.abc import Callable
from typing import Any


def recomputed(forward: Callable[..., Any], **how: Any) -> Callable[..., Any]:
    """The same function, of which autograd keeps the tensors among the positional arguments, and nothing else.

    `context_fn` gives what the first and the second time happen in; without it, the whole can be compiled.
    """
    from torch.utils.checkpoint import checkpoint

    def run(*args: Any, **kwargs: Any) -> Any:
        return checkpoint(forward, *args, use_reentrant=False, **how, **kwargs)

    return run
