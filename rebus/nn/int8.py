"""Matrix products in 8-bit integers: a quarter of the memory traffic, and products at integer speed.

Weights: one scale an output channel. Activations: one scale a row, found as the row comes by, so that what a row gives
never depends on the rest of the batch and nothing has to be calibrated. Dettmers et al., "LLM.int8()", 2022, Sec. 3.

    y[r, o] = scale[r] · scale[o] · Σ q(x)[r, i] · q(w)[o, i] + bias[o]        the sum is exact, in integers
"""

import warnings
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Integer
from torch import Tensor
from torch.nn import functional as F

from rebus.core.machine import has_integer_dot_products

_PIECE = 256  # rows quantised at a time: what is between float and integer stays in the processor's cache
_FEW = 8  # rows up to which one slow pass is quicker than two fast ones
_ZERO = 128  # oneDNN multiplies unsigned activations by signed weights


@runtime_checkable
class Product(Protocol):
    """Rows times a quantised matrix."""

    scales: Tensor  # of the matrix; they lie where it lies

    def __call__(self, rows: Float[Tensor, "R D"]) -> tuple[Float[Tensor, "R F"], Float[Tensor, "R 1"] | None]:
        """The products but for the rows' scales, and these, or none where the products have them already."""


def int8_product(weight: Float[Tensor, "F D"], many: bool = False) -> Product:
    """What multiplies rows by `weight`, rounded to 8 bits. `many`: it will be hundreds of rows at a time."""
    return _product(*quantize_rows(weight), many=many)


def quantize_rows(x: Float[Tensor, "R D"], zero: int = 0) -> tuple[Integer[Tensor, "R D"], Float[Tensor, "R 1"]]:
    """Each row as whole numbers from −127 to 127 and the scale that gives it back; `zero` is added to the numbers.

    int8 when `zero` is 0, uint8 otherwise.
    """
    if len(x) > _PIECE:
        pieces = [quantize_rows(piece, zero) for piece in x.split(_PIECE)]
        return torch.cat([codes for codes, _ in pieces]), torch.cat([scales for _, scales in pieces])
    x = x.float()
    scales = row_peaks(x).div_(127).clamp_(min=1e-30)
    if zero:
        return (x / scales).add_(zero + 0.5).to(torch.uint8), scales  # cutting off after adding a half rounds
    return (x / scales).round_().to(torch.int8), scales


def row_peaks(x: Float[Tensor, "R D"]) -> Float[Tensor, "R 1"]:
    """The largest absolute value of each row."""
    if len(x) <= _FEW and x.shape[1] > 0:
        return torch.linalg.vector_norm(x, float("inf"), dim=1, keepdim=True)
    return x.abs().amax(1, keepdim=True)


def _product(codes: Integer[Tensor, "F D"], scales: Float[Tensor, "F 1"], *, many: bool) -> Product:
    """The fastest exact way to multiply on the device and processor at hand.

    With VNNI, FBGEMM multiplied one row up to 1.7 times as fast as oneDNN, and 1,600 rows 0.9 times.
    """
    engines = torch.backends.quantized.supported_engines
    if codes.device.type == "cpu":
        vnni = has_integer_dot_products() and "onednn" in engines and torch.backends.mkldnn.is_available()
        fbgemm = "fbgemm" in engines and hasattr(torch, "_make_per_channel_quantized_tensor")
        if vnni and (many or not fbgemm or not has_integer_dot_products(wide=True)):
            return _OneDNN(codes, scales)
        if fbgemm:
            return _FBGEMM(codes, scales)
    return _Plain(codes, scales)


class _OneDNN:
    """On processors that add four products at once (VNNI, AMX): oneDNN, over weights laid out for it.

    Without these instructions it adds pairs in 16 bits, which overflow.
    """

    def __init__(self, codes: Tensor, scales: Tensor):
        self.weight = torch.ops.onednn.qlinear_prepack(codes, None)
        self.scales = scales[:, 0].contiguous()
        self.zeros = torch.zeros(len(codes), dtype=torch.int32)

    def __call__(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        codes, scales = quantize_rows(rows, _ZERO)
        y = torch.ops.onednn.qlinear_pointwise.default(
            codes, 1.0, _ZERO, self.weight, self.scales, self.zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )  # fmt: skip
        return y, scales


class _FBGEMM:
    """On other x86 processors and for few rows: FBGEMM. Without VNNI of AVX-512 it adds pairs of products in 16 bits,
    into which they fit with activations of 7 bits."""

    def __init__(self, codes: Tensor, scales: Tensor):
        self.scales = scales
        self.top = 127 if has_integer_dot_products(wide=True) else 63  # the largest code of an activation
        zeros = torch.zeros(len(codes), dtype=torch.int64)
        chosen = torch.backends.quantized.engine
        torch.backends.quantized.engine = "fbgemm"
        try:
            with warnings.catch_warnings(action="ignore"):  # the type of `weight` is to go one day; `_product` looks
                weight = torch._make_per_channel_quantized_tensor(codes, scales[:, 0].double(), zeros, 0)
                self.weight = torch.ops.quantized.linear_prepack(weight, None)
        finally:
            torch.backends.quantized.engine = chosen

    def __call__(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        product = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32.default
        rows = rows.float()
        if len(rows) == 1 and not torch.compiler.is_compiling():  # writing: three passes fewer over each row
            peak = float(rows.abs().max())
            return product(rows, max(peak, self.top * 1e-30) / self.top, self.top + 1, self.weight), None
        scales = row_peaks(rows).div_(self.top).clamp_(min=1e-30)
        return product(rows * scales.reciprocal(), 1.0, self.top + 1, self.weight), scales


class _Plain:
    """Elsewhere: PyTorch's integer product. CUDA wants more than 16 rows and sides that are multiples of 8."""

    def __init__(self, codes: Tensor, scales: Tensor):
        self.num_outputs = len(codes)
        self.weight = F.pad(codes, (0, -codes.shape[1] % 8, 0, -len(codes) % 8))
        self.scales = scales[:, 0].contiguous()

    def __call__(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        codes, scales = quantize_rows(rows)
        padded = F.pad(codes, (0, self.weight.shape[1] - codes.shape[1], 0, max(0, 17 - len(codes))))
        return torch._int_mm(padded, self.weight.T)[: len(codes), : self.num_outputs] * self.scales, scales
