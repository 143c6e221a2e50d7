"""A table of pairs that makes two spaces comparable: row i of both sides is one image and its caption.

Norelli et al., "ASIF: Coupled Data Turns Unimodal Models to Multimodal Without Training", 2023, Sec. 3; the formula is
in `relative.py`. Pairs are added, removed and weighed by id in time that does not grow with the table: a removed pair
leaves an empty place, later ones go into a block with room to spare.
"""

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rebus.core.errors import BadConfig, NotFinite, UsageError, unknown
from rebus.models.training_free.anchors import BLOCK_BYTES, Anchors, Nearest
from rebus.models.training_free.names import Named, Names, StoredNames
from rebus.models.training_free.relative import Relative, relative, score

_SPARE = 64  # rows for which there is room at least when pairs are added
_COMPARED = 5_000  # ids among which the nearest to a misspelt one is looked for
_SIDES = ("image", "text", "bias")


@dataclass(frozen=True, kw_only=True)
class PairsConfig:
    """`ids` and `captions`: a name and a text of each pair held in memory; captions may be left out."""

    ids: tuple[str, ...]
    captions: tuple[str, ...] = ()
    image_width: int
    text_width: int
    k: int = 800  # the released code; the paper's p
    p: float | int = 8.0
    weight: float | int = 1.0  # of this table's score among those of several
    weighted: bool = False  # whether pairs have weights of their own
    # "classifier": the rows of the image side are those of a classifier, and the similarity is its softmax.
    image_similarity: Literal["cosine", "classifier"] = "cosine"
    temperature: float | int = 1.0  # of that softmax


class Contribution(NamedTuple):
    """What one pair adds to a score, its similarities to the image and to the text, and how much it counts."""

    id: str
    caption: str
    image_similarity: float
    text_similarity: float
    contribution: float
    weight: float = 1.0


class Stored(NamedTuple):
    """Pairs in mapped files: both sides, the names, and weights where pairs have their own."""

    image: Anchors
    text: Anchors
    names: StoredNames
    weights: Tensor | None = None


