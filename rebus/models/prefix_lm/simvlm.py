"""SimVLM: one encoder-decoder, one loss, image and text in the same sequence.

Wang et al., "SimVLM: Simple Visual Language Model Pretraining with Weak Supervision", 2021. The image and the first
words of its text are a prefix whose tokens all see each other; the decoder writes the rest.

    image ──ResNet, 3 stages──▶ [14 × 14 tokens][a large red] ──encoder──▶ decoder: [START] ▶ circle on grass [END]

No weights and no code were released; where the paper is silent, what was decided is said at its place.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rebus.backbones.examples import generator
from rebus.backbones.vision import resnet
from rebus.backbones.vision.resnet import ResNet, ResNetConfig
from rebus.core.config import from_dict, to_dict
from rebus.core.errors import BadText, UnsupportedTask, UsageError
from rebus.core.labels import IGNORED
from rebus.core.outputs import Choices, Predictions, Step
from rebus.core.released_config import HARMLESS
from rebus.core.specs import ImageSpec, Prompts, TextSpec
from rebus.core.system import Companion, Layout, System
from rebus.models.prefix_lm.simvlm_from_t5 import from_t5
from rebus.nn.block import Block
from rebus.nn.cache import Cache, ContextCache
from rebus.nn.decoder import Decoder
from rebus.nn.embedding import TokenEmbedding
from rebus.nn.image_rows import real_images
from rebus.nn.masks import attention_mask
from rebus.nn.norms import LayerNorm
from rebus.nn.only_shapes import only_shapes
from rebus.nn.positions import resize_grid
from rebus.weights.companions import read_answers
from rebus.weights.keymap import OwnNames

EPS = 1e-6


def _stem(variant: Literal["resnet18", "resnet101", "resnet152"] = "resnet101") -> ResNetConfig:
    """The stem and the first three stages: a 16th of the image's size (Sec. 3.2, "the first three blocks")."""
    return ResNetConfig(variant=variant, num_classes=0, stages=3)


