"""PaLI-3: a SigLIP image encoder of two billion parameters, one linear layer, and a T5 that reads and answers.

Chen et al., "PaLI-3 Vision Language Models: Smaller, Faster, Stronger", 2023.

    image ──ViT──▶ [256 tokens] Answer in EN: what is written? </s> ──encoder──▶ decoder: cafe </s>

No weights and no code were released; where the paper is silent, what was decided is said at its place.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rebus.backbones.examples import example_pixels, generator
from rebus.backbones.text import t5_layouts
from rebus.backbones.text.t5 import T5, T5Config
from rebus.backbones.vision.vit import ViT, ViTConfig
from rebus.codec.number_locations import NumberLocations
from rebus.core.config import from_dict, to_dict
from rebus.core.outputs import Predictions, Step
from rebus.core.released_config import HARMLESS
from rebus.core.specs import ImageSpec, Prompts, TextSpec
from rebus.core.system import Layout, System
from rebus.nn.cache import ContextCache
from rebus.nn.image_rows import real_images
from rebus.weights.keymap import OwnNames

B16 = ViTConfig()
L16 = ViTConfig(width=1024, num_layers=24, num_heads=16, mlp_width=4096)
SO400M = ViTConfig(width=1152, num_layers=27, num_heads=16, mlp_width=4304, patch_size=14)
G14 = ViTConfig(width=1664, num_layers=48, num_heads=16, mlp_width=8192, patch_size=14)

# UL2's sizes were not published. T5 1.1 XL's shape with mT5's vocabulary, which a model of a hundred languages needs,
# has 3.2 billion parameters if its head is tied: the paper's "3B", and 5.1 with the image encoder, its "5B".
UL2_3B = replace(t5_layouts.PRESETS["mt5_xl"], tied=True)


@dataclass(frozen=True, kw_only=True)
class PaLI3Config:
    image: ViTConfig = field(default_factory=lambda: G14)
    text: T5Config = field(default_factory=lambda: UL2_3B)


PRESETS = {
    "tiny": PaLI3Config(
        image=ViTConfig(width=32, num_layers=2, num_heads=4, mlp_width=48, patch_size=8, image_size=24),
        text=t5_layouts.PRESETS["tiny_gated"],
    ),
    **{f"5b_{side}": PaLI3Config(image=replace(G14, image_size=side)) for side in (224, 812, 1064)},
    "study_b16": PaLI3Config(image=B16),  # the smaller encoders that Sec. 4.1 compares
    "study_l16": PaLI3Config(image=L16),
    # Parts that were released: SigLIP's largest encoder, and T5 1.1 or Flan-T5 in its size XL.
    "so400m_t5_xl": PaLI3Config(image=SO400M, text=t5_layouts.PRESETS["v1_1_xl"]),
}


class PaLI3(nn.Module):
    """Images come first, in their order, then the prompt; the encoder reads all of it both ways."""

    encoder_decoder = True
    sees_once = True

    def __init__(self, cfg: PaLI3Config):
        super().__init__()
        self.cfg = cfg
        self.image = ViT(cfg.image)
        self.image_proj = nn.Linear(cfg.image.width, cfg.text.width)
        self.text = T5(cfg.text)
        self.init_weights()

    def init_weights(self) -> None:
        """The projection starts at zero: the text part begins as it was, blind."""
        nn.init.zeros_(self.image_proj.weight)
        nn.init.zeros_(self.image_proj.bias)

    def see(self, pixels: Float[Tensor, "M 3 Y X"]) -> Float[Tensor, "M P D"]:
        """Images as tokens of the text part's width: the encoder's, before any pooling (Sec. 3.1)."""
        return self.project(self.look(pixels))

    def look(self, pixels: Float[Tensor, "M 3 Y X"]) -> Float[Tensor, "M P C"]:
        """The features of each patch."""
        return self.image(pixels)

    def project(self, features: Float[Tensor, "M P C"]) -> Float[Tensor, "M P D"]:
        """What `look` found, at the width of the text."""
        return self.image_proj(features)

    def encode(
        self,
        tokens: Int[Tensor, "T L"],
        mask: Bool[Tensor, "T L"] | None = None,
        pixels: Tensor | None = None,
        image_mask: Bool[Tensor, "B N"] | None = None,
        owners: Int[Tensor, "T"] | None = None,
        seen: Float[Tensor, "B P D"] | None = None,
    ) -> tuple[Float[Tensor, "T M D"], Bool[Tensor, "T M"]]:
        """States of images and prompts, and where they are real.

        pixels: (B, 3, H, W), or (B, N, 3, H, W) or (B, N, F, 3, H, W), frames of videos one after another, with
        image_mask (B, N) where rows have other numbers of images than N; `owners` says which row of images each prompt
        belongs to. Or give `seen`, what `see` returned, an image a row. Raises `UsageError` for shapes that are no
        rows of images.
        """
        real = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        x = self.text.embed(tokens)
        if pixels is not None:
            seen = self.see(real_images(pixels, image_mask))
        if seen is None:
            return self.text.encode(x, real)
        if pixels is None or image_mask is None:
            rows = seen.reshape(len(seen) if pixels is None else len(pixels), -1, seen.shape[-1])
            there = torch.ones(rows.shape[:2], dtype=torch.bool, device=rows.device)
        else:
            there, rows = _in_rows(seen, image_mask, frames=pixels.shape[2] if pixels.ndim == 6 else 1)
        if owners is not None:
            rows, there = rows[owners], there[owners]
        return self.text.encode(torch.cat([rows, x], dim=1), torch.cat([there, real], dim=1))

    def forward(
        self,
        *,
        pixels: Tensor | None = None,
        image_mask: Bool[Tensor, "B N"] | None = None,
        tokens: Int[Tensor, "T L"],
        mask: Bool[Tensor, "T L"] | None = None,
        targets: Int[Tensor, "T S"] | None = None,
        owners: Int[Tensor, "T"] | None = None,
        seen: Float[Tensor, "B P D"] | None = None,
    ) -> Predictions:
        """Scores of `targets` (−100 at padding), each given images, prompt and the targets before it, as in `encode`;
        without targets, of the first token (T, 1, V)."""
        hidden = self.text.decode(*self.encode(tokens, mask, pixels, image_mask, owners, seen), targets)
        return Predictions(self.text.logits(hidden))

    def start(
        self,
        *,
        room: int,
        pixels: Tensor | None = None,
        image_mask: Bool[Tensor, "B N"] | None = None,
        tokens: Int[Tensor, "T L"],
        mask: Bool[Tensor, "T L"] | None = None,
        owners: Int[Tensor, "T"] | None = None,
        seen: Float[Tensor, "B P D"] | None = None,
    ) -> Step:
        """Read images and prompts; the cache has space for `room` tokens of answer."""
        return self.text.begin(*self.encode(tokens, mask, pixels, image_mask, owners, seen), room)

    def step(self, token: Int[Tensor, "B"], cache: ContextCache) -> Step:
        """One more token of the answer."""
        return self.text.step(token, cache)


def _in_rows(
    seen: Float[Tensor, "M P D"], image_mask: Bool[Tensor, "B N"], frames: int
) -> tuple[Bool[Tensor, "B S"], Float[Tensor, "B S D"]]:
    """Images one after another → where the rows of N · frames images hold one, and these rows, zeros elsewhere."""
    there = image_mask.repeat_interleave(frames, dim=1)
    rows = seen.new_zeros(*there.shape, *seen.shape[1:])
    rows[there] = seen
    return there.repeat_interleave(seen.shape[1], dim=1), rows.flatten(1, 2)


def read_config(data: Mapping[str, Any]) -> PaLI3Config:
    """`config.json` as `write_config` wrote it; raises `BadConfig` naming unknown fields."""
    return from_dict(PaLI3Config, {name: value for name, value in data.items() if name not in HARMLESS}, "config.json")


def write_config(cfg: PaLI3Config) -> dict[str, Any]:
    """`config.json`: model_type "pali3" and our fields; nothing was ever released."""
    return {"model_type": "pali3", "architectures": ["PaLI3"], **to_dict(cfg)}


def image_spec(cfg: PaLI3Config) -> ImageSpec:
    """Squashed to the square, bicubic, [−1, 1], as SigLIP's."""
    return ImageSpec(size=(cfg.image.image_size, cfg.image.image_size))


