"""Chameleon: images are tokens like words, and one decoder reads and writes both.

Chameleon Team, "Chameleon: Mixed-Modal Early-Fusion Foundation Models", 2024; Chern et al., "ANOLE", 2024, gave its
released weights back the images that they write.

    <s> a cat: <begin> 17 4096 … 3 <end> and a dog: <begin> …          codes of a VQ-GAN, row by row, between words
        └─ one table of embeddings ─▶ Llama with norms on queries and keys ─▶ one head over words and codes

The tokenizer of images stays as it is; what learns sees tokens alone.
"""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rebus.backbones.examples import generative_example
from rebus.backbones.text.llama import Llama
from rebus.backbones.vision.vqgan import VQGAN
from rebus.codec.processor import Processor
from rebus.core.outputs import Predictions, Step
from rebus.core.specs import ImageSpec, ImageTokens, Prompts, TextSpec
from rebus.core.system import Layout, System
from rebus.models.early_fusion.chameleon_config import PRESETS, SEPARATOR, ChameleonConfig
from rebus.models.early_fusion.chameleon_layouts import (
    keys,
    read_transformers,
    with_decoder,
    write_transformers,
)
from rebus.models.early_fusion.chameleon_release import (
    is_release,
    keys_of_release,
    open_release,
    read_params,
    release_processor,
)
from rebus.nn.cache import Cache
from rebus.nn.image_rows import ImageRows, check_placeholders, real_images


class Chameleon(nn.Module):
    def __init__(self, cfg: ChameleonConfig):
        super().__init__()
        self.cfg = cfg
        self.draws = cfg.draws
        self.image = VQGAN(cfg.image, decoder=cfg.draws).requires_grad_(False)
        self.text = Llama(cfg.text)

    def read_images(
        self,
        tokens: Int[Tensor, "T L"],
        pixels: Tensor | None = None,
        image_mask: Bool[Tensor, "B N"] | None = None,
        owners: Int[Tensor, "T"] | None = None,
    ) -> Int[Tensor, "T L"]:
        """Tokens with the codes of their row's images in place of the placeholders, in reading order.

        pixels: (B, 3, H, W), or (B, N, 3, H, W) with image_mask (B, N) where rows have other numbers of images than N;
        `owners` says which row of images each text belongs to. Raises `BadText` where a text has not the placeholders
        of its images, `UsageError` for shapes that are no rows of images.
        """
        places = tokens == self.cfg.image_id
        rows = None if pixels is None else ImageRows.of(pixels, image_mask, owners)
        check_placeholders(places, rows, self.cfg.num_image_tokens)
        if pixels is None or rows is None:
            return tokens
        codes = self.image.encode(real_images(pixels, image_mask)) + self.cfg.first_code
        return tokens.masked_scatter(places, rows.spread(codes))

    def draw_images(self, codes: Int[Tensor, "B P"]) -> Float[Tensor, "B 3 Y X"]:
        """Codes from 0 → images in [0, 1] (`rebus.core.capabilities.DrawsImages`)."""
        return self.image.draw_images(codes)

    def forward(
        self,
        *,
        pixels: Tensor | None = None,
        image_mask: Bool[Tensor, "B N"] | None = None,
        tokens: Int[Tensor, "T L"],
        mask: Bool[Tensor, "T L"] | None = None,
        targets: Int[Tensor, "T S"] | None = None,
        owners: Int[Tensor, "T"] | None = None,
    ) -> Predictions:
        """Scores of `targets` (−100 at padding), each given the prompt and the targets before it; without targets, of
        the token after each of `tokens`, (T, L, V). Codes have scores like words.

        Placeholders of images may stand in the targets too, after those of the prompt; `targets` of what is returned
        has the codes there. Raises as `read_images`, and `BadText` for more tokens than the context.
        """
        whole = tokens if targets is None else torch.cat([tokens, targets], dim=1)
        whole = self.read_images(whole, pixels, image_mask, owners)
        if targets is None:
            return self.text(whole, mask)
        tokens, targets = whole.split([tokens.shape[1], targets.shape[1]], dim=1)
        found: Predictions = self.text(tokens, mask, targets)
        return found._replace(targets=targets)

    def start(
        self,
        *,
        room: int,
        pixels: Tensor | None = None,
        image_mask: Bool[Tensor, "B N"] | None = None,
        tokens: Int[Tensor, "T L"],
        mask: Bool[Tensor, "T L"] | None = None,
        owners: Int[Tensor, "T"] | None = None,
    ) -> Step:
        """Read images and prompts; the cache has space for `room` tokens of answer."""
        return self.text.start(room=room, tokens=self.read_images(tokens, pixels, image_mask, owners), mask=mask)

    def step(self, token: Int[Tensor, "B"], cache: Cache) -> Step:
        """One more token of the answer, a word or a code."""
        return self.text.step(token, cache)