@dataclass(frozen=True, kw_only=True)
class SimVLMConfig:
    image: ResNetConfig = field(default_factory=_stem)
    width: int = 768
    num_layers: int = 12  # of the encoder, and as many of the decoder
    num_heads: int = 12
    mlp_width: int = 3072
    vocab_size: int = 32_000
    context: int = 256  # tokens of text, those in the prefix included
    image_size: int = 224
    pad_id: int = 0
    start_id: int = 1
    end_id: int = 2
    head: Literal["text", "answers"] = "text"
    num_answers: int = 3129  # of the head "answers": a list of them is scored, as the paper's VQA is

    @property
    def grid(self) -> int:
        """Image tokens of a side."""
        return -(-self.image_size // min(self.image.stride, 2 ** (self.image.stages + 1)))


PRESETS = {
    "tiny": SimVLMConfig(
        image=replace(_stem("resnet18"), depths=(1, 1, 1, 1), channels=(8, 8, 16, 16)),
        width=24,
        num_layers=2,
        num_heads=3,
        mlp_width=40,
        vocab_size=96,
        context=40,
        image_size=64,
    ),
    "small": SimVLMConfig(width=512, num_layers=8, num_heads=8, mlp_width=2048),
    "base": SimVLMConfig(),
    "large": SimVLMConfig(width=1024, num_layers=24, num_heads=16, mlp_width=4096),
    "huge": SimVLMConfig(image=_stem("resnet152"), width=1280, num_layers=32, num_heads=16, mlp_width=5120),
}


class SimVLM(nn.Module):
    """Positions are two tables, one of image tokens and one of text, whose numbering continues from prefix to answer;
    among image tokens the encoder adds relative ones. Embeddings are the output layer, too."""

    encoder_decoder = True

    def __init__(self, cfg: SimVLMConfig):
        super().__init__()
        self.cfg = cfg
        self.image = ResNet(cfg.image)
        self.image_proj = nn.Linear(self.image.width, cfg.width)
        self.image_positions = nn.Parameter(torch.zeros(cfg.grid**2, cfg.width))
        self.tokens = TokenEmbedding(cfg.vocab_size, cfg.width)
        self.positions = nn.Embedding(cfg.context, cfg.width)
        self.encoder = Encoder(cfg)
        self.decoder = Decoder(cfg.width, cfg.num_layers, cfg.num_heads, cfg.mlp_width, pre_norm=True, eps=EPS)
        self.choice = nn.Linear(cfg.width, cfg.num_answers) if cfg.head == "answers" else None
        self.init_weights()

    def init_weights(self) -> None:
        """N(0, 0.02) but for the ResNet, as BERT; biases, and relative positions, begin at 0."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.Embedding) and not name.startswith("image."):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear) and not name.startswith("image."):
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.image_positions, std=0.02)

    def see(self, pixels: Float[Tensor, "M 3 Y X"]) -> tuple[Float[Tensor, "M P D"], tuple[int, int]]:
        """Image tokens row by row, and their rows and columns; positions are interpolated to images of other sizes."""
        features = self.image.feature_map(pixels)
        size, old = (features.shape[2], features.shape[3]), (self.cfg.grid, self.cfg.grid)
        positions = resize_grid(self.image_positions, old, size, mode="bilinear", antialias=False)
        return self.image_proj(features.flatten(2).mT) + positions, size

    def encode(
        self,
        tokens: Int[Tensor, "T L"],
        real: Bool[Tensor, "T L"],
        pixels: Tensor | None = None,
        image_mask: Bool[Tensor, "B N"] | None = None,
        owners: Int[Tensor, "T"] | None = None,
    ) -> tuple[Float[Tensor, "T M D"], Bool[Tensor, "T M"]]:
        """The prefix, every token of which sees every other: states, and where they are real.

        `image_mask` (B, 1) is False where a row is text alone; no image goes through the ResNet for it.
        """
        positions = (real.long().cumsum(1) - 1).clamp(min=0)
        x = self.tokens(tokens) + self.positions(positions)
        if pixels is None:
            return self.encoder(x, real, (0, 0)), real
        if image_mask is not None and image_mask.shape[1] != 1:
            raise UsageError(f"one image a row, or none; got room for {image_mask.shape[1]}")
        there = (
            torch.ones(len(pixels), dtype=torch.bool, device=pixels.device) if image_mask is None else image_mask[:, 0]
        )
        seen, size = self.see(real_images(pixels, image_mask))
        if image_mask is not None:
            seen = seen.new_zeros(len(pixels), *seen.shape[1:]).index_put((there.nonzero()[:, 0],), seen)
        if owners is not None:
            seen, there = seen[owners], there[owners]
        both = torch.cat([there[:, None].expand(-1, seen.shape[1]), real], dim=1)
        return self.encoder(torch.cat([seen, x], dim=1), both, size), both

    def logits(self, hidden: Float[Tensor, "*B D"]) -> Float[Tensor, "*B V"]:
        """Scores over the vocabulary."""
        return self.tokens.scores(hidden)

    def forward(
        self,
        *,
        pixels: Tensor | None = None,
        image_mask: Bool[Tensor, "B N"] | None = None,
        tokens: Int[Tensor, "T L"],
        mask: Bool[Tensor, "T L"] | None = None,
        targets: Int[Tensor, "T S"] | None = None,
        owners: Int[Tensor, "T"] | None = None,
    ) -> Predictions | Choices:
        """Scores of `targets` (−100 at padding), each given the prefix and the targets before it; without targets, of
        the first token (T, 1, V). pixels (B, 3, H, W), or (B, 1, 3, H, W) with image_mask (B, 1).

        With the head "answers", scores of the listed answers (T, A), read where the first token would be (Sec. 4.1).
        """
        real = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        self._check_length(real, targets)
        seen, seen_real = self.encode(tokens, real, pixels, image_mask, owners)
        begin = self._begin(len(tokens))
        given = begin if targets is None else torch.cat([begin, targets[:, :-1].clamp(min=0)], dim=1)
        at = torch.arange(given.shape[1], device=given.device)
        x = self._embed(given, real.sum(dim=1, keepdim=True) + at)
        mask = attention_mask(at)
        hidden = self.decoder(x, self.decoder.keys_values(seen), mask, seen_mask=seen_real[:, None, None])
        return Predictions(self.logits(hidden)) if self.choice is None else Choices(self.choice(hidden[:, 0]))

    def answer_logits(self, **batch: Tensor) -> Float[Tensor, "T A"]:
        """Scores of the listed answers; the first, `<unk>`, stands for all others and is never given."""
        if self.choice is None:
            raise UnsupportedTask(
                'this SimVLM generates its answers; one with the head "answers" classifies over a list'
            )
        logits = self(**batch).logits
        never = torch.arange(logits.shape[1], device=logits.device) == 0
        return logits.masked_fill(never, -torch.inf)

    def start(
        self,
        *,
        room: int,
        pixels: Tensor | None = None,
        image_mask: Bool[Tensor, "B N"] | None = None,
        tokens: Int[Tensor, "B L"],
        mask: Bool[Tensor, "B L"] | None = None,
    ) -> Step:
        """Encode image and prefix; the cache has space for `room` tokens."""
        real = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        self._check_length(real, torch.zeros(len(tokens), room, device=tokens.device))
        seen, seen_real = self.encode(tokens, real, pixels, image_mask)
        cfg, weight = self.cfg, self.positions.weight
        shape = (len(tokens), cfg.num_heads, room + 1, cfg.width // cfg.num_heads)
        own = replace(Cache.empty(cfg.num_layers, shape, weight.device, weight.dtype), next_position=real.sum(dim=1))
        cache = ContextCache(own, self.decoder.keys_values(seen), seen_real[:, None, None])
        return self.step(self._begin(len(tokens))[:, 0], cache)

    def step(self, token: Int[Tensor, "B"], cache: ContextCache) -> Step:
        """One more token."""
        own, positions = cache.own.open(torch.ones_like(token[:, None], dtype=torch.bool))
        x = self._embed(token[:, None], positions)
        remember = [partial(own.write, layer) for layer in range(self.cfg.num_layers)]
        hidden = self.decoder(x, cache.context, own.causal(), seen_mask=cache.mask, remember=remember)[:, 0]
        return Step(self.logits(hidden), hidden, replace(cache, own=own))

    def _embed(self, tokens: Int[Tensor, "B S"], positions: Int[Tensor, "B S"]) -> Float[Tensor, "B S D"]:
        """The decoder's input. Each stands at the position of the token that is predicted from it, so that the first
        one after the prefix is not mistaken for the first of a text."""
        return self.tokens(tokens) + self.positions(positions.clamp(max=self.cfg.context - 1))

    def _begin(self, rows: int) -> Int[Tensor, "B 1"]:
        return torch.full((rows, 1), self.cfg.start_id, device=self.positions.weight.device)

    def _check_length(self, real: Bool[Tensor, "T L"], answer: Tensor | None) -> None:
        """Padding needs no positions: rows are counted only where they might be too long."""
        width = real.shape[1] + (0 if answer is None else answer.shape[1])
        if width <= self.cfg.context or torch.compiler.is_compiling() or only_shapes(real):
            return
        length = real.sum(dim=1) if answer is None else real.sum(dim=1) + (answer != IGNORED).sum(dim=1)
        if int(length.max()) > self.cfg.context:
            raise BadText(
                f"{int(length.max())} tokens of prefix and answer; the model has {self.cfg.context} positions"
            )


class Encoder(nn.Module):
    """A transformer over image tokens and words."""

    def __init__(self, cfg: SimVLMConfig):
        super().__init__()
        self.grid = cfg.grid
        self.blocks = nn.ModuleList(
            Block(cfg.width, cfg.num_heads, cfg.mlp_width, eps=EPS) for _ in range(cfg.num_layers)
        )
        sides = 2 * cfg.grid - 1
        self.relative = nn.Parameter(torch.zeros(cfg.num_layers, cfg.num_heads, sides, sides))
        self.norm = LayerNorm(cfg.width, EPS)

    def forward(
        self, x: Float[Tensor, "B N D"], real: Bool[Tensor, "B N"], size: tuple[int, int]
    ) -> Float[Tensor, "B N D"]:
        """`size`: rows and columns of the image tokens, which come first."""
        mask = real[:, None, None]
        for i, block in enumerate(self.blocks):
            x = block(x, mask, bias=self._bias(i, size, x.shape[1]) if size[0] else None)
        return self.norm(x)

    def _bias(self, layer: int, size: tuple[int, int], length: int) -> Float[Tensor, "1 H N N"]:
        """Of a query at (y, x) and a key at (v, u): the table at (v − y, u − x); 0 where either is a word.

        Dai et al., "CoAtNet", 2021, Sec. 2.1; the table is stretched to grids of other sizes.
        """
        rows, cols = size
        table = self.relative[layer]
        flat = table.flatten(1).mT
        old = (2 * self.grid - 1, 2 * self.grid - 1)
        flat = resize_grid(flat, old, (2 * rows - 1, 2 * cols - 1), mode="bilinear", antialias=False)
        y, x = torch.arange(rows, device=table.device), torch.arange(cols, device=table.device)
        down, right = (y - y[:, None]) + rows - 1, (x - x[:, None]) + cols - 1
        index = down[:, None, :, None] * (2 * cols - 1) + right[None, :, None, :]  # y x v u
        image = flat[index.reshape(rows * cols, rows * cols)].permute(2, 0, 1)
        words = length - rows * cols
        return nn.functional.pad(image, (0, words, 0, words))[None]


def read_config(data: Mapping[str, Any]) -> SimVLMConfig:
    """`config.json` as `write_config` wrote it; raises `BadConfig` naming unknown fields."""
    return from_dict(SimVLMConfig, {name: value for name, value in data.items() if name not in HARMLESS}, "config.json")


def write_config(cfg: SimVLMConfig) -> dict[str, Any]:
    """`config.json`: model_type "simvlm" and our fields; nothing was ever released."""
    return {"model_type": "simvlm", "architectures": ["SimVLM"], **to_dict(cfg)}


def image_spec(cfg: SimVLMConfig) -> ImageSpec:
    """The whole image, squashed; ImageNet's mean and deviation, since its ResNets may be what training starts from."""
    size = (cfg.image_size, cfg.image_size)
    return replace(resnet.image_spec(cfg.image), size=size, side=None, resize="exact", resample="bicubic")


def text_spec(cfg: SimVLMConfig) -> TextSpec:
    """A prefix without control tokens; the decoder adds its own start token and ends with the end token."""
    return TextSpec(
        context=cfg.context,
        vocab_size=cfg.vocab_size,
        generates=True,
        pad_id=cfg.pad_id,
        eos_id=cfg.end_id,
        empty_prompts=True,
    )


def example(config: SimVLMConfig, rows: int, *, prompt: int = 16, answer: int = 16) -> dict[str, Tensor]:
    """`rows` images with `prompt` tokens of prefix and `answer` target tokens, or scores of the answers of a list."""
    random = generator()
    pixels = torch.randn(rows, 3, config.image_size, config.image_size, generator=random)
    text = torch.randint(3, config.vocab_size, (rows, prompt + answer), generator=random)
    batch = {"pixels": pixels, "tokens": text[:, :prompt]}
    if config.head == "answers":
        return {**batch, "scores": torch.eye(config.num_answers)[torch.arange(rows) % config.num_answers]}
    return {**batch, "targets": text[:, prompt:].contiguous()}


def suited(cfg: SimVLMConfig) -> dict[str, Any]:
    """Of few positions, answers take two thirds at most; who writes answers has no list of them."""
    most = {"max_new_tokens": min(64, 2 * cfg.context // 3)}
    beams = {"strategy": "beam", "num_beams": 5, "length_penalty": 0.0}
    decoding = {"caption": {**most, **beams}, "ask": {"max_new_tokens": most["max_new_tokens"] // 2}, "complete": most}
    return {"decoding": decoding, **({"companions": {}} if cfg.head == "text" else {})}


_ALL = frozenset({"caption", "ask", "classify", "complete", "stream"})


SYSTEM = System(
    name="simvlm",
    network=SimVLM,
    config=SimVLMConfig,
    presets=PRESETS,
    layouts={
        "transformers": Layout(
            name="transformers", keys=lambda cfg: OwnNames(), read_config=read_config, write_config=write_config
        )
    },
    tasks=lambda cfg: _ALL if cfg.head == "text" else frozenset({"ask"}),
    prompts=Prompts(caption="a picture of", ask="{question}", classify="a picture of", complete="{document}"),
    objective=lambda cfg: "prefix lm" if cfg.head == "text" else "soft answers",
    example=example,
    image_spec=image_spec,
    any_image_size=True,
    text_spec=text_spec,
    borrow=from_t5,
    companions={
        "answers": Companion(
            file="answers_vqa.txt",
            load=read_answers,
            tasks=frozenset({"ask"}),
            purpose="there are no answers to pick from: put the list of the network's training beside its weights",
        )
    },
    suited=suited,
)
