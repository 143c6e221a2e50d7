"""MAGIC: a language model that never saw an image describes one, guided word by word by a dual encoder.

Su et al., "Language Models Can See: Plugging Visual Controls in Text Generation", 2022. Both networks stay as they are.
The language model proposes its k most probable tokens; each is weighed by its probability, by how unlike what was said
before it is, and by how well the text with it goes with the image (eq. 4). Any causal language model goes with any dual
encoder: text goes from one to the other as a string.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from rebus.codec.guided_processor import GuidedProcessor, guide_text
from rebus.codec.processor import Processor, load_processor
from rebus.codec.text import TextPipeline
from rebus.core.capabilities import EmbedsImages, EmbedsText, WritesText
from rebus.core.config import from_dict, to_dict
from rebus.core.errors import BadConfig
from rebus.core.outputs import Predictions, Step
from rebus.core.released_config import HARMLESS
from rebus.core.specs import ImageSpec, Prompts, TextSpec
from rebus.core.system import Assembled, Find, Layout, Part, System
from rebus.weights.keymap import OwnNames


@dataclass(frozen=True, kw_only=True)
class MAGICConfig:
    """Two networks, and how text is decoded where a call says nothing else: the paper's settings for COCO."""

    text: Part  # a causal language model
    guide: Part  # a dual encoder
    guide_scale: float | None = None  # by which cosines are multiplied before the softmax; None: the guide's own
    prompt: str = ""  # what captions continue
    start_id: int | None = None  # the token before each prompt, of a language model that was adapted with one
    closes_prompt: bool = False  # whether a prompt is a text of its own, with an end token (the titles of stories)
    k: int = 45
    alpha: float = 0.1
    beta: float = 2.0
    min_p: float = 0.0
    plain_captions: bool = False  # whether captions hold tokens like `PLAIN` alone
    max_new_tokens: int = 15  # the paper's 16 count the start token
    max_sentences: int | None = None
    stop: str | None = None

    def __post_init__(self) -> None:
        for name, holds in (
            ("guide_scale above 0", self.guide_scale is None or self.guide_scale > 0),
            ("k above 0", self.k > 0),
            ("alpha from 0 to 1", 0 <= self.alpha <= 1),
            ("beta of 0 or more", self.beta >= 0),
            ("min_p from 0 to 1", 0 <= self.min_p <= 1),
            ("max_new_tokens above 0", self.max_new_tokens > 0),
            ("max_sentences above 0", self.max_sentences != 0),
        ):
            if not holds:
                raise BadConfig(f"magic: expected {name}; got {getattr(self, name.split()[0])}")


# Tokens of words in lower case, full stops, and words that captions begin with: no digits, quotes, names or line ends.
PLAIN = r" ?[a-z]+| ?[.]| ?(?:A|An|The|Two|Three|Four|Some|Several|Many|People|Children|Men|Women)"
_SMALL = Part(system="gpt2", config={"vocab_size": 50_259})  # two were added: the start and the padding of a text
_B32 = Part(system="clip", config={})
_TINY_GPT2 = {"width": 24, "num_layers": 2, "num_heads": 3, "mlp_width": 40, "vocab_size": 96, "context": 64}
_TINY_ENCODER = {"width": 24, "num_layers": 1, "num_heads": 2, "mlp_width": 32}
_TINY_CLIP = {
    "image": {**_TINY_ENCODER, "patch_size": 8, "image_size": 24, "class_token": True},
    "text": {**_TINY_ENCODER, "vocab_size": 64, "context": 12},
    "embed": 16,
}
PRESETS = {
    "tiny": MAGICConfig(text=Part(system="gpt2", config=_TINY_GPT2), guide=Part(system="clip", config=_TINY_CLIP), k=4),
    "coco": MAGICConfig(text=_SMALL, guide=_B32, start_id=50_257),
    "flickr30k": MAGICConfig(text=_SMALL, guide=_B32, start_id=50_257, k=25, max_new_tokens=19),
    "stories": MAGICConfig(
        text=Part(system="gpt2", config={"vocab_size": 50_258}),
        guide=_B32,
        closes_prompt=True,
        k=5,
        alpha=0.6,
        beta=0.15,
        max_new_tokens=100,
        max_sentences=5,
    ),
}


