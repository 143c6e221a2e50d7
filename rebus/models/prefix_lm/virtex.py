"""VirTex: an image encoder learns from captions, read from left to right and from right to left.

Desai & Johnson, "VirTex: Learning Visual Representations from Textual Annotations", 2021. The captioner is one shallow
decoder for each direction; it looks at the ResNet's last grid of features at every word. Embeddings, the projection of
the image and the output layer serve both directions.

    image ──ResNet──▶ 7 × 7 features ──▶ [START] a cat on a mat ──▶ a cat on a mat [END]
                                     ──▶ [END] mat a on cat a   ──▶ mat a on cat a [START]
"""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rebus.backbones.examples import generator
from rebus.backbones.text.causal import last_real
from rebus.backbones.vision import resnet
from rebus.backbones.vision.resnet import ResNet, ResNetConfig
from rebus.core.errors import BadText, UsageError
from rebus.core.labels import IGNORED, reversed_rows
from rebus.core.outputs import Predictions, Step
from rebus.core.specs import ImageSpec, Prompts, TextSpec
from rebus.core.system import Layout, System
from rebus.models.prefix_lm.virtex_config import CaptionerConfig, infer_config, read_config, write_config
from rebus.models.prefix_lm.virtex_config import VirTexConfig as VirTexConfig
from rebus.nn.attention import Attention
from rebus.nn.cache import Cache, ContextCache
from rebus.nn.decoder import Decoder
from rebus.nn.embedding import TokenEmbedding
from rebus.nn.masks import attention_mask
from rebus.nn.norms import LayerNorm
from rebus.weights.key_sides import Row, nested
from rebus.weights.keymap import KeyMap, OwnNames

_H512 = CaptionerConfig(width=512, num_heads=8, mlp_width=2048)
_H768 = CaptionerConfig(width=768, num_heads=12, mlp_width=3072)
_H1024 = CaptionerConfig()
_H2048 = CaptionerConfig(width=2048, num_heads=32, mlp_width=8192)
_TINY = VirTexConfig(
    image=ResNetConfig(variant="resnet18", num_classes=0, depths=(1, 1, 1, 1), channels=(8, 8, 16, 16)),
    text=CaptionerConfig(width=24, num_layers=2, num_heads=3, mlp_width=40, vocab_size=96, context=24),
    image_size=64,
)
PRESETS = {
    "tiny": _TINY,
    "tiny_pre_norm": replace(_TINY, text=replace(_TINY.text, pre_norm=True), both_ways=False),
    "r50_l1_h512": VirTexConfig(text=_H512),
    "r50_l1_h768": VirTexConfig(text=_H768),
    "r50_l1_h1024": VirTexConfig(text=_H1024),
    "r50_l1_h2048": VirTexConfig(text=_H2048),
    "r50_l2_h1024": VirTexConfig(text=replace(_H1024, num_layers=2)),
    "r50_l3_h1024": VirTexConfig(text=replace(_H1024, num_layers=3)),
    "r50_l4_h1024": VirTexConfig(text=replace(_H1024, num_layers=4)),
    "r50w2x_l1_h1024": VirTexConfig(image=ResNetConfig(variant="wide_resnet50_2", num_classes=0)),
    "r101_l1_h1024": VirTexConfig(image=ResNetConfig(variant="resnet101", num_classes=0)),
    "r50_l1_h2048_forward": VirTexConfig(text=_H2048, both_ways=False),
    "r50_l1_h2048_masked": VirTexConfig(text=_H2048, head="masked words", both_ways=False),
    "r50_tokens": VirTexConfig(head="labels", both_ways=False),
    "r50_labels": VirTexConfig(head="labels", both_ways=False, text=CaptionerConfig(vocab_size=81)),
}


