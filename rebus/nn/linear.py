"""The linear layer, on processors that are slow at bfloat16 too; and layers joined or scaled for inference."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from rebus.core.machine import is_amd, rows_for_float32
from rebus.nn.only_shapes import only_shapes


def linear(
    x: Float[Tensor, "*B D"], weight: Float[Tensor, "F D"], bias: Float[Tensor, "F"] | None = None
) -> Float[Tensor, "*B F"]:
    """x weightᵀ + bias. On a CPU, where bfloat16 is slow, many rows of it go through the float32 units; float32 without
    gradients on AMD's goes through oneDNN instead of MKL, which takes up to three times as long for few rows.

    The arithmetic is the same: sums are in float32, what goes out is of the type that came in.
    """
    if x.device.type != "cpu" or only_shapes(x):
        return F.linear(x, weight, bias)
    if x.dtype == torch.bfloat16 and x.numel() >= _least_rows() * weight.shape[1]:
        return F.linear(x.float(), weight.float(), None if bias is None else bias.float()).to(x.dtype)
    if _by_onednn(x, weight):
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return F.linear(x, weight, bias)


def _least_rows() -> float | int:
    return rows_for_float32()


# What `torch.compiler.assume_constant_result` sets, whose import takes a second: compiled code asks the processor once.
setattr(_least_rows, "_dynamo_marked_constant", True)  # noqa: B010


def _by_onednn(x: Tensor, weight: Tensor) -> bool:
    """Whether this product is one for oneDNN: its operator has no gradient and knows nothing of autocast, and compiled
    code has its own choice. Where gradients are recorded all products are of one library, of frozen layers too."""
    return (
        x.dtype == weight.dtype == torch.float32
        and not (torch.compiler.is_compiling() or torch.jit.is_tracing())  # type: ignore[attr-defined]
        and is_amd()
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and x.numel() > 0
        and bool(torch.backends.mkldnn.enabled)
        and _HAS_ONEDNN
    )


_HAS_ONEDNN = hasattr(torch.ops.mkldnn, "_linear_pointwise")  # of PyTorch itself, for its compiler


class Linear(nn.Linear):
    """`nn.Linear` through `linear`."""

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B F"]:
        return linear(x, self.weight, self.bias)


def join_products(network: nn.Module) -> None:
    """For inference: linear layers that read the same input become one product, in place.

    Which these are, a module says by a method of this name. The state dict stays as it was.
    """
    for module in list(network.modules()):
        join = getattr(module, "join_products", None)
        if callable(join):
            join()


def join_layers(module: nn.Module, joined: str, parts: tuple[str, ...]) -> None:
    """Put one layer, `joined`, in the place of several of `module`, unless it is there already.

    All parts read the same input; all or none have a bias. Weights are not held twice, and in the state dict each
    part is under its own name, as rows of the joined layer.
    """
    if getattr(module, joined) is not None:
        return
    layers: list[nn.Linear] = [getattr(module, part) for part in parts]
    rows = [layer.out_features for layer in layers]
    setattr(module, joined, join(*layers))
    for part in parts:
        delattr(module, part)

    def name_parts(_: nn.Module, state: dict[str, Tensor], prefix: str, __: object) -> None:
        for kind in ("weight", "bias"):
            whole = state.pop(f"{prefix}{joined}.{kind}", None)
            if whole is not None:
                state |= {f"{prefix}{part}.{kind}": own for part, own in zip(parts, whole.split(rows), strict=True)}

    module.register_state_dict_post_hook(name_parts)


def join(*layers: nn.Linear) -> Linear:
    """One layer whose outputs are those of several, side by side. All read the same input; all or none have a bias."""
    first = layers[0]
    joined = Linear(first.in_features, sum(layer.out_features for layer in layers), device="meta")
    joined.weight = nn.Parameter(torch.cat([layer.weight.detach() for layer in layers]), requires_grad=False)
    biases = [layer.bias.detach() for layer in layers if layer.bias is not None]
    bias = nn.Parameter(torch.cat(biases), requires_grad=False) if biases else None
    joined.register_parameter("bias", bias)
    return joined


def scaled(layer: nn.Linear, factor: float, *, bias: bool) -> Linear:
    """The layer with its weight, and on demand its bias, multiplied."""
    result = Linear(layer.in_features, layer.out_features, device="meta")
    result.weight = nn.Parameter(layer.weight.detach() * factor, requires_grad=False)
    given = None if layer.bias is None else layer.bias.detach() * (factor if bias else 1.0)
    result.bias = None if given is None else nn.Parameter(given, requires_grad=False)
    return result


def xavier(network: nn.Module) -> None:
    """Glorot's uniform initial values for every linear layer of the network, zeros for their biases."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
