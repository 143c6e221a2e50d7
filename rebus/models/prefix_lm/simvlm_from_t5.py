"""What SimVLM can begin with of a T5: encoder, decoder and embeddings of the same width, depth and number of heads.

Raffel et al., "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer", 2020. T5 has no
biases (here they begin at 0), divides no scores by √(head width) and scales what its head reads by width^-½; queries
and the last norm take these factors over. What stays T5's own are relative positions, norms without a mean, and ReLU.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from rebus.core.errors import BadCheckpoint
from rebus.weights.key_sides import Row
from rebus.weights.keymap import KeyMap
from rebus.weights.lazy_tensor import LazyTensor

_HEADS = "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"  # (buckets, heads)


def from_t5(arrays: Mapping[str, LazyTensor]) -> Mapping[str, LazyTensor] | None:
    """The weights of a T5 by the names of its file → by SimVLM's; None for a file of another network.

    Raises `BadCheckpoint` for the later T5s, whose MLPs are gated.
    """
    if _HEADS not in arrays:
        return None
    if any(".DenseReluDense.wi_" in name for name in arrays):
        raise BadCheckpoint("the MLPs of T5 v1.1, mT5 and UL2 are gated and SimVLM's are not: take the first T5")
    found = dict(KeyMap(_rows(), ignore=["*relative_attention_bias*", "*.embed_tokens.*", "lm_head.*"]).to_ours(arrays))
    width = found["tokens.weight"].shape[1]
    head_width = found["decoder.blocks.0.attn.q.weight"].shape[0] // arrays[_HEADS].shape[1]
    for name in list(found):
        if name.endswith(".q.weight"):
            found[name] = _changed(found[name], lambda q: q * head_width**0.5)
        if name != "tokens.weight":
            rows = found[name].shape[0]
            found[name.removesuffix("weight") + "bias"] = LazyTensor.of(torch.zeros(rows))
    found["decoder.norm.weight"] = _changed(found["decoder.norm.weight"], lambda gain: gain * width**-0.5)
    return found


def _rows() -> list[Row]:
    rows: list[Row] = [("shared.weight", "tokens.weight")]
    for stack, norms in (("encoder", ("norm1", "norm2")), ("decoder", ("norm1", "norm2", "norm3"))):
        layer, block = f"{stack}.block.{{i}}.layer.", f"{stack}.blocks.{{i}}."
        attentions = [("0.SelfAttention", "attn"), ("1.EncDecAttention", "cross")][: len(norms) - 1]
        for theirs, ours in attentions:
            rows += [(f"{layer}{theirs}.{n}.weight", f"{block}{ours}.{n}.weight") for n in "qkv"]
            rows.append((f"{layer}{theirs}.o.weight", f"{block}{ours}.out.weight"))
        rows += [(f"{layer}{i}.layer_norm.weight", f"{block}{norm}.weight") for i, norm in enumerate(norms)]
        mlp = f"{layer}{len(norms) - 1}.DenseReluDense."
        rows += [(f"{mlp}wi.weight", f"{block}mlp.up.weight"), (f"{mlp}wo.weight", f"{block}mlp.down.weight")]
        rows.append((f"{stack}.final_layer_norm.weight", f"{stack}.norm.weight"))
    return rows


def _changed(tensor: LazyTensor, change: Callable[[Tensor], Tensor]) -> LazyTensor:
    return LazyTensor(tensor.shape, tensor.dtype, lambda: change(tensor.load()))