class VirTex(nn.Module):
    """Without captions (`head`), it scores masked words, or labels: the paper's other tasks (Table 2)."""

    def __init__(self, cfg: VirTexConfig):
        super().__init__()
        self.cfg = cfg
        self.image = ResNet(cfg.image)
        text = cfg.text
        if cfg.head == "labels":
            self.labels = nn.Linear(self.image.width, text.vocab_size)
            return
        self.image_proj = nn.Linear(self.image.width, text.width)
        self.tokens = TokenEmbedding(text.vocab_size, text.width, padding_idx=cfg.pad_id)
        self.positions = nn.Embedding(text.context, text.width)
        self.norm = LayerNorm(text.width, 1e-8)
        self.rightward = _decoder(text)
        self.leftward = _decoder(text) if cfg.both_ways else None
        self.bias = nn.Parameter(torch.zeros(text.vocab_size))
        self.init_weights()

    def init_weights(self) -> None:
        """N(0, 0.02) for all matrices but the image's; biases as PyTorch has them. Both directions start alike."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.Embedding) and not name.startswith("image."):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, Attention):
                for part in (module.q, module.k, module.v, module.out):
                    nn.init.zeros_(part.bias)
        with torch.no_grad():
            self.tokens.weight[self.cfg.pad_id].zero_()
        if self.leftward is not None:
            self.leftward.load_state_dict(self.rightward.state_dict())

    def see(self, pixels: Float[Tensor, "B 3 Y X"]) -> Float[Tensor, "B P D"]:
        """The image's places, row by row, at the captioner's width."""
        return self.image_proj(self.image.feature_map(pixels).flatten(2).mT)

    def embed(self, tokens: Int[Tensor, "B S"], positions: Int[Tensor, "B S"]) -> Float[Tensor, "B S D"]:
        """Words at their positions; zeros for padding and unknown words."""
        x = self.norm(self.tokens(tokens) + self.positions(positions))
        return x * (tokens != self.cfg.pad_id)[..., None]

    def read(
        self, decoder: Decoder, tokens: Int[Tensor, "B S"], real: Bool[Tensor, "B S"], seen: Float[Tensor, "B P D"]
    ) -> Float[Tensor, "B S D"]:
        """A whole caption at once: states of its tokens, each given those before it, or all where words are masked."""
        self._check_length(tokens.shape[1])
        at = torch.arange(tokens.shape[1], device=tokens.device)
        mask = attention_mask(at * 0 if self.cfg.head == "masked words" else at, real)
        x = self.embed(tokens, (real.long().cumsum(1) - 1).clamp(min=0))
        return decoder(x, decoder.keys_values(seen), mask)

    def logits(self, hidden: Float[Tensor, "*B D"]) -> Float[Tensor, "*B V"]:
        """Scores over the vocabulary: the embedding again, and a bias of its own."""
        return self.tokens.scores(hidden) + self.bias

    def forward(
        self,
        *,
        pixels: Float[Tensor, "B 3 Y X"],
        tokens: Int[Tensor, "T L"] | None = None,
        mask: Bool[Tensor, "T L"] | None = None,
        targets: Int[Tensor, "T S"] | None = None,
        owners: Int[Tensor, "T"] | None = None,
    ) -> Predictions:
        """Scores of `targets` (−100 at padding) after the prompts, and with `both_ways` those of the reversed rows.

        `owners`: the image of each text, where images have several. Without targets: of the token after the prompt.
        Masked words: of the tokens themselves (B, L, V). Labels: of the image (B, 1, V).
        """
        if self.cfg.head == "labels":
            return Predictions(self.labels(self.image.features(pixels))[:, None])
        if tokens is None:
            raise UsageError("a captioner reads tokens: its start token at least")
        real = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        seen = self.see(pixels)
        seen = seen if owners is None else seen[owners]
        if self.cfg.head == "masked words":
            return Predictions(self.logits(self.read(self.rightward, tokens, real, seen)))
        length = tokens.shape[1]
        if targets is None:
            last = last_real(self.read(self.rightward, tokens, real, seen), real)
            return Predictions(self.logits(last)[:, None])
        given = targets[:, :-1]
        whole, both = torch.cat([tokens, given.clamp(min=0)], dim=1), torch.cat([real, given >= 0], dim=1)
        hidden = self.read(self.rightward, whole, both, seen)
        last = last_real(hidden[:, :length], real)[:, None]
        logits = self.logits(torch.cat([last, hidden[:, length:]], dim=1))
        if self.leftward is None:
            return Predictions(logits)
        back, back_real, _ = reversed_rows(tokens, real, targets)
        return Predictions(logits, backward=self.logits(self.read(self.leftward, back, back_real, seen)))

    def start(
        self,
        *,
        room: int,
        pixels: Float[Tensor, "B 3 Y X"],
        tokens: Int[Tensor, "B L"],
        mask: Bool[Tensor, "B L"] | None = None,
    ) -> Step:
        """See the image, read the start token and what the caption begins with; space for `room` more tokens."""
        if self.cfg.head != "captions":
            raise UsageError(f"this VirTex learned from {self.cfg.head}: it does not caption images")
        real = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        slots = tokens.shape[1] + room
        self._check_length(slots - 1)  # the last token needs no position: nothing comes after it
        context = self.rightward.keys_values(self.see(pixels))
        hidden, cache = self._go_on(tokens, real, ContextCache(self._empty(len(tokens), slots), context))
        if self.cfg.forgets_start:
            kept = self._empty(len(tokens), slots)
            _, cache = self._go_on(tokens[:, 1:], real[:, 1:], ContextCache(kept, context))
        return Step(self.logits(last_real(hidden, real)), hidden, cache)

    def step(self, token: Int[Tensor, "B"], cache: ContextCache) -> Step:
        """One more word."""
        hidden, cache = self._go_on(token[:, None], torch.ones_like(token[:, None], dtype=torch.bool), cache)
        return Step(self.logits(hidden[:, 0]), hidden[:, 0], cache)

    @property
    def reads_backward(self) -> bool:
        """Whether there is a decoder from right to left."""
        return self.cfg.both_ways

    def backward_likelihood(
        self,
        texts: Int[Tensor, "B N S"],
        *,
        pixels: Float[Tensor, "B 3 Y X"],
        tokens: Int[Tensor, "B L"],
        mask: Bool[Tensor, "B L"] | None = None,
    ) -> Float[Tensor, "B N"]:
        """Log-probabilities of captions (−100 at padding), summed, each word given those after it."""
        assert self.leftward is not None
        each = texts.shape[1]
        again = [None if x is None else x.repeat_interleave(each, dim=0) for x in (tokens, mask, self.see(pixels))]
        inputs, real, targets = reversed_rows(again[0], again[1], texts.flatten(0, 1))  # type: ignore[arg-type]
        logits = self.logits(self.read(self.leftward, inputs, real, again[2]))  # type: ignore[arg-type]
        scores = logits.float().log_softmax(dim=-1).gather(-1, targets.clamp(min=0)[..., None])[..., 0]
        return (scores * (targets != IGNORED)).sum(dim=1).unflatten(0, (-1, each))

    def _go_on(
        self, tokens: Int[Tensor, "B S"], real: Bool[Tensor, "B S"], cache: ContextCache
    ) -> tuple[Float[Tensor, "B S D"], ContextCache]:
        own, positions = cache.own.open(real)
        x = self.embed(tokens, positions)
        remember = [partial(own.write, layer) for layer in range(self.cfg.text.num_layers)]
        return self.rightward(x, cache.context, own.causal(), remember=remember), replace(cache, own=own)

    def _empty(self, rows: int, slots: int) -> Cache:
        text = self.cfg.text
        shape = (rows, text.num_heads, slots, text.width // text.num_heads)
        return Cache.empty(text.num_layers, shape, self.bias.device, self.bias.dtype)

    def _check_length(self, length: int) -> None:
        context = self.cfg.text.context
        if length > context:
            raise BadText(
                f"{length} tokens of caption, the start token included; the model has positions for {context}"
            )


def _decoder(cfg: CaptionerConfig) -> Decoder:
    """One direction of the captioner."""
    return Decoder(cfg.width, cfg.num_layers, cfg.num_heads, cfg.mlp_width, pre_norm=cfg.pre_norm, eps=1e-5)


def _direction(theirs: str, ours: str) -> list[Row]:
    """A stack of PyTorch's `TransformerDecoderLayer`."""
    layer, block = theirs + "layers.{i}.", ours + "blocks.{i}."
    rows: list[Row] = [
        *((layer + f"norm{k}.{{p}}", block + f"norm{k}.{{p}}") for k in (1, 2, 3)),
        (layer + "linear1.{p}", block + "mlp.up.{p}"),
        (layer + "linear2.{p}", block + "mlp.down.{p}"),
        (theirs + "norm.{p}", ours + "norm.{p}"),
    ]
    for name, part in (("self_attn", "attn"), ("multihead_attn", "cross")):
        for kind in ("weight", "bias"):
            rows.append((f"{layer}{name}.in_proj_{kind}", tuple(f"{block}{part}.{n}.{kind}" for n in "qkv")))
        rows.append((f"{layer}{name}.out_proj.{{p}}", f"{block}{part}.out.{{p}}"))
    return rows


