"""Flamingo's configuration: a language model and an image encoder of other systems, and what is between them."""

from dataclasses import dataclass, field, replace
from typing import Any

from rebus.backbones.text import gpt2, gpt_neox, llama_layouts, mpt
from rebus.backbones.text.llama import LlamaConfig
from rebus.backbones.vision.efficientnet import EfficientNetConfig
from rebus.backbones.vision.vit import ViTConfig
from rebus.core.config import to_dict
from rebus.core.errors import BadConfig
from rebus.core.system import Part
from rebus.models.frozen_lm.bridge import CrossConfig, ResamplerConfig

END, IMAGE = "<|endofchunk|>", "<image>"


@dataclass(frozen=True, kw_only=True)
class FlamingoConfig:
    text: Part  # a causal language model whose blocks are open (`rebus.backbones.text.causal`)
    image: Part  # an image encoder that gives a grid of features
    resampler: ResamplerConfig = field(default_factory=ResamplerConfig)
    cross: CrossConfig = field(default_factory=CrossConfig)
    class_token: bool = False  # whether the resampler reads the encoder's class token too
    added: tuple[str, ...] = (END, IMAGE)  # tokens that the language model did not know, with vectors of their own
    first_added: int | None = None  # their first id; None: after the last row of the language model's table
    writes_added: bool = True  # False: the scores of these tokens were not released, and they are never written
    mark: tuple[str, ...] = (IMAGE,)  # what stands for an image in a text
    end: str | None = END  # the token that ends an answer; None: that of the language model
    max_new_tokens: int = 20  # of a caption

    def __post_init__(self) -> None:
        strange = [name for name in self.mark if name not in self.added]
        if self.mark.count(IMAGE) != 1 or strange:
            raise BadConfig(f"flamingo.mark: expected {IMAGE} once, and tokens of `added`; got {self.mark!r}")
        if self.cross.every < 1 or self.cross.first < 0:
            raise BadConfig(
                f"flamingo.cross: expected every ≥ 1 and first ≥ 0; got {self.cross.every}, {self.cross.first}"
            )

    @property
    def vocabulary(self) -> int:
        """Where the ids of the added tokens begin."""
        return int(self.text.config["vocab_size"]) if self.first_added is None else self.first_added

    @property
    def image_id(self) -> int:
        """The token that an image stands at."""
        return self.id_of(IMAGE)

    def id_of(self, added: str) -> int:
        """The id of an added token."""
        return self.vocabulary + self.added.index(added)


_VIT_L14 = ViTConfig(
    width=1024,
    num_layers=24,
    num_heads=16,
    mlp_width=4096,
    patch_size=14,
    act="quick_gelu",
    eps=1e-5,
    class_token=True,
)


def part(system: str, config: Any) -> Part:
    """A network of another system in a configuration."""
    return Part(system=system, config=to_dict(config))


def _open(system: str, text: Any, every: int, first_added: int, writes_added: bool = True) -> FlamingoConfig:
    """A release of OpenFlamingo: a cross-attention before the last of every so many blocks."""
    return FlamingoConfig(
        text=part(system, text),
        image=part("vit", _VIT_L14),
        cross=CrossConfig(every=every, first=every - 1, mlp_width=4 * text.width),
        added=(END, IMAGE, "<PAD>"),
        first_added=first_added,
        writes_added=writes_added,
    )


_AROUND = "<fake_token_around_image>"


def _idefics(text: LlamaConfig) -> FlamingoConfig:
    """A release of IDEFICS: ViT-H/14 of OpenCLIP, and a cross-attention like Llama's blocks before every fourth."""
    image = ViTConfig(
        width=1280,
        num_layers=32,
        num_heads=16,
        mlp_width=5120,
        patch_size=14,
        act="gelu",
        eps=1e-5,
        class_token=True,
    )
    cross = CrossConfig(
        every=4,
        num_heads=text.num_heads,
        head_width=text.head_width,
        mlp_width=text.mlp_width,
        norm="rms",
        eps=text.eps,
        gated_mlp=True,
        qk_norm=True,
    )
    return FlamingoConfig(
        text=part("llama", text),
        image=part("vit", image),
        resampler=ResamplerConfig(num_heads=16, head_width=96, act="relu", qk_norm=True),
        cross=cross,
        class_token=True,
        added=(_AROUND, IMAGE),
        mark=(_AROUND, IMAGE, _AROUND),
        end=None,
    )


_LLAMA_65B = LlamaConfig(
    width=8192, num_layers=80, num_heads=64, num_kv_heads=64, mlp_width=22_016, context=2048, eps=1e-5
)
_SMOLLM2_135M = LlamaConfig(
    width=576,
    num_layers=30,
    num_heads=9,
    num_kv_heads=3,
    head_width=64,
    mlp_width=1536,
    vocab_size=49_152,
    context=8192,
    rope_base=100_000.0,
    tied=True,
)

_TINY_IMAGE = ViTConfig(
    width=24, num_layers=1, num_heads=2, mlp_width=32, patch_size=8, image_size=24, eps=1e-5, class_token=True
)
_TINY = ResamplerConfig(num_layers=2, num_heads=2, head_width=8, num_latents=3)
_TINY_CROSS = CrossConfig(num_heads=2, head_width=8, mlp_width=40)

PRESETS = {
    "tiny": FlamingoConfig(
        text=part("gpt2", gpt2.PRESETS["tiny"]), image=part("vit", _TINY_IMAGE), resampler=_TINY, cross=_TINY_CROSS
    ),
    "tiny_mpt": FlamingoConfig(
        text=part("mpt", replace(mpt.PRESETS["tiny_qk_norm"], num_layers=4)),
        image=part("vit", _TINY_IMAGE),
        resampler=_TINY,
        cross=replace(_TINY_CROSS, every=2, first=1),
        first_added=90,
    ),
    "tiny_idefics": FlamingoConfig(
        text=part("llama", replace(llama_layouts.PRESETS["tiny"], num_layers=3, num_kv_heads=4)),
        image=part("vit", replace(_TINY_IMAGE, act="gelu")),
        resampler=replace(_TINY, act="relu", qk_norm=True),
        cross=CrossConfig(
            every=2, num_heads=4, head_width=6, mlp_width=48, norm="rms", gated_mlp=True, qk_norm=True, gates="each"
        ),
        class_token=True,
        added=(_AROUND, IMAGE),
        mark=(_AROUND, IMAGE, _AROUND),
        end=None,
    ),
    "open_3b": _open("mpt", mpt.PRESETS["1b"], 1, 50_277),
    "open_4b": _open("gpt_neox", gpt_neox.PRESETS["redpajama_3b"], 2, 50_277),
    "open_9b": _open("mpt", mpt.PRESETS["7b"], 4, 50_277),
    "open_9b_v1": _open("llama", LlamaConfig(context=2048, eps=1e-6), 4, 32_000, writes_added=False),
    "idefics_9b": _idefics(LlamaConfig(context=2048, eps=1e-6)),
    "idefics_80b": _idefics(_LLAMA_65B),
    "starter": FlamingoConfig(
        text=part("llama", _SMOLLM2_135M),
        image=part("efficientnet", EfficientNetConfig(variant="lite0")),
        resampler=ResamplerConfig(num_layers=2, num_heads=4, num_latents=32, width=256),
        # from the middle on: what the blocks before make of a text does not depend on the image
        cross=CrossConfig(every=4, first=14, num_heads=4, mlp_width=512, norm="rms", text_alone=True),
        added=(IMAGE,),
        writes_added=False,
        end=None,
    ),
}
PRESETS["photos"] = PRESETS["starter"]  # the same network, trained
