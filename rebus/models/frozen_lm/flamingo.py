"""Flamingo: a frozen language model that looks at images through gated cross-attention between its blocks.

Alayrac et al., "Flamingo: a Visual Language Model for Few-Shot Learning", 2022. Any causal language model and any image
encoder of ours; OpenFlamingo (Awadalla et al., 2023) and IDEFICS (Laurençon et al., 2023) are released ones.

    image ──frozen encoder──▶ features ──resampler──▶ 64 latents ─┐ keys and values, computed once
    <image> a cat <|endofchunk|> <image> a ──▶ block ─ look ─ block ─ look ─ … ──▶ dog

Each token looks at one image alone: the last one before it. So a model trained on five images a text reads dozens.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rebus.backbones.text.causal import Decoder, last_real
from rebus.core.errors import BadText
from rebus.core.outputs import Predictions, Step
from rebus.models.frozen_lm.bridge import GatedCrossAttention, Resampler, Sight
from rebus.models.frozen_lm.flamingo_config import FlamingoConfig
from rebus.nn.cache import Cache
from rebus.nn.image_rows import ImageRows, real_images
from rebus.nn.linear import linear
from rebus.nn.only_shapes import only_shapes


class Read(NamedTuple):
    """What was read: the language model's cache, and of each row the image that it looks at from now on."""

    text: Cache
    sight: Sight | None

    def select(self, rows: Int[Tensor, "R"]) -> "Read":
        return Read(self.text.select(rows), None if self.sight is None else self.sight.select(rows))

    def free(self, rows: Int[Tensor, "R"]) -> "Read":
        return Read(self.text.free(rows), self.sight)

    def put(self, rows: Int[Tensor, "J"], other: "Read", room: int) -> "Read":
        sight = self.sight
        if sight is None and other.sight is not None:
            sight = other.sight.blind(len(self.text.real))
        if sight is not None:
            sight = sight.put(rows, sight.blind(len(rows)) if other.sight is None else other.sight)
        return Read(self.text.put(rows, other.text, room), sight)


