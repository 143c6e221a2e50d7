"""Tensors of which each rank holds a share (PyTorch's DTensor), whole and back."""

from typing import Any

from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate


def whole(tensor: Tensor) -> Tensor:
    """All of it, on every rank."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def share_of(tensor: Tensor, like: Tensor) -> Tensor:
    """Of a tensor that every rank has, the share that it holds of `like`."""
    if not isinstance(like, DTensor):
        return tensor
    mesh = like.device_mesh
    everywhere = DTensor.from_local(tensor, mesh, [Replicate()] * mesh.ndim)
    return everywhere.redistribute(mesh, like.placements)


def layout_of(tensor: Tensor) -> Any:
    """The ranks that a tensor is laid out over; None for one that is not. Operations want one layout at a time."""
    return tensor.device_mesh if isinstance(tensor, DTensor) else None