class Pairs(nn.Module):
    """Pairs in memory, in front of them those of mapped files if there are any; edited by id.

    Each pair has a place. `image`, `text` and `bias` are the rows in memory that were there from the start.
    """

    image: Tensor
    text: Tensor
    bias: Tensor | None
    weights: Tensor | None  # (places,) float32; None: every pair counts once

    def __init__(self, cfg: PairsConfig, stored: Stored | None = None):
        super().__init__()
        self._settings = replace(cfg, ids=(), captions=())
        self.stored = stored
        self.block_bytes = BLOCK_BYTES  # working memory of a search; the answer does not depend on it
        mapped = 0 if stored is None else len(stored.image)
        self.names = Names(cfg.ids, cfg.captions, None if stored is None else stored.names)
        self.register_buffer("image", torch.zeros(len(cfg.ids), cfg.image_width))
        self.register_buffer("text", torch.zeros(len(cfg.ids), cfg.text_width))
        classifier = cfg.image_similarity == "classifier"
        self.register_buffer("bias", torch.zeros(len(cfg.ids)) if classifier else None)
        self.register_buffer("weights", torch.ones(mapped + len(cfg.ids)) if cfg.weighted else None)
        if stored is not None and stored.weights is not None:
            self.weights = torch.cat([stored.weights, torch.ones(len(cfg.ids))])
        if classifier and stored is not None:
            raise UsageError("rows of a classifier are kept in memory; stored pairs are compared by cosine")
        self.kept = torch.ones(mapped + len(cfg.ids), dtype=torch.bool, device="cpu")
        self._num_kept = len(self.kept)
        self._later: dict[str, Tensor] = {}  # rows that were added, with room for more
        self._num_later = 0

    @classmethod
    def of(
        cls,
        image: Float[Tensor, "N D"],
        text: Float[Tensor, "M E"],
        *,
        k: int = 800,
        p: float | int = 8.0,
        ids: Sequence[str] | None = None,
        captions: Sequence[str] = (),
        weight: float | int = 1.0,
    ) -> "Pairs":
        """Two matrices of embeddings, row i of both from one pair. Ids are the row numbers unless given."""
        if len(image) != len(text):
            raise UsageError(f"pairs need as many images as texts; got {len(image):,} and {len(text):,}")
        names = tuple(map(str, range(len(image)))) if ids is None else tuple(ids)
        cfg = PairsConfig(
            ids=names,
            captions=tuple(captions),
            image_width=image.shape[1],
            text_width=text.shape[1],
            k=k,
            p=p,
            weight=weight,
        )
        _check_names(names, captions, len(image))
        pairs = cls(cfg)
        pairs.image, pairs.text = image.detach(), text.detach()
        return pairs

    @property
    def cfg(self) -> PairsConfig:
        """The settings with the names of the pairs in memory that count; it takes as long as there are names."""
        rows: list[int] = self.kept[self.names.num_stored :].nonzero()[:, 0].tolist()
        captions = tuple(self.names.captions[row] for row in rows) if self.names.captions else ()
        return replace(
            self._settings,
            ids=tuple(self.names.ids[row] for row in rows),
            captions=captions if any(captions) else (),
            weighted=self.weights is not None,
        )

    @property
    def k(self) -> int:
        return self._settings.k

    @property
    def p(self) -> float | int:
        return self._settings.p

    @property
    def weight(self) -> float | int:
        """Of this table's score among those of several."""
        return self._settings.weight

    def __len__(self) -> int:
        """Pairs that count: the length of a dense description."""
        return self._num_kept

    def places(self) -> list[int]:
        """Those of the pairs that count, in order."""
        found: list[int] = self.kept.nonzero()[:, 0].tolist()
        return found

    def side(self, name: Literal["image", "text"]) -> Anchors:
        """The rows of one side, mapped ones first."""
        memory = self._in_memory(name)
        kept = None if len(self) == len(self.kept) else self.kept
        if self.stored is None:
            return Anchors(memory, kept=kept)
        mapped: Anchors = getattr(self.stored, name)
        return Anchors([*mapped.shards, *memory], [*mapped.screens, *[None] * len(memory)], kept, mapped.release)

    def _in_memory(self, name: str) -> list[Tensor]:
        first: Tensor = getattr(self, name)
        return [first, self._later[name][: self._num_later]] if self._num_later else [first]

    def nearest_images(self, vectors: Float[Tensor, "B D"], k: int | None = None) -> Nearest:
        """The pairs whose images are most like each vector."""
        _check_width("image", vectors, self._settings.image_width)
        if self.bias is not None:
            return self._likeliest(vectors, k or self.k)
        return self.side("image").nearest(vectors, k or self.k, self.block_bytes)

    def nearest_texts(self, vectors: Float[Tensor, "T D"], k: int | None = None) -> Nearest:
        """The pairs whose captions are most like each vector."""
        _check_width("text", vectors, self._settings.text_width)
        return self.side("text").nearest(vectors, k or self.k, self.block_bytes)

    def relative(self, nearest: Nearest, p: float | int | None = None) -> Relative:
        """What is nearest as a unit vector over the pairs."""
        kept = None if len(self) == len(self.kept) else self.kept
        return relative(nearest, self.p if p is None else p, len(self.kept), self.weights, kept)

    def describe_images(self, vectors: Float[Tensor, "B D"]) -> Relative:
        """Images, as the image encoder sees them, as unit vectors over the pairs."""
        return self.relative(self.nearest_images(vectors))

    def describe_texts(self, vectors: Float[Tensor, "T D"]) -> Relative:
        """Texts, as the text encoder reads them, as unit vectors over the pairs."""
        return self.relative(self.nearest_texts(vectors))

    def forward(self, image: Float[Tensor, "B D"], text: Float[Tensor, "T E"]) -> Float[Tensor, "B T"]:
        """Scores in [0, 1] of images against texts, both as their encoders gave them."""
        return score(self.describe_images(image), self.describe_texts(text))

    def explain(
        self, image: Float[Tensor, "D"], text: Float[Tensor, "E"], top: int | None = None
    ) -> list[Contribution]:
        """The pairs that make the score of an image and a text, largest first; together they are the score."""
        seen, read = self.nearest_images(image[None]), self.nearest_texts(text[None])
        images, texts = self.relative(seen), self.relative(read)
        parts = zip(texts.at[0].tolist(), texts.value[0].tolist(), read.similarity[0].tolist(), strict=True)
        of_text = {i: (value, like) for i, value, like in parts if value}
        found = []
        for i, value, like in zip(
            images.at[0].tolist(), images.value[0].tolist(), seen.similarity[0].tolist(), strict=True
        ):
            if value and i in of_text:
                weight = 1.0 if self.weights is None else float(self.weights[i])
                found.append(Contribution(*self.name(i), like, of_text[i][1], value * of_text[i][0], weight))
        return sorted(found, key=lambda c: -c.contribution)[:top]

    def name(self, place: int) -> Named:
        """Id and caption of a pair by its place."""
        return self.names[place]

    @property
    def ids(self) -> list[str]:
        """Ids of the pairs that count, in order."""
        return [self.name(place)[0] for place in self.places()]

    def place(self, name: str) -> int:
        """The place of an id. Raises `UnknownName` with the nearest ones."""
        found = self._find(name)
        if found is None:
            raise unknown("anchor", name, self.some_ids())
        return found

    def has(self, name: str) -> bool:
        """Whether there is a pair of that id."""
        return self._find(name) is not None

    def some_ids(self) -> list[str]:
        """The first thousands of ids: enough to look for the nearest to a misspelt one."""
        there = (place for place in range(len(self.kept)) if self.kept[place])
        return [self.name(place)[0] for place in islice(there, _COMPARED)]

    def _find(self, name: str) -> int | None:
        return next((place for place in self.names.places(name) if self.kept[place]), None)

    def remove(self, ids: Iterable[str]) -> None:
        """Forget pairs: every score is then, to the last bit, as if they had never been added.

        Their rows are never looked at again, and not written when the table is saved. Raises `UnknownName`, changing
        nothing, when an id is not there.
        """
        places = {self.place(name) for name in ids}
        for place in places:
            self.kept[place] = False
        self._num_kept -= len(places)

    def weigh(self, ids: Iterable[str], weight: float | int) -> None:
        """Let pairs count as `weight` copies of each would. Raises `UnknownName`, `UsageError` for a weight that is not
        above 0, changing nothing."""
        if not 0 < weight < float("inf"):
            raise UsageError(f"a weight is a number above 0; got {weight:g}. remove takes a pair out")
        places = [self.place(name) for name in ids]
        if self.weights is None:
            self.weights = torch.ones(len(self.kept), device=self.image.device)
        for place in places:
            self.weights[place] = weight

    def add(
        self,
        image: Float[Tensor, "N _"],
        text: Float[Tensor, "M _"],
        ids: Sequence[str],
        captions: Sequence[str] = (),
        bias: Float[Tensor, "_"] | None = None,
    ) -> None:
        """Learn pairs, in no more time than it takes to copy them. Raises `UsageError` for an id that is taken,
        `NotFinite` for vectors with NaN or infinity, changing nothing."""
        if len(image) != len(text):
            raise UsageError(f"pairs need as many images as texts; got {len(image):,} and {len(text):,}")
        _check_width("image", image, self._settings.image_width)
        _check_width("text", text, self._settings.text_width)
        if (bias is None) != (self.bias is None):
            raise UsageError("rows of a classifier come with their biases, others without")
        _check_names(ids, captions, len(image))
        taken = sorted(name for name in ids if self._find(name) is not None)
        if taken:
            raise UsageError(f'anchor "{taken[0]}" exists already ({len(taken)} of {len(ids)} are); remove it first')
        rows = {"image": image, "text": text} | ({} if bias is None else {"bias": bias})
        for name, new in rows.items():
            finite = new.to(getattr(self, name)).isfinite().reshape(len(new), -1).all(1)
            if not bool(finite.all()):
                bad = ids[int((~finite).nonzero()[0, 0])]
                raise NotFinite(f'anchor "{bad}": its {name} vector holds NaN, infinity or a number out of range')
        for name, new in rows.items():
            self._later[name] = _room_for(self._later.get(name), self._num_later, len(new), getattr(self, name))
            self._later[name][self._num_later : self._num_later + len(new)] = new
        self._num_later += len(ids)
        self.names.add(list(ids), list(captions))
        self.kept = torch.cat([self.kept, torch.ones(len(ids), dtype=torch.bool)])
        self._num_kept += len(ids)
        if self.weights is not None:
            self.weights = torch.cat([self.weights, self.weights.new_ones(len(ids))])

    def with_settings(
        self, *, k: int | None = None, p: float | int | None = None, weight: float | int | None = None
    ) -> "Pairs":
        """The same pairs with another k, p or share among several tables, sharing the memory of the rows."""
        twin = copy.copy(self)
        given = {name: value for name, value in (("k", k), ("p", p), ("weight", weight)) if value is not None}
        twin._settings = replace(self._settings, **given)  # type: ignore[arg-type]
        twin._buffers = dict(self._buffers)
        twin._later = {name: rows[: self._num_later] for name, rows in self._later.items()}
        twin.names, twin.kept = self.names.copy(), self.kept.clone()
        twin.weights = None if self.weights is None else self.weights.clone()
        return twin

    def classifier(self) -> tuple[Float[Tensor, "N D"], Float[Tensor, "N"]]:
        """The rows and biases of the classes that count, float32. For tables of a classifier alone."""
        assert self.bias is not None
        rows, bias = (torch.cat(self._in_memory(name))[self.kept.to(self.image.device)] for name in ("image", "bias"))
        return rows.float(), bias.float()

    def _likeliest(self, vectors: Tensor, k: int) -> Nearest:
        """The classifier's softmax up to a factor, by which its largest is 1; unit length cancels it."""
        rows, bias = (torch.cat(self._in_memory(name)).double() for name in ("image", "bias"))
        logits = (
            torch.stack([(rows * v).sum(1) for v in vectors.double()]) + bias
            if len(vectors)
            else rows.new_zeros(0, len(rows))
        )
        logits = (logits / self._settings.temperature).masked_fill(~self.kept.to(logits.device), -torch.inf)
        if len(self):
            logits = logits - logits.amax(1, keepdim=True)
        best, index = logits.exp().sort(dim=1, descending=True, stable=True)
        return Nearest(best[:, :k].contiguous(), index[:, :k].contiguous())

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        """The rows of the pairs that count, without those of mapped files: what `cfg` names."""
        whole = self._num_later == 0 and len(self) == len(self.kept)
        if whole and self.stored is None:
            super()._save_to_state_dict(destination, prefix, keep_vars)
            return
        first = self.names.num_stored
        for name in (name for name in _SIDES if getattr(self, name) is not None):
            rows = torch.cat(self._in_memory(name))
            destination[prefix + name] = rows[self.kept[first:].to(rows.device)]
        if self.weights is not None:
            destination[prefix + "weights"] = self.weights[first:][self.kept[first:].to(self.weights.device)]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Pairs":
        super()._apply(fn, recurse)
        self._later = {name: fn(rows) for name, rows in self._later.items()}
        return self