class Flamingo(nn.Module):
    """`text` and `image` are trained networks, which stay frozen; what is learned is the resampler, the blocks between,
    and the vectors of the tokens that are new to the language model."""

    def __init__(self, cfg: FlamingoConfig, *, text: Any, image: Any):
        super().__init__()
        self.cfg = cfg
        self.text: Decoder = text.requires_grad_(False)
        self.image = image.requires_grad_(False)
        width, media_width = int(text.cfg.width), int(getattr(image, "width", None) or image.cfg.width)
        self.places = cfg.cross.places(len(text.blocks))
        self.resampler = Resampler(media_width, cfg.resampler)
        self.cross = nn.ModuleList(GatedCrossAttention(width, self.resampler.width, cfg.cross) for _ in self.places)
        self.added = nn.Embedding(len(cfg.added), width)
        untied = getattr(text, "head", None) is not None and cfg.writes_added
        self.added_head = nn.Linear(width, len(cfg.added), bias=False) if untied else None
        self.init_weights()
        self.train(self.training)

    def init_weights(self) -> None:
        """New tokens as language models start theirs. The rest starts itself, with its gates closed."""
        nn.init.normal_(self.added.weight, std=0.02)
        if self.added_head is not None:
            nn.init.normal_(self.added_head.weight, std=0.02)

    @property
    def blocks(self) -> list[nn.Module]:
        """The blocks that are its own (`rebus.nn.blocks`)."""
        return list(self.cross)

    def train(self, mode: bool = True) -> "Flamingo":
        """As any module, but frozen networks always work as they do after training."""
        super().train(mode)
        self.text.eval()
        self.image.eval()
        return self

    def see(self, pixels: Tensor, image_mask: Bool[Tensor, "B N"] | None = None) -> Float[Tensor, "B N Q D"]:
        """pixels (B, 3, H, W), (B, N, 3, H, W) or (B, N, F, 3, H, W) → the latents of each image or clip of F frames;
        zeros where the mask says that there is none."""
        frames = pixels.shape[2] if pixels.ndim == 6 else 1
        features = self._features(real_images(pixels, image_mask))
        latents = self.resampler(features.unflatten(0, (-1, frames)))
        if image_mask is None:
            return latents.unflatten(0, (len(pixels), -1))
        return latents.new_zeros(*image_mask.shape, *latents.shape[1:]).index_put((image_mask,), latents)

    def _features(self, pixels: Float[Tensor, "M 3 Y X"]) -> Float[Tensor, "M P D"]:
        """A grid of features row by row, of transformers before their last norm, as OpenFlamingo was trained."""
        if hasattr(self.image, "feature_map"):
            grid: Tensor = self.image.feature_map(pixels)
            return grid.flatten(2).mT
        features: Tensor = self.image.features(self.image.embed(pixels))
        return features if self.cfg.class_token or not self.image.cfg.class_token else features[:, 1:]

    def look_at(
        self,
        latents: Float[Tensor, "B N Q D"],
        image_mask: Bool[Tensor, "B N"] | None = None,
        owners: Int[Tensor, "T"] | None = None,
    ) -> Sight:
        """Images as the blocks between read them; `owners` says which row of images each text belongs to."""
        rows, number = latents.shape[:2]
        there = torch.ones(rows, number, dtype=torch.bool, device=latents.device) if image_mask is None else image_mask
        order = torch.where(there, there.long().cumsum(dim=1), -1)
        flat = latents.flatten(1, 2)
        sight = Sight(tuple(block.attn.keys_values(flat) for block in self._cross()), order)
        return sight if owners is None else sight.select(owners)

    def _cross(self) -> list[GatedCrossAttention]:
        return list(self.cross)  # type: ignore[arg-type]

    def embed(self, tokens: Int[Tensor, "B S"]) -> Float[Tensor, "B S D"]:
        """The tokens' vectors, those of new tokens out of the table of these."""
        first, number = self.cfg.vocabulary, len(self.cfg.added)
        new = tokens >= first
        known = self.text.embed(tokens.masked_fill(new, 0))
        return torch.where(new[..., None], self.added((tokens - first).clamp(0, number - 1)), known)

    def logits(self, hidden: Float[Tensor, "*B D"]) -> Float[Tensor, "*B V"]:
        """Scores over the language model's vocabulary, then of the new tokens."""
        known = self.text.logits(hidden)[..., : self.cfg.vocabulary]
        if not self.cfg.writes_added:
            new = known.new_full((*known.shape[:-1], len(self.cfg.added)), -torch.inf)
        elif self.added_head is None:
            new = linear(hidden, self.added.weight)
        else:
            new = self.added_head(hidden)
        return torch.cat([known, new], dim=-1)

    def decode(
        self,
        x: Float[Tensor, "B S D"],
        real: Bool[Tensor, "B S"],
        sight: Sight | None,
        time: Int[Tensor, "B S"],
        cache: Cache | None = None,
    ) -> tuple[Float[Tensor, "B S D"], Cache | None]:
        """The language model's blocks and those between them. `time`: how many images were begun up to each token."""
        x, blocks, cache = self.text.lay_out(x, real, cache)
        mask = None if sight is None else sight.mask(time)
        between = dict(zip(self.places, self.cross, strict=True))
        for i, block in enumerate(blocks):
            if i in between:
                seen = None if sight is None else sight.seen[self.places.index(i)]
                x = between[i](x, seen, mask)
            x = block(x)
        return self.text.norm(x), cache

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
        the token after each of `tokens`, (T, L, V).

        Images as in `see`, `owners` as in `look_at`. Raises `BadText` where a text has not as many image tokens as its
        row has images, or is longer than the context.
        """
        real = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        length = tokens.shape[1]
        sight = self._sight(tokens, real, pixels, image_mask, owners)
        given = tokens[:, :0] if targets is None else targets[:, :-1]
        self.text.check_length(length, given.shape[1])
        time = torch.cat([self._time(tokens, real), torch.zeros_like(given)], dim=1).cumsum(dim=1)
        x = self.embed(torch.cat([tokens, given.clamp(min=0)], dim=1))
        hidden, _ = self.decode(x, torch.cat([real, given >= 0], dim=1), sight, time)
        if targets is not None:
            hidden = torch.cat([last_real(hidden[:, :length], real)[:, None], hidden[:, length:]], dim=1)
        return Predictions(self.logits(hidden), hidden)

    def start(
        self,
        *,
        room: int,
        pixels: Tensor | None = None,
        image_mask: Bool[Tensor, "B N"] | None = None,
        tokens: Int[Tensor, "T L"],
        mask: Bool[Tensor, "T L"] | None = None,
        owners: Int[Tensor, "T"] | None = None,
        after: Read | None = None,
    ) -> Step:
        """Read images and prompts; the cache has space for `room` tokens of answer.

        `after`: what all prompts begin with, read before and a single row, whose images are not among `pixels`.
        """
        real = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        sight = self._sight(tokens, real, pixels, image_mask, owners)
        before, more = 0, tokens.shape[1] + room
        if after is None:
            cache = self.text.empty_cache(len(tokens), more)
        else:
            before = after.text.real.shape[1]
            after = after.select(torch.zeros(len(tokens), dtype=torch.int64, device=tokens.device))
            cache = after.text.longer(more)
        self.text.check_length(before + tokens.shape[1], room)
        if after is not None and after.sight is not None:
            sight = after.sight if sight is None else after.sight.then(sight)
        return self._read(tokens, real, sight, cache)

    def step(self, token: Int[Tensor, "B"], cache: Read) -> Step:
        """One more token, which looks at what the prompt ended with."""
        x, real = self.embed(token[:, None]), torch.ones_like(token[:, None], dtype=torch.bool)
        hidden, text = self.decode(x, real, cache.sight, torch.zeros_like(token[:, None]), cache.text)
        assert text is not None
        return Step(self.logits(hidden[:, 0]), hidden[:, 0], Read(text, cache.sight))

    def _read(self, tokens: Tensor, real: Tensor, sight: Sight | None, cache: Cache) -> Step:
        time = self._time(tokens, real).cumsum(dim=1)
        hidden, text = self.decode(self.embed(tokens), real, sight, time, cache)
        assert text is not None
        last = last_real(hidden, real)
        return Step(self.logits(last), last, Read(text, None if sight is None else sight.last(time[:, -1])))

    def _time(self, tokens: Tensor, real: Tensor) -> Int[Tensor, "T L"]:
        """1 where an image begins."""
        return ((tokens == self.cfg.image_id) & real).long()

    def _sight(
        self, tokens: Tensor, real: Tensor, pixels: Tensor | None, image_mask: Tensor | None, owners: Tensor | None
    ) -> Sight | None:
        rows = (
            None
            if pixels is None
            else ImageRows.of(pixels[:, :, 0] if pixels.ndim == 6 else pixels, image_mask, owners)
        )
        marks = self._time(tokens, real).sum(dim=1)
        self._check_marks(marks, torch.zeros_like(marks) if rows is None else rows.of_texts())
        return None if pixels is None else self.look_at(self.see(pixels, image_mask), image_mask, owners)

    def _check_marks(self, marks: Int[Tensor, "T"], images: Int[Tensor, "R"]) -> None:
        if torch.compiler.is_compiling() or only_shapes(marks) or only_shapes(images):
            return
        if len(images) != len(marks):
            raise BadText(
                f"{len(marks)} prompts for {len(images)} rows of images: `owners` says which row each prompt belongs to"
            )
        wrong = (images != marks).nonzero()
        if len(wrong):
            row = int(wrong[0])
            if int(images[row]) < 0:
                raise BadText(f"owners[{row}]: there is no such row of images")
            raise BadText(f"row {row}: {int(marks[row])} image tokens in the text, and {int(images[row])} images")