def keys(cfg: VirTexConfig) -> KeyMap:
    """The released names. What both directions share is stored twice; the second copy is not read, and not written."""
    image = nested(resnet.ROWS, theirs="visual.cnn.", ours="image.")
    if cfg.head == "labels":
        return KeyMap([*image, ("textual.output.{p}", "labels.{p}")])
    rows: list[Row] = [
        *image,
        ("textual.visual_projection.{p}", "image_proj.{p}"),
        ("textual.embedding.words.weight", "tokens.weight"),
        ("textual.embedding.positions.weight", "positions.weight"),
        ("textual.embedding.layer_norm.{p}", "norm.{p}"),
        ("textual.output.bias", "bias"),
        *_direction("textual.transformer.", "rightward."),
        *_direction("backward_textual.transformer.", "leftward."),
    ]
    second = ["visual_projection.*", "embedding.*", "output.*"]
    return KeyMap(rows, ignore=["textual.output.weight", *(f"backward_textual.{name}" for name in second)])


def image_spec(cfg: VirTexConfig) -> ImageSpec:
    """Shorter side an eighth above the crop, bilinear, ImageNet's mean and deviation."""
    size = cfg.image_size
    return replace(resnet.image_spec(cfg.image), size=(size, size), side=round(size * 256 / 224))


