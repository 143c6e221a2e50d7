"""What counts as a block, and which of its parameters ranks can split."""

from typing import Any

import pytest
import torch
from torch import nn

from rebus.backbones.text.bert import BERT
from rebus.backbones.text.bert import PRESETS as BERTS
from rebus.backbones.text.gemma import Gemma, GemmaConfig
from rebus.backbones.vision.efficientnet import EfficientNet, EfficientNetConfig
from rebus.backbones.vision.resnet import ResNet, ResNetConfig
from rebus.core.errors import UsageError
from rebus.models.contrastive.clip import CLIP, CLIPConfig
from rebus.models.contrastive.clip_resnet import CLIPResNetConfig
from rebus.nn.attention import Attention
from rebus.nn.blocks import blocks_of, keep_heads, split_of

GEMMA = GemmaConfig(width=8, num_layers=1, num_heads=4, num_kv_heads=1, head_width=2, mlp_width=8, vocab_size=5)


def split_parameters(network: nn.Module) -> set[str]:
    """The names of the parameters of which each rank holds a share under tensor parallelism."""
    names = {id(module): name for name, module in network.named_modules()}
    found = set()
    for block in blocks_of(network):
        columns, rows, _ = split_of(block)
        for layer in (*columns, *rows):
            kinds = ("weight", "bias") if layer in columns else ("weight",)  # a row's bias is added once, by all
            own = dict(block.get_submodule(layer).named_parameters(recurse=False))
            found |= {f"{names[id(block)]}.{layer}.{kind}" for kind in kinds if kind in own}
    return found


@pytest.mark.parametrize(
    ("make", "number"),
    [
        (lambda: CLIP(CLIPConfig()), 24),
        (lambda: CLIP(CLIPConfig(image=CLIPResNetConfig(layers=(1, 2, 1, 1)))), 17),
        (lambda: ResNet(ResNetConfig(variant="resnet50")), 16),
        (lambda: EfficientNet(EfficientNetConfig(variant="b0")), 16),
    ],
)
def test_blocks_hold_nearly_all_parameters_once(make: Any, number: int) -> None:
    with torch.device("meta"):
        network = make()
    blocks = blocks_of(network)
    assert len(blocks) == number
    inside = [id(p) for block in blocks for p in block.parameters()]
    assert len(inside) == len(set(inside))
    assert {id(p) for p in network.parameters()} > set(inside)


def test_a_lone_head_of_keys_stays_whole() -> None:
    network = Gemma(GEMMA)
    names = {f"blocks.0.{name}.weight" for name in ("attn.q", "attn.out", "mlp.gate", "mlp.up", "mlp.down")}
    assert split_parameters(network) == names
    assert split_of(network.blocks[0]).shared == ("attn.k", "attn.v")
    keep_heads(network.blocks[0], 2)
    assert (network.blocks[0].attn.num_heads, network.blocks[0].attn.num_kv_heads) == (2, 1)


def test_biases_of_columns_are_split_and_those_of_rows_are_not() -> None:
    names = split_parameters(BERT(BERTS["tiny"]))
    assert "blocks.1.attn.k.bias" in names
    assert "blocks.1.mlp.down.weight" in names
    assert "blocks.1.mlp.down.bias" not in names
    with torch.device("meta"):
        assert split_parameters(ResNet(ResNetConfig(variant="resnet18"))) == set()


def test_heads_that_do_not_divide_are_refused() -> None:
    with pytest.raises(UsageError, match=r"3 heads \(3 for keys\) do not divide among 2 ranks"):
        keep_heads(BERT(BERTS["tiny"]).blocks[0], 2)
    with pytest.raises(UsageError, match="norms of queries and keys"):
        Attention(8, 2, qk_norm=nn.LayerNorm).keep_heads(2)
