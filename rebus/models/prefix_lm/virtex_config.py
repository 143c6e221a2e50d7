"""VirTex's configuration, and how the released files tell theirs."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from rebus.backbones.vision import resnet
from rebus.backbones.vision.resnet import ResNetConfig
from rebus.core.config import from_dict, to_dict
from rebus.core.errors import BadConfig
from rebus.core.released_config import HARMLESS

Head = Literal["captions", "masked words", "labels"]


def _resnet50() -> ResNetConfig:
    return ResNetConfig(num_classes=0)


@dataclass(frozen=True, kw_only=True)
class CaptionerConfig:
    """A stack of decoder blocks over word embeddings."""

    width: int = 1024
    num_layers: int = 1
    num_heads: int = 16
    mlp_width: int = 4096
    vocab_size: int = 10_000
    context: int = 30  # tokens of a caption, the start token included
    pre_norm: bool = False  # layer norm before attention and MLP and at the end, as in the reference's variant


@dataclass(frozen=True, kw_only=True)
class VirTexConfig:
    """`head`: what the image encoder learns from: captions (`both_ways`: also from right to left), their masked words,
    or the set of labels that go with an image, of which `text.vocab_size` is the number.

    `forgets_start`: captions are written as the reference's beam search writes them: what was written is read without
    the start token, from position 0, although training had it there (utils/beam_search.py of the released code).
    """

    image: ResNetConfig = field(default_factory=_resnet50)
    text: CaptionerConfig = field(default_factory=CaptionerConfig)
    head: Head = "captions"
    both_ways: bool = True
    image_size: int = 224
    pad_id: int = 0  # also what the released tokenizers give to unknown words: such a word is neither read nor learned
    start_id: int = 1
    end_id: int = 2
    mask_id: int = 3
    forgets_start: bool = False


def infer_config(shapes: Mapping[str, tuple[int, ...]]) -> VirTexConfig:
    """The configuration of a released `.pth`, from the shapes of its tensors; heads are 64 wide in all of them.

    A model of masked words has the same tensors as one of captions from left to right, and is read as that.
    Raises `BadConfig` for tensors that are no VirTex.
    """
    visual = {n.removeprefix("visual.cnn."): shape for n, shape in shapes.items() if n.startswith("visual.cnn.")}
    image = resnet.infer_config(visual)
    image = ResNetConfig(variant=image.variant, num_classes=0)
    if "textual.output.weight" not in shapes:
        raise BadConfig("a VirTex without textual.output.weight")
    vocab, width = shapes["textual.output.weight"]
    layers = {m[1] for name in shapes if (m := re.match(r"textual\.transformer\.layers\.(\d+)\.", name))}
    if not layers:
        return VirTexConfig(image=image, text=CaptionerConfig(vocab_size=vocab), head="labels", both_ways=False)
    text = CaptionerConfig(
        width=width,
        num_layers=len(layers),
        num_heads=max(1, width // 64),
        mlp_width=shapes["textual.transformer.layers.0.linear1.weight"][0],
        vocab_size=vocab,
        context=shapes["textual.embedding.positions.weight"][0],
        pre_norm="textual.transformer.norm.weight" in shapes,
    )
    both = any(name.startswith("backward_textual.") for name in shapes)
    return VirTexConfig(image=image, text=text, both_ways=both)


def read_config(data: Mapping[str, Any]) -> VirTexConfig:
    """`config.json` as `write_config` wrote it; raises `BadConfig` naming unknown fields."""
    return from_dict(VirTexConfig, {name: value for name, value in data.items() if name not in HARMLESS}, "config.json")


def write_config(cfg: VirTexConfig) -> dict[str, Any]:
    """`config.json`: model_type "virtex" and our fields; the released files have none."""
    return {"model_type": "virtex", "architectures": ["VirTex"], **to_dict(cfg)}