def text_spec(cfg: VirTexConfig) -> TextSpec:
    """Lower case without accents; captions begin with the start token and end with the end token."""
    return TextSpec(
        context=cfg.text.context,
        vocab_size=cfg.text.vocab_size,
        generates=True,
        pad_id=cfg.pad_id,
        bos_id=cfg.start_id,
        eos_id=cfg.end_id,
        lower=True,
        strip_accents=True,
        truncate=True,
    )


def example(config: VirTexConfig, rows: int, *, prompt: int = 1, answer: int = 29) -> dict[str, Any]:
    """Noise and random captions, as many tokens as there are positions at most."""
    random, text = generator(), config.text
    pixels = torch.randn(rows, 3, config.image_size, config.image_size, generator=random)
    if config.head == "labels":
        return {"pixels": pixels, "targets": torch.randint(text.vocab_size, (rows, 5), generator=random)}
    prompt = min(prompt, text.context - 1)
    answer = min(answer, text.context + 1 - prompt)
    words = torch.randint(4, text.vocab_size, (rows, prompt + answer), generator=random)
    words[:, 0] = config.start_id
    if config.head == "masked words":
        words = words[:, : text.context]
        blank = torch.arange(words.shape[1]) % 7 == 1
        tokens = words.masked_fill(blank, config.mask_id)
        return {"pixels": pixels, "tokens": tokens, "targets": words.masked_fill(~blank, IGNORED)}
    return {"pixels": pixels, "tokens": words[:, :prompt], "targets": words[:, prompt:].contiguous()}


SYSTEM = System(
    name="virtex",
    network=VirTex,
    config=VirTexConfig,
    presets=PRESETS,
    layouts={
        "transformers": Layout(
            name="transformers", keys=lambda cfg: OwnNames(), read_config=read_config, write_config=write_config
        ),
        "virtex": Layout(
            name="virtex",
            keys=keys,
            config_file=None,
            recognises=lambda names: any(name.startswith("textual.output.") for name in names),
            infer_config=infer_config,
        ),
    },
    tasks=lambda cfg: frozenset({"caption", "stream"} if cfg.head == "captions" else ()),
    prompts=Prompts(caption=""),
    decoding={"caption": {"strategy": "beam", "num_beams": 5, "length_penalty": 0.0, "max_new_tokens": 30}},
    objective=lambda cfg: "label set" if cfg.head == "labels" else "captions both ways",
    example=example,
    image_spec=image_spec,
    any_image_size=True,
    text_spec=text_spec,
)