def image_spec(cfg: ChameleonConfig) -> ImageSpec:
    """The shorter side to the size, the centre of the longer one, [−1, 1], as Meta's code has it; the preprocessor of
    transformers' files scales by 0.0078, short of 2/255."""
    side = cfg.image.image_size
    return ImageSpec(size=(side, side), resize="shorter", rounding="even", resample="lanczos")


def text_spec(cfg: ChameleonConfig) -> TextSpec:
    """The start token, then text and images in turn, each image between its two tokens; one token ends the user's
    turn, </s> that of the model."""
    return TextSpec(
        context=cfg.text.context,
        vocab_size=cfg.text.vocab_size,
        generates=True,
        pad_id=cfg.pad_id,
        bos_id=cfg.bos_id,
        eos_id=cfg.eos_id,
        bos_first=True,
        separator=SEPARATOR,
        image_token_id=cfg.image_id,
        num_image_tokens=cfg.num_image_tokens,
        image_begin_id=cfg.begin_id,
        image_end_id=cfg.end_id,
    )


def image_tokens(cfg: ChameleonConfig) -> ImageTokens:
    """Codes lie side by side among the tokens."""
    last = cfg.first_code + cfg.image.num_codes - 1
    return ImageTokens(begin=cfg.begin_id, end=cfg.end_id, first=cfg.first_code, last=last, each=cfg.num_image_tokens)


def tasks(cfg: ChameleonConfig) -> frozenset[str]:
    """Images are drawn by the decoder of their tokenizer, which Meta's release for transformers lacks."""
    found = {"caption", "ask", "classify", "complete", "stream"}
    return frozenset(found | {"imagine"} if cfg.draws else found)


def read_processor(folder: Path, cfg: ChameleonConfig) -> Processor:
    """Of a directory in either layout."""
    return release_processor(folder, image_spec(cfg), text_spec(cfg))


# As Meta's inference code and Anole's sample. Captions and answers are greedy here, so that they come out the same.
_SAMPLED = {"strategy": "sample", "temperature": 0.7, "top_p": 0.9}
_DECODING: dict[str, dict[str, Any]] = {
    "imagine": {**_SAMPLED, "guidance": (3.0, 1.2)},
    "complete": {**_SAMPLED, "max_new_tokens": 256},
}
_FEW_CODES = 1024


def suited(cfg: ChameleonConfig) -> dict[str, Any]:
    """Where a codebook is small, as for synthetic shapes, an object begins with a code that is rare at each place among
    those of the background; top-p would leave it out, so that images are drawn from all codes as they are likely."""
    if cfg.image.num_codes > _FEW_CODES:
        return {}
    imagine = {"strategy": "sample", "temperature": 0.6, "guidance": 1.5, "best_of": 16}
    return {"decoding": {**_DECODING, "imagine": imagine}}


SYSTEM = System(
    name="chameleon",
    network=Chameleon,
    config=ChameleonConfig,
    presets=PRESETS,
    layouts={
        "transformers": Layout(
            name="transformers",
            keys=keys,
            read_config=read_transformers,
            write_config=write_transformers,
            complete=with_decoder,
        ),
        "release": Layout(
            name="release",
            keys=keys_of_release,
            config_file="params.json",
            recognises=is_release,
            read_config=read_params,
            read_files=open_release,
        ),
    },
    prompts=Prompts(
        caption="Describe the image.",
        ask="{question}",
        classify="Describe the image.",
        complete="{document}",
        imagine="{prompt}",
        unfinished=("complete", "imagine"),
    ),
    decoding=_DECODING,
    suited=suited,
    tasks=tasks,
    objective="next token",
    objective_options={"z_loss": 1e-5},
    example=generative_example,
    image_spec=image_spec,
    text_spec=text_spec,
    image_tokens=image_tokens,
    read_processor=read_processor,
)
