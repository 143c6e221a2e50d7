"""Arrays and tensors as images: what they may hold, and what is said about what they may not."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rebus.core.errors import BadImage

_CHANNELS = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


def image_from_array(array: np.ndarray, name: str = "array") -> Image.Image:
    """(H, W) or (H, W, C) as a PIL image. C: 1 grey, 2 with alpha, 3 RGB, 4 with alpha.

    uint8 as it is; bool as black and white; uint16 divided by 257 and floats in [0, 1] multiplied by 255,
    both rounded. Raises `BadImage` for other shapes, types and ranges.
    """
    if array.ndim == 3 and array.shape[-1] not in _CHANNELS and array.shape[0] in _CHANNELS:
        raise BadImage(f"{name}: arrays are (H, W, C). Transpose it with .transpose(1, 2, 0)")
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[-1] not in _CHANNELS):
        raise BadImage(f"{name}: an array must have the shape (H, W), or (H, W, C) with 1 to 4 channels")
    if 0 in array.shape:
        raise BadImage(f"{name}: the image is empty")
    pixels = _to_bytes(array, name)
    mode = "L" if pixels.ndim == 2 else _CHANNELS[pixels.shape[-1]]
    size = (pixels.shape[1], pixels.shape[0])
    return Image.frombytes(mode, size, np.ascontiguousarray(pixels).tobytes())


def _to_bytes(array: np.ndarray, name: str) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind == "f":
        if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
            raise BadImage(f"{name}: floats must have values in [0, 1]; got {_range(array)}. Scale them, or give uint8")
        return np.rint(array * 255).astype(np.uint8)
    if array.dtype.kind == "u" and array.dtype.itemsize == 2:
        return ((array.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    raise BadImage(f"{name}: an array must be uint8; got {array.dtype}. Convert it with .astype(np.uint8)")


def image_from_tensor(tensor: Tensor, name: str = "tensor") -> Image.Image:
    """(3, H, W) or (1, H, W), floats in [0, 1] or uint8, as a PIL image. Raises `BadImage` for anything else."""
    if tensor.ndim != 3 or tensor.shape[0] not in (1, 3):
        raise BadImage(f"{name}: a tensor must have the shape (3, H, W)")
    if tensor.dtype == torch.uint8:
        pixels = tensor
    elif not tensor.is_floating_point():
        raise BadImage(f"{name}: a tensor must have floats in [0, 1]; got {tensor.dtype}")
    else:
        tensor = tensor.detach().float()
        if tensor.numel() and not bool(((tensor >= 0) & (tensor <= 1)).all()):
            raise BadImage(
                f"{name}: a tensor must have values in [0, 1]; got {tensor.min():.3g} to {tensor.max():.3g}. "
                "Give images before normalisation"
            )
        pixels = (tensor * 255).round().to(torch.uint8)
    array = pixels.detach().cpu().permute(1, 2, 0).numpy()
    return image_from_array(array[..., 0] if array.shape[-1] == 1 else array, name)


def _range(array: np.ndarray) -> str:
    return f"{array.min():.6g} to {array.max():.6g}"