def check_settings(cfg: PairsConfig, where: str) -> None:
    """Raise `BadConfig` naming what cannot be used."""
    wrong = [
        f"{name} is {value!r}"
        for name, value in (("k", cfg.k), ("p", cfg.p), ("weight", cfg.weight), ("temperature", cfg.temperature))
        if not 0 < value < float("inf")
    ]
    if wrong:
        raise BadConfig(f"{where}: numbers above 0 are wanted; {', '.join(wrong)}")
    if len(set(cfg.ids)) != len(cfg.ids):
        twice = next(name for name, count in Counter(cfg.ids).items() if count > 1)
        raise BadConfig(f'{where}: two pairs have the id "{twice}"')
    if cfg.captions and len(cfg.captions) != len(cfg.ids):
        raise BadConfig(
            f"{where}: {len(cfg.ids):,} ids and {len(cfg.captions):,} captions; one each is wanted, or none"
        )


def _room_for(later: Tensor | None, used: int, more: int, like: Tensor) -> Tensor:
    """The rows that were added, in a block with room for more of them; copied into a larger one now and then."""
    if later is not None and used + more <= len(later):
        return later
    grown = like.new_empty(max(_SPARE, 2 * (used + more)), *like.shape[1:])
    if later is not None:
        grown[:used] = later[:used]
    return grown


def _check_width(kind: str, vectors: Tensor, width: int) -> None:
    if vectors.ndim != 2 or vectors.shape[1] != width:
        raise UsageError(f"{kind} vectors must have the shape (n, {width}); got {tuple(vectors.shape)}")


def _check_names(ids: Sequence[str], captions: Sequence[str], rows: int) -> None:
    if len(ids) != rows or len(set(ids)) != rows:
        raise UsageError(f"{rows:,} pairs need as many different ids; got {len(set(ids)):,} of {len(ids):,}")
    if captions and len(captions) != rows:
        raise UsageError(f"{rows:,} pairs with {len(captions):,} captions; give one each or none")