def text_spec(cfg: PaLI3Config) -> TextSpec:
    """As T5's: prompts and answers end with the end token. Images take no place in the context."""
    return t5_layouts.text_spec(cfg.text)


def example(config: PaLI3Config, rows: int, *, prompt: int = 16, answer: int = 16) -> dict[str, Tensor]:
    """`rows` images with `prompt` tokens of prompt and `answer` target tokens."""
    random = generator()
    text = torch.randint(3, config.text.vocab_size, (rows, prompt + answer), generator=random)
    pixels = example_pixels(config.image, rows, random)
    return {**pixels, "tokens": text[:, :prompt], "targets": text[:, prompt:].contiguous()}


SYSTEM = System(
    name="pali3",
    network=PaLI3,
    config=PaLI3Config,
    presets=PRESETS,
    layouts={
        "transformers": Layout(
            name="transformers", keys=lambda cfg: OwnNames(), read_config=read_config, write_config=write_config
        )
    },
    prompts=Prompts(
        caption="Generate the alt_text in EN at 0:",
        ask="Answer in EN: {question}",
        detect="detect: {labels}",
        classify="Generate the alt_text in EN at 0:",
    ),
    decoding={"caption": {"strategy": "beam", "num_beams": 4}},
    objective="next token",
    example=example,
    image_spec=image_spec,
    text_spec=text_spec,
    locations=NumberLocations(),
)