class Seen(NamedTuple):
    """The language model's cache, and for each of its rows what the guide saw, (B, E); None without any image."""

    text: Any
    image: Tensor | None

    def select(self, rows: Int[Tensor, "R"]) -> "Seen":
        return Seen(self.text.select(rows), None if self.image is None else self.image[rows])

    def free(self, rows: Int[Tensor, "R"]) -> "Seen":
        return Seen(self.text.free(rows), self.image)

    def put(self, rows: Int[Tensor, "J"], other: "Seen", room: int) -> "Seen":
        image = self.image
        if image is None and other.image is not None:
            image = other.image.new_zeros(len(self.text.real), other.image.shape[1])
        if image is not None:
            image = image.index_copy(0, rows, image[: len(rows)] * 0 if other.image is None else other.image)
        return Seen(self.text.put(rows, other.text, room), image)


class MAGIC(nn.Module):
    """Images and prompts → tokens of a language model, and how well a text goes with the images.

    `text` and `guide` are trained networks: one with `start` and `step`, one with `embed_image` and `embed_text`.
    """

    def __init__(self, cfg: MAGICConfig, *, text: Any, guide: Any):
        super().__init__()
        self.cfg = cfg
        self.text = text
        self.guide = guide

    def forward(
        self,
        tokens: Int[Tensor, "B L"],
        mask: Bool[Tensor, "B L"] | None = None,
        targets: Int[Tensor, "B S"] | None = None,
        pixels: Tensor | None = None,
    ) -> Predictions:
        """What the language model alone predicts: images steer the choice of tokens, not their probabilities."""
        predictions: Predictions = self.text(tokens=tokens, mask=mask, targets=targets)
        return predictions

    def start(
        self,
        *,
        room: int,
        tokens: Int[Tensor, "B L"],
        mask: Bool[Tensor, "B L"] | None = None,
        pixels: Tensor | None = None,
        image_mask: Bool[Tensor, "B N"] | None = None,
        **patches: Tensor,
    ) -> Step:
        """Read prompts, a common one once, and see images. `patches`: what a guide takes beside `pixels`."""
        image = None if pixels is None else self._see(pixels, image_mask, patches)
        alike = len(tokens) > 1 and bool((tokens == tokens[:1]).all()) and (mask is None or bool(mask.all()))
        if not alike:
            step = self.text.start(room=room, tokens=tokens, mask=mask)
            return Step(step.logits, step.hidden, Seen(step.cache, image))
        step = self.text.start(room=room, tokens=tokens[:1])
        rows = torch.zeros(len(tokens), dtype=torch.int64, device=tokens.device)
        return Step(step.logits[rows], step.hidden[rows], Seen(step.cache.select(rows), image))

    def step(self, token: Int[Tensor, "B"], cache: Seen) -> Step:
        """One more token of the language model."""
        step = self.text.step(token, cache.text)
        return Step(step.logits, step.hidden, Seen(step.cache, cache.image))

    def read_text(self, tokens: Int[Tensor, "T L"], mask: Bool[Tensor, "T L"] | None = None) -> Float[Tensor, "T E"]:
        """Texts as the guide reads them."""
        vectors: Tensor = self.guide.embed_text(tokens, mask)
        return vectors

    def judge(self, cache: Seen, texts: Float[Tensor, "R K E"]) -> Float[Tensor, "R K"]:
        """Cosines of each row's image with its texts, times the scale; zeros where there was no image."""
        if cache.image is None:
            return texts.new_zeros(texts.shape[:2])
        scale = getattr(self.guide, "scale", 1.0) if self.cfg.guide_scale is None else self.cfg.guide_scale
        return scale * (texts @ cache.image[:, :, None]).squeeze(-1)

    def _see(self, pixels: Tensor, image_mask: Tensor | None, patches: Mapping[str, Tensor]) -> Float[Tensor, "B E"]:
        """The guide's vector of each row's image, or of several the mean; zeros for a row without any."""
        if image_mask is None:
            vectors: Tensor = self.guide.embed_image(pixels, **patches)
            return vectors
        each = self.guide.embed_image(
            pixels[image_mask], **{name: value[image_mask] for name, value in patches.items()}
        )
        rows = image_mask.nonzero()[:, 0]
        return F.normalize(each.new_zeros(len(pixels), each.shape[1]).index_add(0, rows, each), dim=-1)


def decoding(cfg: MAGICConfig) -> dict[str, Any]:
    """The options of `rebus.generation` that a configuration stands for."""
    names = ("k", "alpha", "beta", "min_p", "max_new_tokens", "max_sentences", "stop")
    return {"strategy": "contrastive", **{name: getattr(cfg, name) for name in names}}


