"""Linear layers in 8-bit integers: a quarter of the memory traffic, and products at integer speed.

Weights: one scale an output channel. Activations: one scale a row, found as the row comes by, so that what a row gives
never depends on the rest of the batch and nothing has to be calibrated. Dettmers et al., "LLM.int8()", 2022, Sec. 3.

    y[r, o] = scale[r] · scale[o] · Σ q(x)[r, i] · q(w)[o, i] + bias[o]        the sum is exact, in integers
"""

import warnings
from collections.abc import Callable, Collection

import torch
from jaxtyping import Float, Int, Integer
from torch import Tensor, nn
from torch.nn import functional as F

from rebus.core.errors import UsageError
from rebus.core.machine import has_integer_dot_products
from rebus.nn.embedding import TokenEmbedding
from rebus.nn.patches import PatchProjection, cut

_PIECE = 256  # rows quantised at a time: what is between float and integer stays in the processor's cache
_FEW = 8  # rows up to which one slow pass is quicker than two fast ones
_ZERO = 128  # oneDNN multiplies unsigned activations by signed weights


class Int8Linear(nn.Module):
    """`nn.Linear` from its 8-bit weights. Frozen: it holds no parameters, and stays where it was made."""

    def __init__(self, weight: Float[Tensor, "F D"], bias: Float[Tensor, "F"] | None = None):
        super().__init__()
        self.out_features, self.in_features = weight.shape
        codes, scales = quantize_rows(weight.detach())
        self.product = _product(codes, scales)
        self.bias = None if bias is None else bias.detach().float()

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B F"]:
        y, scales = self.product(x.reshape(-1, self.in_features))
        if scales is None:
            y = y if self.bias is None else y + self.bias
        else:
            y = y * scales if self.bias is None else torch.addcmul(self.bias, y, scales)
        return y.to(x.dtype).view(*x.shape[:-1], self.out_features)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Int8Linear":
        """What `to` calls: a change of type leaves the integers alone, a change of device cannot be followed."""
        here = self.product.scales.device  # type: ignore[attr-defined]
        if (there := fn(torch.empty(0, device=here)).device) != here:
            raise UsageError(f"8-bit layers stay on {here}, where they were made; load with device={str(there)!r}")
        return self

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class Int8PatchProjection(nn.Module):
    """`PatchProjection` in 8 bits."""

    def __init__(self, patch: PatchProjection):
        super().__init__()
        self.size = patch.kernel_size[0]
        self.linear = Int8Linear(patch.weight.flatten(1), patch.bias)

    def forward(self, pixels: Float[Tensor, "B C Y X"]) -> Float[Tensor, "B P D"]:
        return self.linear(cut(pixels, self.size))


class Int8TokenEmbedding(nn.Module):
    """`TokenEmbedding` in 8 bits, one scale a word, which serves both directions."""

    def __init__(self, table: TokenEmbedding):
        super().__init__()
        self.dtype = table.weight.dtype
        self.codes, self.scales = quantize_rows(table.weight.detach())
        self.head = Int8Linear(table.weight)

    def forward(self, tokens: Int[Tensor, "*B"]) -> Float[Tensor, "*B D"]:
        return (self.codes[tokens] * self.scales[tokens]).to(self.dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Int8TokenEmbedding":
        self.head._apply(fn)
        self.dtype = fn(torch.empty(0, dtype=self.dtype, device=self.codes.device)).dtype
        return self

    def scores(self, hidden: Float[Tensor, "*B D"]) -> Float[Tensor, "*B V"]:
        return self.head(hidden)


def quantize_linears(network: nn.Module, skip: Collection[str] = ()) -> nn.Module:
    """Replace linear layers, patch projections and tied embeddings, in place; not those named in `skip`.

    Layers that read the same input are joined first (`join_products`), so that it is quantised once. The
    network can then neither be trained nor saved. Raises `UsageError` on a device without 8-bit products.
    """
    devices = {p.device.type for p in network.parameters()}
    if devices - {"cpu", "cuda"}:
        raise UsageError(f'quantize="int8" works on cpu and cuda; these weights are on {", ".join(sorted(devices))}')
    with torch.no_grad():
        _quantize(network, "", frozenset(skip))
    return network.eval().requires_grad_(False)


def is_quantized(network: nn.Module) -> bool:
    """Whether `quantize_linears` has been here."""
    return any(isinstance(module, Int8Linear | Int8TokenEmbedding) for module in network.modules())


def _quantize(module: nn.Module, path: str, skip: frozenset[str]) -> None:
    for name in ("join_products", "fuse"):
        prepare = getattr(module, name, None)
        if callable(prepare):
            prepare()
    for name, child in list(module.named_children()):
        place = f"{path}{name}"
        if place in skip:
            continue
        if isinstance(child, nn.Linear):
            setattr(module, name, Int8Linear(child.weight, child.bias))
        elif isinstance(child, PatchProjection):
            setattr(module, name, Int8PatchProjection(child))
        elif isinstance(child, TokenEmbedding):
            setattr(module, name, Int8TokenEmbedding(child))
        else:
            _quantize(child, place + ".", skip)


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


# rows → products but for the rows' scales, and these scales, or none where the products have them already
Product = Callable[[Tensor], tuple[Tensor, Tensor | None]]


def _product(codes: Integer[Tensor, "F D"], scales: Float[Tensor, "F 1"]) -> Product:
    """The fastest exact way to multiply on the device and processor at hand."""
    engines = torch.backends.quantized.supported_engines
    if codes.device.type == "cpu" and "onednn" in engines and torch.backends.mkldnn.is_available():
        if has_integer_dot_products():
            return _OneDNN(codes, scales)
        if "fbgemm" in engines and hasattr(torch, "_make_per_channel_quantized_tensor"):
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
    """On other x86 processors: FBGEMM, with activations of 7 bits, so that a pair of products fits into 16."""

    def __init__(self, codes: Tensor, scales: Tensor):
        self.scales = scales
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
            return product(rows, max(peak, 63e-30) / 63, 64, self.weight), None
        scales = row_peaks(rows).div_(63).clamp_(min=1e-30)
        return product(rows * scales.reciprocal(), 1.0, 64, self.weight), scales


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
