"""VisualBERT: the words of a text and the regions of an image go through one BERT together.

Li et al., "VisualBERT: A Simple and Performant Baseline for Vision and Language", 2019.

    [CLS] words [SEP] (words [SEP])  regions
    └── word + position + segment ┘  └ projection + segment + position 0 ┘     everybody sees everybody
"""

from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from rebus.backbones.examples import example_pixels, generator
from rebus.backbones.text import bert
from rebus.backbones.text.bert import BERT, bert_block, visible
from rebus.backbones.vision import resnet
from rebus.backbones.vision.resnet import ResNet, ResNetConfig
from rebus.backbones.vision.vit import ViT, ViTConfig
from rebus.core.errors import BadRegions, BadText, UnsupportedTask, UsageError
from rebus.core.labels import IGNORED, OF_READERS
from rebus.core.outputs import Choices, Reading
from rebus.core.specs import ImageSpec, Prompts, TextSpec
from rebus.core.system import Companion, Layout, System
from rebus.models.masked_lm.visualbert_config import (
    NUM_BOX_INPUTS,
    TASKS,
    Head,
    infer_mmf,
    infer_original,
    read_transformers,
    write_transformers,
)
from rebus.models.masked_lm.visualbert_config import PRESETS as PRESETS
from rebus.models.masked_lm.visualbert_config import VisualBERTConfig as VisualBERTConfig
from rebus.models.masked_lm.visualbert_heads import BlankHead, ChoiceHead, PhraseHead
from rebus.models.masked_lm.visualbert_layouts import is_mmf, is_original, keys, mmf_keys, original_keys
from rebus.weights.companions import read_answers

CONTEXT = 128  # tokens of a text in all the paper's runs, of the 512 positions that BERT has


class States(NamedTuple):
    """What was read: `text` (T, L, D) and `regions` (T, R, D) after the last block, which of them are real, and where
    the regions are, in shares of the image."""

    text: Float[Tensor, "T L D"]
    text_mask: Bool[Tensor, "T L"]
    regions: Float[Tensor, "T R D"]
    region_mask: Bool[Tensor, "T R"]
    boxes: Float[Tensor, "T R 4"] | None