def join(cfg: MAGICConfig, text: Processor, guide: Processor) -> GuidedProcessor:
    """The processor of a language model and that of a dual encoder as one."""
    words = text.text
    if words is not None:
        end = words.spec.eos_id if cfg.closes_prompt else None
        closing = "" if end is None else words.tokenizer.piece_of(end) or ""
        bos = words.spec.bos_id if cfg.start_id is None else cfg.start_id
        words = TextPipeline(words.tokenizer, replace(words.spec, bos_id=bos, separator=closing))
    return GuidedProcessor(guide.image, words, guide.text, sources={**text.sources, **guide.sources})


def _assemble_starter() -> Assembled:
    from rebus.models.training_free.magic_starter import assemble_starter  # which builds on this file

    return assemble_starter()


@cache
def joined(find: Find) -> System:
    """The system, given the look-up of those that its parts are of."""

    def part(cfg: MAGICConfig, name: str) -> tuple[System, Any]:
        return system.part(cfg, name)

    def image_spec(cfg: MAGICConfig) -> ImageSpec:
        guide, own = part(cfg, "guide")
        found = guide.image_spec(own) if guide.image_spec is not None else None
        assert found is not None, "a dual encoder sees images"
        return found

    def text_spec(cfg: MAGICConfig) -> TextSpec:
        text, own = part(cfg, "text")
        assert text.text_spec is not None
        return text.text_spec(own)

    def suited(cfg: MAGICConfig) -> dict[str, Any]:
        options = decoding(cfg)
        return {
            "prompts": Prompts(caption=cfg.prompt, complete="{document} " if cfg.closes_prompt else "{document}"),
            "decoding": {"caption": options | ({"allowed": PLAIN} if cfg.plain_captions else {}), "complete": options},
            "any_image_size": part(cfg, "guide")[0].any_image_size,
        }

    def read_processor(folder: Path, cfg: MAGICConfig) -> GuidedProcessor:
        guide, own = part(cfg, "guide")
        assert guide.text_spec is not None
        found = load_processor(folder, image_spec(cfg), text_spec(cfg))
        own_text = guide_text(folder, guide.text_spec(own))
        return join(cfg, found, Processor(found.image, own_text))

    def example(cfg: MAGICConfig, rows: int, *, prompt: int = 16, answer: int = 16) -> dict[str, Tensor]:
        guide, own = part(cfg, "guide")
        assert guide.example is not None
        pixels = {k: v for k, v in guide.example(own, rows).items() if k not in ("tokens", "mask")}
        vocabulary = part(cfg, "text")[1].vocab_size
        tokens = torch.randint(3, vocabulary, (rows, prompt + answer), generator=torch.Generator().manual_seed(0))
        return {**pixels, "tokens": tokens[:, :prompt], "targets": tokens[:, prompt:].contiguous()}

    def read_config(data: Mapping[str, Any]) -> MAGICConfig:
        fields = {name: value for name, value in data.items() if name not in HARMLESS}
        cfg = from_dict(MAGICConfig, fields, "config.json")
        text, guide = part(cfg, "text")[0], part(cfg, "guide")[0]
        if text.image_spec is not None or not issubclass(text.network, WritesText):  # type: ignore[arg-type]
            raise BadConfig(f"config.json: text is a causal language model; {text.name} is none")
        if not issubclass(guide.network, EmbedsImages) or not issubclass(guide.network, EmbedsText):  # type: ignore[arg-type]
            raise BadConfig(f"config.json: guide is a dual encoder; {guide.name} is none")
        return cfg

    system = System(
        name="magic",
        network=MAGIC,
        config=MAGICConfig,
        presets=PRESETS,
        layouts={
            "transformers": Layout(
                name="transformers", keys=lambda cfg: OwnNames(), read_config=read_config, write_config=write_config
            )
        },
        prompts=Prompts(caption="", complete="{document}"),
        example=example,
        image_spec=image_spec,
        text_spec=text_spec,
        assemble={"starter": _assemble_starter},
        parts=("text", "guide"),
        find=find,
        join=join,
        read_processor=read_processor,
        suited=suited,
    )
    return system


def write_config(cfg: MAGICConfig) -> dict[str, Any]:
    """`config.json`: model_type "magic", both networks and the settings."""
    return {"model_type": "magic", "architectures": ["MAGIC"], **to_dict(cfg)}


SYSTEM = joined
