"""What a layer costs: parameters, multiplications, and the bytes that training keeps of an example for the way back.

FLOPs count a multiplication and an addition each, in matrix products alone, as PyTorch's counter does; a causal
attention counts in full. Bytes are those of tensors that autograd saves, each storage once, under attention that never
writes its scores (flash and memory-efficient kernels). In bfloat16 ("autocast") weights, norms and the residual sum
stay float32, and each product keeps its own bfloat16 copy of a float32 input: q, k and v make three.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from rebus.models.contrastive.clip_resnet import CLIPResNetConfig

FLOAT = 4  # bytes


@dataclass(frozen=True, kw_only=True)
class Layer:
    """`count` layers alike, one after another; every number is of one of them, and of one example."""

    name: str  # of the module, as `freeze` knows it: "image.blocks"
    count: int = 1
    params: int = 0
    weights: int = 0  # numbers in matrices that are multiplied with; autocast copies them to bfloat16
    linear: int = 0  # FLOPs of products with weights, on the way forward
    attention: int = 0  # FLOPs of products of activations with each other
    kept: int = 0  # bytes saved for the way back where the layer is trained
    gains: int = 0  # of these, what only the gradients of norms need, which LoRA leaves as they are
    passing: int = 0  # bytes saved where it is frozen, and gradients pass through
    entry: int = 0  # bytes of its input, all that checkpointing keeps; 0: the layer is not checkpointed
    tokens: int = 0  # rows of its products
    split: int = 0  # of the parameters, those that tensor parallelism deals out
    split_kept: int = 0  # of the bytes kept, those that it deals out
    thin: int = 0  # inputs and outputs of its linear layers, summed: LoRA's parameters for each rank


def copies(bf16: bool, readers: int = 1) -> int:
    """Bytes kept of a float32 number that `readers` products read."""
    return 2 * readers if bf16 else FLOAT


def half(bf16: bool) -> int:
    """Bytes of a number that a product gave."""
    return 2 if bf16 else FLOAT


def table(name: str, params: int, ids: int = 0) -> Layer:
    """Numbers that are looked up or added; `ids` tokens are kept for the way back."""
    return Layer(name=name, params=params, kept=8 * ids)


def layer_norm(name: str, tokens: int, width: int) -> Layer:
    kept = tokens * (FLOAT * width + 8)  # its input, mean and deviation
    return Layer(name=name, params=2 * width, kept=kept, passing=kept, tokens=tokens)


def rms_norm(name: str, tokens: int, width: int) -> Layer:
    passing = tokens * (FLOAT * width + 4)  # its input and deviation
    return Layer(name=name, params=width, kept=passing + tokens * FLOAT * width, passing=passing, tokens=tokens)


def linear(name: str, tokens: int, inputs: int, outputs: int, *, bias: bool, bf16: bool) -> Layer:
    """A linear layer whose float32 input nobody else keeps."""
    return Layer(
        name=name,
        params=inputs * outputs + bias * outputs,
        weights=inputs * outputs,
        linear=2 * tokens * inputs * outputs,
        kept=tokens * inputs * copies(bf16),
        tokens=tokens,
        thin=inputs + outputs,
    )


def block(
    name: str, count: int, tokens: int, width: int, num_heads: int, mlp_width: int, act: str, *, bf16: bool
) -> Layer:
    """`rebus.nn.block.Block`: LayerNorm, attention, LayerNorm, MLP, with biases."""
    weights = 4 * width * width + 2 * width * mlp_width
    activated = 2 if act == "quick_gelu" else 1  # what the activation keeps: x and its sigmoid, or x alone
    passing = 2 * (FLOAT * width + 8) + half(bf16) * (4 * width + activated * mlp_width) + FLOAT * num_heads
    inputs = copies(bf16, 3) * width + copies(bf16) * width + half(bf16) * mlp_width  # of q k v, of up, of down
    return Layer(
        name=name,
        count=count,
        params=weights + 9 * width + mlp_width,
        weights=weights,
        linear=2 * tokens * weights,
        attention=4 * tokens * tokens * width,
        kept=tokens * (passing + inputs),
        passing=tokens * passing,
        entry=FLOAT * tokens * width,
        tokens=tokens,
        thin=8 * width + 2 * (width + mlp_width),
    )


def gemma_block(
    name: str,
    count: int,
    tokens: int,
    width: int,
    query_width: int,
    key_width: int,
    num_heads: int,
    mlp_width: int,
    *,
    second: bool,
    bf16: bool,
) -> Layer:
    """`GemmaBlock`: RMSNorms, grouped attention under a mask, a gated MLP, no biases. `second`: Gemma 2's two more
    norms, and scores bent on their way, where the kernel (flex attention) takes the mask as it is."""
    weights = 2 * width * query_width + 2 * width * key_width + 3 * width * mlp_width
    norms = 4 if second else 2
    masked = 0 if second else half(bf16) * tokens  # the mask as numbers, once a layer
    passing = norms * (FLOAT * width + 4) + half(bf16) * (2 * query_width + 2 * key_width + 3 * mlp_width)
    passing += FLOAT * num_heads + masked
    split = half(bf16) * (2 * query_width + 4 * mlp_width) + FLOAT * num_heads
    shares_keys = key_width < query_width and key_width * num_heads == query_width  # one head of keys is kept whole
    gains = norms * FLOAT * width  # what a norm multiplies by its gain
    inputs = gains + (copies(bf16, 3) + copies(bf16, 2)) * width + half(bf16) * mlp_width
    return Layer(
        name=name,
        count=count,
        params=weights + norms * width,
        weights=weights,
        linear=2 * tokens * weights,
        attention=4 * tokens * tokens * query_width,
        kept=tokens * (passing + inputs),
        gains=tokens * gains,
        passing=tokens * passing,
        entry=FLOAT * tokens * width,
        tokens=tokens,
        split=weights - shares_keys * 2 * width * key_width,
        split_kept=tokens * (split + (not shares_keys) * half(bf16) * 2 * key_width),
        thin=4 * width + 2 * query_width + 2 * key_width + 3 * (width + mlp_width),
    )


def probe_pool(name: str, tokens: int, width: int, mlp_width: int, *, bf16: bool) -> Layer:
    """`rebus.nn.pooling.ProbePool`: one learned query over all tokens, then an MLP on its answer."""
    weights = 4 * width * width + 2 * width * mlp_width
    passing = half(bf16) * (2 * tokens * width + 3 * width + mlp_width) + FLOAT * width
    inputs = copies(bf16, 2) * tokens * width + copies(bf16) * width + half(bf16) * mlp_width
    return Layer(
        name=name,
        params=weights + 8 * width + mlp_width,
        weights=weights,
        linear=2 * (2 * tokens * width * width + 2 * width * width + 2 * width * mlp_width),
        attention=4 * tokens * width,
        kept=passing + inputs,
        passing=passing,
        tokens=tokens,
        thin=8 * width + 2 * (width + mlp_width),
    )


def resnet(name: str, cfg: CLIPResNetConfig, *, bf16: bool) -> Iterator[Layer]:
    """CLIP's ResNet, its attention pool with the projection included."""
    w, side = cfg.width, cfg.image_size // 2
    yield _convs(f"{name}.stem", [_Conv(3, w // 2, 3, side)], bf16, extra=3 * (2 * side) ** 2)
    yield _convs(f"{name}.stem", [_Conv(w // 2, w // 2, 3, side), _Conv(w // 2, w, 3, side)], bf16)
    side, inputs = side // 2, w
    for stage, depth in enumerate(cfg.layers):
        width = w * 2**stage
        for first, number in ((True, 1), (False, depth - 1)):
            if not number:
                continue
            stride = 2 if stage and first else 1
            small = side // stride
            convs = [_Conv(inputs, width, 1, side), _Conv(width, width, 3, side), _Conv(width, 4 * width, 1, small)]
            pooled = width * small * small if stride == 2 else 0
            if stride == 2 or inputs != 4 * width:
                convs.append(_Conv(inputs, 4 * width, 1, small, activated=False))
                pooled += inputs * small * small if stride == 2 else 0
            yield _convs(f"{name}.stages.{stage}", convs, bf16, extra=pooled, count=number)
            side, inputs = small, 4 * width
    tokens = side * side + 1
    yield table(f"{name}.positions", tokens * inputs)
    weights = 3 * inputs * inputs + inputs * cfg.embed
    kept = (copies(bf16, 2) + 2 * half(bf16)) * tokens * inputs
    yield Layer(
        name=f"{name}.pool",
        params=weights + 3 * inputs + cfg.embed,
        weights=weights,
        linear=2 * (2 * tokens + 1) * inputs * inputs + 2 * inputs * cfg.embed,
        attention=4 * tokens * inputs,
        kept=kept,
        passing=2 * half(bf16) * tokens * inputs,
        tokens=tokens,
        thin=7 * inputs + cfg.embed,
    )


@dataclass(frozen=True)
class _Conv:
    """A convolution, its BatchNorm, and a ReLU where `activated`; `side` is that of its output."""

    inputs: int
    outputs: int
    kernel: int
    side: int
    activated: bool = True


def _convs(name: str, convs: list[_Conv], bf16: bool, extra: int = 0, count: int = 1) -> Layer:
    """Each BatchNorm keeps its input and each ReLU its output, which is the next one's input; `extra` numbers more."""
    sizes = [(c.inputs * c.outputs * c.kernel**2, c.outputs * c.side**2, c) for c in convs]
    weights = sum(weight for weight, _, _ in sizes)
    numbers = extra + sum(area * (1 + c.activated) for _, area, c in sizes)
    kept = half(bf16) * numbers
    return Layer(
        name=name,
        count=count,
        params=weights + 2 * sum(c.outputs for c in convs),
        weights=weights,
        linear=sum(2 * weight * c.side**2 for weight, _, c in sizes),
        kept=kept,
        passing=kept,
    )