class VisualBERT(nn.Module):
    def __init__(self, cfg: VisualBERTConfig):
        super().__init__()
        self.cfg = cfg
        width = cfg.text.width
        self.text = BERT(cfg.text)
        self.image = None if cfg.image is None else _grid(cfg.image)
        self.region_proj = nn.Linear(cfg.region_width, width)
        self.region_types = nn.Embedding(cfg.text.num_types, width)
        self.region_positions = nn.Embedding(cfg.text.context, width)  # only the first is ever used
        self.joint = bert_block(cfg.text) if cfg.late_fusion else None
        blanks = cfg.head in ("pretraining", "phrases")
        self.blanks = BlankHead(cfg.text) if blanks else None
        self.match = nn.Linear(width, 2) if blanks else None
        outputs = {"answers": cfg.num_answers, "verdict": 2, "choices": 1}
        choice = partial(ChoiceHead, cfg.text) if cfg.choice_transform else partial(nn.Linear, width)
        self.choice = choice(outputs[cfg.head]) if cfg.head in outputs else None
        self.phrases = PhraseHead(width, width // cfg.text.num_heads) if cfg.head == "phrases" else None
        self.init_weights()
        self._freeze_unread()

    def init_weights(self) -> None:
        """As BERT; segments and positions of regions begin as those of words, as in the original code."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear) and not name.startswith("image."):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        with torch.no_grad():
            self.region_types.weight.copy_(self.text.types.weight)
            self.region_positions.weight.copy_(self.text.positions.weight)

    def _freeze_unread(self) -> None:
        """Weights that the releases hold and no loss of this head reaches."""
        unread: list[nn.Module | None] = []
        if self.cfg.head in ("answers", "phrases"):
            unread.append(self.text.pooler)
        if self.phrases is not None:
            unread += [self.blanks, self.match, self.phrases.v]
        for module in unread:
            if module is not None:
                module.requires_grad_(False)

    def forward(self, *, phrase_at: Int[Tensor, "T Q"] | None = None, **batch: Tensor) -> Reading | Choices:
        """`Reading` for the head "pretraining", else `Choices`; inputs as in `read`.

        tokens of the head "choices": (B, C, L), one row for each choice. `phrase_at`: of the head "phrases", the token
        at which each phrase is read (its last word piece), −1 for none; by default the last before [SEP].
        What a batch holds for the objective alone (`blanks`, `fits`, `scores`) changes nothing.
        """
        batch = {name: value for name, value in batch.items() if name not in OF_READERS}
        if self.cfg.head == "choices":
            return self._choose(batch)
        seen = self.read(**batch)
        if self.cfg.head == "answers":  # before [SEP], where [MASK] stands; in MMF the question's last word
            return Choices(self._applied(self.choice, _at(seen.text, _last(seen.text_mask) - 1)))
        if self.phrases is not None:
            if phrase_at is None:
                phrase_at = (_last(seen.text_mask) - 1)[:, None]
            return Choices(self.phrases(seen.text, seen.regions, seen.region_mask, phrase_at))
        pooled = self.text.pool(seen.text, seen.text_mask)
        if self.cfg.head == "verdict":
            return Choices(self._applied(self.choice, pooled))
        assert self.blanks is not None
        return Reading(self.blanks(seen.text, self.text.tokens.weight), self._applied(self.match, pooled))

    def answer_logits(self, **batch: Tensor) -> Float[Tensor, "T A"]:
        """Scores of the listed answers; the first, `<unk>`, stands for all others and is never given."""
        self._check_head("ask", "answers")
        logits = self(**batch).logits
        never = torch.arange(logits.shape[1], device=logits.device) == 0
        return logits.masked_fill(never, -torch.inf)

    def match_logits(self, **batch: Tensor) -> Float[Tensor, "T"]:
        """Log-odds that each text belongs to its image, or that the statement is true of its images."""
        self._check_head("match", "pretraining", "verdict")
        found = self(**batch)
        logits = found.fits if isinstance(found, Reading) else found.logits
        return logits[:, 1] - logits[:, 0]  # 1 is "fits": the other way round than in BERT's next-sentence prediction

    def ground(self, **batch: Tensor) -> tuple[Float[Tensor, "T R"], Float[Tensor, "T R 4"]]:
        """Which region each text, a phrase, means: probabilities, and the boxes in shares of the image.

        Raises `BadRegions` where the features come without boxes.
        """
        self._check_head("detect", "phrases")
        assert self.phrases is not None
        seen = self.read(**batch)
        if seen.boxes is None:
            raise BadRegions("the features of the regions come without boxes: there is no place that could be named")
        phrase_at = (_last(seen.text_mask) - 1)[:, None]
        logits = self.phrases(seen.text, seen.regions, seen.region_mask, phrase_at)
        return logits[:, 0].softmax(-1), seen.boxes

    def read(
        self,
        *,
        tokens: Int[Tensor, "T L"],
        mask: Bool[Tensor, "T L"] | None = None,
        types: Int[Tensor, "T L"] | None = None,
        owners: Int[Tensor, "T"] | None = None,
        alignment: Int[Tensor, "T R A"] | None = None,
        **image: Tensor,
    ) -> States:
        """Text and regions through the blocks. `image`: as `see` takes it; none for a text alone.

        `types`: segments, 0 for the first text and 1 for the second. `owners`: the row of images of each text.
        `alignment`: which tokens speak of a region, counted from the first real one, −1 for none (VCR).
        """
        real = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        x = self.text.embed(tokens, real, types)
        if not image:
            seen, region_mask, boxes = x[:, :0], real[:, :0], None
        else:
            seen, region_mask, boxes = self.see(**image)
            if owners is not None:
                seen, region_mask, boxes = seen[owners], region_mask[owners], None if boxes is None else boxes[owners]
            if len(seen) != len(x):
                raise BadText(f"{len(x)} texts for {len(seen)} rows of images: `owners` says which each belongs to")
            if alignment is not None:
                seen = seen + self._aligned(alignment)
            seen = self.text.norm(seen)
        everything = torch.cat([real, region_mask], dim=1)
        if self.joint is None:
            x = torch.cat([x, seen], dim=1)
            for block in self.text.blocks:
                x = block(x, visible(everything))
        else:
            for block in self.text.blocks:
                x = block(x, visible(real))
            x = self.joint(torch.cat([x, seen], dim=1), visible(everything))
        length = tokens.shape[1]
        return States(x[:, :length], real, x[:, length:], region_mask, boxes)

    def see(
        self,
        *,
        pixels: Tensor | None = None,
        image_mask: Bool[Tensor, "B N"] | None = None,
        regions: Float[Tensor, "B R F"] | None = None,
        region_mask: Bool[Tensor, "B R"] | None = None,
        region_types: Int[Tensor, "B R"] | None = None,
        boxes: Float[Tensor, "B R 4"] | None = None,
    ) -> tuple[Float[Tensor, "B R D"], Bool[Tensor, "B R"], Float[Tensor, "B R 4"] | None]:
        """Regions as vectors of BERT's width, before the norm; which are real; their boxes.

        Either features of regions (with `boxes` in shares of the image), or pixels (B, 3, H, W), or (B, N, 3, H, W) of
        several images a row. `region_types`: 0 for the first image of a row, 1 for the second. Raises `BadRegions` for
        features of another width than the network was trained with, and for pixels where nothing makes regions of them.
        """
        if pixels is not None:
            regions, boxes, region_mask, region_types = self._regions_of(pixels, image_mask)
        if regions is None:
            raise UsageError("neither pixels nor regions were given")
        if boxes is not None and regions.shape[2] + NUM_BOX_INPUTS == self.cfg.region_width:
            size = boxes[..., 2:] - boxes[..., :2]
            regions = torch.cat([regions, boxes.to(regions.dtype), size.to(regions.dtype)], dim=2)
        if regions.shape[2] != self.cfg.region_width:
            raise BadRegions(
                f"the features of a region are {regions.shape[2]} wide; this network was trained with "
                f"{self.cfg.region_width}: take those of the detector it was trained with"
            )
        kinds = torch.zeros_like(regions[..., 0], dtype=torch.int64) if region_types is None else region_types
        x = self.region_proj(regions) + self.region_types(kinds) + self.region_positions.weight[0]
        real = torch.ones_like(kinds, dtype=torch.bool) if region_mask is None else region_mask
        return x, real, boxes

    def _regions_of(
        self, pixels: Tensor, image_mask: Bool[Tensor, "B N"] | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        if self.image is None:
            raise BadRegions(
                "this network reads features of regions and has nothing that makes them of an image: give it those of "
                "a detector (rebus.RegionFiles), or of a network that embeds regions (embed_regions)"
            )
        rows = pixels[:, None] if pixels.ndim == 4 else pixels
        if rows.ndim != 5:
            raise UsageError(f"images need pixels (B, 3, H, W) or (B, N, 3, H, W); got {tuple(pixels.shape)}")
        number = rows.shape[1]
        found = self.image.region_features(rows.flatten(0, 1), merge=self.cfg.merge)
        padded = (pad_sequence([image[i] for image in found], batch_first=True) for i in range(2))
        boxes, features = (value.unflatten(0, (-1, number)) for value in padded)
        lengths = torch.tensor([len(image.boxes) for image in found], device=pixels.device)
        mask = (torch.arange(boxes.shape[2], device=pixels.device) < lengths[:, None]).unflatten(0, (-1, number))
        if image_mask is not None:
            mask = mask & image_mask[..., None]
        which = torch.arange(number, device=pixels.device).clamp(max=self.cfg.text.num_types - 1)
        kinds = which[None, :, None].expand(mask.shape)
        return features.flatten(1, 2), boxes.flatten(1, 2), mask.flatten(1), kinds.flatten(1)

    def _aligned(self, alignment: Int[Tensor, "T R A"]) -> Float[Tensor, "T R D"]:
        """The mean of the positions of a region's tokens; nothing where there are none."""
        there = alignment >= 0
        total = (self.text.positions(alignment.clamp(min=0)) * there[..., None]).sum(2)
        return total / there.sum(2).clamp(min=1)[..., None]

    def _choose(self, batch: dict[str, Tensor]) -> Choices:
        number = batch["tokens"].shape[1]
        flat = {n: batch.pop(n).flatten(0, 1) for n in ("tokens", "mask", "types", "alignment") if n in batch}
        rows = len(flat["tokens"]) // number
        owners = torch.arange(rows, device=flat["tokens"].device).repeat_interleave(number)
        seen = self.read(**flat, owners=owners, **batch)
        pooled = self.text.pool(seen.text, seen.text_mask)
        return Choices(self._applied(self.choice, pooled).view(rows, number))

    def _applied(self, head: nn.Module | None, x: Tensor) -> Tensor:
        assert head is not None
        found: Tensor = head(x)
        return found

    def _check_head(self, task: str, *heads: Head) -> None:
        if self.cfg.head not in heads:
            raise UnsupportedTask(
                f"{task} expects a VisualBERT with the head {' or '.join(map(repr, heads))}; this one has "
                f"{self.cfg.head!r}"
            )


def _grid(cfg: ViTConfig | ResNetConfig) -> ViT | ResNet:
    """What makes regions of an image."""
    return ViT(cfg) if isinstance(cfg, ViTConfig) else ResNet(cfg)


def _last(real: Bool[Tensor, "T L"]) -> Int[Tensor, "T"]:
    """Where the last real token of each row stands, whichever side is padded."""
    return (real * torch.arange(1, real.shape[1] + 1, device=real.device)).argmax(1)


def _at(x: Float[Tensor, "T L D"], index: Int[Tensor, "T"]) -> Float[Tensor, "T D"]:
    return x[torch.arange(len(x), device=x.device), index.clamp(min=0)]


def image_spec(cfg: VisualBERTConfig) -> ImageSpec | None:
    """As what makes regions of images was trained; None where nothing does."""
    if isinstance(cfg.image, ViTConfig):
        return ImageSpec(size=(cfg.image.image_size, cfg.image.image_size))
    if cfg.image is not None:
        return replace(resnet.image_spec(cfg.image), resize="exact", side=None)  # what stands at the border counts
    return None


def text_spec(cfg: VisualBERTConfig) -> TextSpec:
    """[CLS] text [SEP], lower case. `pad_id` of the released configurations is RoBERTa's; BERT's is 0."""
    return replace(bert.text_spec(cfg.text), context=min(CONTEXT, cfg.text.context), pad_id=0, beside_images=True)


def example(config: VisualBERTConfig, rows: int, *, prompt: int = 20, answer: int = 0) -> dict[str, Tensor]:
    """`rows` texts with an image each, and what the objective of the head compares with."""
    random, text = generator(), config.text
    length = min(prompt + answer, text.context)
    shape = (rows, 4, length) if config.head == "choices" else (rows, length)
    tokens = torch.randint(3, text.vocab_size, shape, generator=random)
    if config.image is None:
        batch = {"regions": torch.randn(rows, 36, config.region_width, generator=random)}
    else:
        batch = example_pixels(config.image, rows, random)
    batch["tokens"] = tokens
    if config.head == "pretraining":
        blank = torch.arange(length) % 7 == 1
        batch["blanks"] = torch.where(blank, tokens, IGNORED)
        batch["fits"] = torch.arange(rows) % 2 == 0
    elif config.head == "phrases":
        batch["phrase_at"] = torch.tensor([[2, 5]]).expand(rows, -1)
        batch["scores"] = torch.full((rows, 2, 36), 1 / 36)
    else:
        number = {"answers": config.num_answers, "verdict": 2, "choices": 4}[config.head]
        batch["scores"] = torch.eye(number)[torch.arange(rows) % number]
    return batch


_PROMPTS = Prompts(ask="{question} ? [MASK]", match="{text}", detect="{phrase}", controls=("[MASK]",), drops=",?")
SYSTEM = System(
    name="visualbert",
    network=VisualBERT,
    config=VisualBERTConfig,
    presets=PRESETS,
    layouts={
        "transformers": Layout(
            name="transformers", keys=keys, read_config=read_transformers, write_config=write_transformers
        ),
        "original": Layout(
            name="original",
            keys=original_keys,
            config_file=None,
            recognises=is_original,
            infer_config=infer_original,
        ),
        "mmf": Layout(
            name="mmf",
            keys=mmf_keys,
            config_file=None,
            recognises=is_mmf,
            infer_config=infer_mmf,
        ),
    },
    tasks=lambda cfg: TASKS[cfg.head],
    prompts=_PROMPTS,
    suited=lambda cfg: {"prompts": replace(_PROMPTS, ask="{question}", controls=())} if cfg.choice_transform else {},
    objective=lambda cfg: "masked lm" if cfg.head == "pretraining" else "soft answers",
    example=example,
    image_spec=image_spec,
    text_spec=text_spec,
    companions={
        "answers": Companion(
            file="answers_vqa.txt",
            load=read_answers,
            tasks=frozenset({"ask"}),
            purpose="there are no answers to pick from: put the list of the network's training beside its weights",
        )
    },
)
