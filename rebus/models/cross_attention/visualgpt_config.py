"""VisualGPT's configuration, and how the files of the released training code tell theirs."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from rebus.backbones.text import gpt2
from rebus.backbones.text.gpt2 import GPT2Config
from rebus.backbones.vision.resnet import ResNetConfig
from rebus.backbones.vision.vit import ViTConfig
from rebus.core.config import from_dict, to_dict
from rebus.core.errors import BadConfig
from rebus.core.released_config import HARMLESS

Fusion = Literal["gates", "normalised gates", "replaced", "residual"]


@dataclass(frozen=True, kw_only=True)
class VisualGPTConfig:
    """`fusion`: how a block joins its state a with what it looked up, v of each encoder level (`fused`). "gates" is the
    paper's, of which `threshold` 0 gives its ordinary complementary gates; the others are what it can be compared with.

    `filled_to`: the released code fills up the regions of an image to that number (50 in training) with zeros, which
    the network attends to, since its mask finds no padding; 0: padding is masked.
    """

    text: GPT2Config = field(default_factory=GPT2Config)
    region_width: int = 2048  # of the features of a region
    num_levels: int = 3  # layers of the encoder, all of which the decoder looks at
    mlp_width: int = 2048  # of the encoder
    fusion: Fusion = "gates"
    threshold: float = 0.2
    image: ViTConfig | ResNetConfig | None = None  # what makes regions of an image; None: features come with the batch
    merge: int = 1  # neighbouring cells of its grid, along each side, that are one region
    filled_to: int = 0
    start_id: int = 47_934  # "<?", which the released code takes for a start token
    pad_id: int = 47_932  # "+="
    end_id: int = 50_256
    max_new_tokens: int = 20  # of a caption, where a call says nothing else
    punctuation: bool = False  # whether captions are read and written as they are, or in lower case without it

    def __post_init__(self) -> None:
        if not 0 <= self.threshold < 1:
            raise BadConfig(f"threshold: expected a number from 0 to below 1; got {self.threshold:g}")


_TINY = VisualGPTConfig(
    text=gpt2.PRESETS["tiny"], region_width=14, num_levels=2, mlp_width=20, start_id=1, pad_id=0, end_id=2
)
_GRID = ViTConfig(width=14, num_layers=1, num_heads=2, mlp_width=20, patch_size=8, image_size=24)
PRESETS = {
    "tiny": _TINY,
    "tiny_grid": replace(_TINY, image=_GRID),
    "base": VisualGPTConfig(),
    "base_r101": VisualGPTConfig(image=ResNetConfig(variant="resnet101", num_classes=0)),
    "medium": VisualGPTConfig(text=gpt2.PRESETS["medium"]),
    "large": VisualGPTConfig(text=gpt2.PRESETS["large"]),
}


def infer_config(shapes: Mapping[str, tuple[int, ...]]) -> VisualGPTConfig:
    """The configuration of a file of the released training code, from the shapes of its tensors; heads are 64 wide.

    Its gates were trained with zeros as regions; the threshold is not in the file and is taken for the published one.
    Raises `BadConfig` for tensors that are no VisualGPT.
    """
    prefix = "decoder.transformer."
    if "encoder.fc.weight" not in shapes or f"{prefix}wte.weight" not in shapes:
        raise BadConfig("a VisualGPT without encoder.fc.weight or decoder.transformer.wte.weight")

    def count(pattern: str) -> int:
        return len({found[1] for name in shapes if (found := re.match(pattern, name))})

    vocab, width = shapes[f"{prefix}wte.weight"]
    text = GPT2Config(
        width=width,
        num_layers=count(r"decoder\.transformer\.h\.(\d+)\."),
        num_heads=max(width // 64, 1),
        mlp_width=shapes[f"{prefix}h.0.mlp.c_fc.weight"][1],
        vocab_size=vocab,
        context=shapes[f"{prefix}wpe.weight"][0],
    )
    return VisualGPTConfig(
        text=text,
        region_width=shapes["encoder.fc.weight"][1],
        num_levels=count(r"encoder\.layers\.(\d+)\."),
        mlp_width=shapes["encoder.layers.0.pwff.fc1.weight"][0],
        filled_to=50,
    )


def read_config(data: Mapping[str, Any]) -> VisualGPTConfig:
    """`config.json` as `write_config` wrote it; raises `BadConfig` naming unknown fields."""
    fields = {name: value for name, value in data.items() if name not in HARMLESS}
    return from_dict(VisualGPTConfig, fields, "config.json")


def write_config(cfg: VisualGPTConfig) -> dict[str, Any]:
    """`config.json`: model_type "visualgpt" and our fields; nothing was ever released."""
    return {"model_type": "visualgpt", "architectures": ["VisualGPT"], **to_dict(cfg)}
