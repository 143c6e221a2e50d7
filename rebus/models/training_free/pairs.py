"""A table of pairs that makes two spaces comparable: row i of both sides is one image and its caption.

Norelli et al., "ASIF: Coupled Data Turns Unimodal Models to Multimodal Without Training", 2023, Sec. 3. A vector is
described by its similarities to the rows of its own side: keep the k largest, raise them to the power p, make the
result a unit vector. Both descriptions count along the same rows, so their product is a score.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from rebus.core.errors import UsageError, unknown
from rebus.models.training_free.anchors import BLOCK_BYTES, Anchors, Nearest


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
    # "classifier": the rows of the image side are those of a classifier, and the similarity is its softmax.
    image_similarity: Literal["cosine", "classifier"] = "cosine"
    temperature: float | int = 1.0  # of that softmax


class Relative(NamedTuple):
    """Unit vectors over the pairs, without their zeros: `value` (B, K) float64 at the pairs `at` (B, K)."""

    value: Float[Tensor, "B K"]
    at: Int[Tensor, "B K"]
    num_anchors: int

    def dense(self) -> Float[Tensor, "B N"]:
        """With the zeros, float32."""
        rows = torch.zeros(len(self.value), self.num_anchors, dtype=torch.float64, device=self.value.device)
        return rows.scatter_add_(1, self.at, self.value).float()


class Contribution(NamedTuple):
    """What one pair adds to a score, and its similarities to the image and to the text."""

    id: str
    caption: str
    image_similarity: float
    text_similarity: float
    contribution: float


def relative(nearest: Nearest, p: float | int, num_anchors: int) -> Relative:
    """The paper's formula on the k nearest similarities, which are not below 0. All zeros stay zeros."""
    value = nearest.similarity**p
    norm = (value * value).sum(1, keepdim=True).sqrt()
    return Relative(torch.where(norm > 0, value / norm.clamp(min=1e-300), 0.0), nearest.at, num_anchors)


def score(image: Relative, text: Relative) -> Float[Tensor, "B T"]:
    """⟨image, text⟩ of all combinations, in [0, 1]. Each is a sum by itself, so that others change none of its bits."""
    if len(image.value) > len(text.value):
        return score(text, image).T
    out = torch.zeros(len(image.value), len(text.value), dtype=torch.float64, device=image.value.device)
    wide = out.new_zeros(max(image.num_anchors, 1))  # one description with its zeros at a time
    met = torch.zeros(len(wide), dtype=torch.bool, device=wide.device)  # few meet: a mask finds them in the cache
    rows = max(1, _GATHERED // max(text.at.shape[1], 1))
    for number, (value, at) in enumerate(zip(image.value, image.at, strict=True)):
        wide.index_add_(0, at, value)
        met[at] = True
        for first in range(0, len(text.value), rows):
            places, values = text.at[first : first + rows].flatten(), text.value[first : first + rows].flatten()
            hits = met.index_select(0, places).nonzero()[:, 0]
            of = hits.div(text.at.shape[1], rounding_mode="floor") + first
            out[number].index_add_(0, of, wide.index_select(0, places[hits]) * values[hits])
        wide[at], met[at] = 0.0, False
    return out.float()


_GATHERED = 2_000_000  # numbers at a time


class Stored(NamedTuple):
    """Pairs in mapped files: both sides, and the lines of the file that names them."""

    image: Anchors
    text: Anchors
    names: Sequence[tuple[str, str]]  # id, caption


class Pairs(nn.Module):
    """Pairs in memory, in front of them those of mapped files if there are any; edited by id."""

    image: Tensor
    text: Tensor
    bias: Tensor | None

    def __init__(self, cfg: PairsConfig, stored: Stored | None = None):
        super().__init__()
        self.cfg = cfg
        self.stored = stored
        self.block_bytes = BLOCK_BYTES  # working memory of a search; the answer does not depend on it
        self.register_buffer("image", torch.zeros(len(cfg.ids), cfg.image_width))
        self.register_buffer("text", torch.zeros(len(cfg.ids), cfg.text_width))
        classifier = cfg.image_similarity == "classifier"
        self.register_buffer("bias", torch.zeros(len(cfg.ids)) if classifier else None)
        if classifier and stored is not None:
            raise UsageError("rows of a classifier are kept in memory; stored pairs are compared by cosine")
        self.kept = torch.ones(0 if stored is None else len(stored.image), dtype=torch.bool)

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

    def __len__(self) -> int:
        """Pairs that count."""
        return int(self.kept.sum()) + len(self.image)

    @property
    def width(self) -> int:
        """Length of a dense description: one place a pair, removed ones of mapped files included."""
        return len(self.kept) + len(self.image)

    def side(self, name: Literal["image", "text"]) -> Anchors:
        """The rows of one side, mapped ones first."""
        memory: Tensor = getattr(self, name)
        if self.stored is None:
            return Anchors([memory])
        mapped: Anchors = getattr(self.stored, name)
        kept = None if bool(self.kept.all()) else torch.cat([self.kept, torch.ones(len(memory), dtype=torch.bool)])
        return Anchors([*mapped.shards, memory], [*mapped.screens, None], kept, mapped.release)

    def nearest_images(self, vectors: Float[Tensor, "B D"], k: int | None = None) -> Nearest:
        """The pairs whose images are most like each vector."""
        self._check_width("image", vectors, self.cfg.image_width)
        if self.bias is not None:
            return self._likeliest(vectors, k or self.cfg.k)
        return self.side("image").nearest(vectors, k or self.cfg.k, self.block_bytes)

    def nearest_texts(self, vectors: Float[Tensor, "T D"], k: int | None = None) -> Nearest:
        """The pairs whose captions are most like each vector."""
        self._check_width("text", vectors, self.cfg.text_width)
        return self.side("text").nearest(vectors, k or self.cfg.k, self.block_bytes)

    def describe_images(self, vectors: Float[Tensor, "B D"]) -> Relative:
        """Images, as the image encoder sees them, as unit vectors over the pairs."""
        return relative(self.nearest_images(vectors), self.cfg.p, self.width)

    def describe_texts(self, vectors: Float[Tensor, "T D"]) -> Relative:
        """Texts, as the text encoder reads them, as unit vectors over the pairs."""
        return relative(self.nearest_texts(vectors), self.cfg.p, self.width)

    def forward(self, image: Float[Tensor, "B D"], text: Float[Tensor, "T E"]) -> Float[Tensor, "B T"]:
        """Scores in [0, 1] of images against texts, both as their encoders gave them."""
        return score(self.describe_images(image), self.describe_texts(text))

    def explain(
        self, image: Float[Tensor, "D"], text: Float[Tensor, "E"], top: int | None = None
    ) -> list[Contribution]:
        """The pairs that make the score of an image and a text, largest first; together they are the score."""
        seen, read = self.nearest_images(image[None]), self.nearest_texts(text[None])
        pictures, texts = relative(seen, self.cfg.p, self.width), relative(read, self.cfg.p, self.width)
        parts = zip(texts.at[0].tolist(), texts.value[0].tolist(), read.similarity[0].tolist(), strict=True)
        words = {i: (value, like) for i, value, like in parts if value}
        found = []
        for i, value, like in zip(
            pictures.at[0].tolist(), pictures.value[0].tolist(), seen.similarity[0].tolist(), strict=True
        ):
            if value and i in words:
                name, caption = self.name(i)
                found.append(Contribution(name, caption, like, words[i][1], value * words[i][0]))
        return sorted(found, key=lambda c: -c.contribution)[:top]

    def name(self, number: int) -> tuple[str, str]:
        """Id and caption of a pair by its place."""
        if number < len(self.kept):
            assert self.stored is not None
            return self.stored.names[number]
        row = number - len(self.kept)
        return self.cfg.ids[row], self.cfg.captions[row] if self.cfg.captions else ""

    @property
    def ids(self) -> list[str]:
        """Ids of the pairs that count, in order."""
        mapped = [] if self.stored is None else self.kept.nonzero()[:, 0].tolist()
        return [self.name(i)[0] for i in mapped] + list(self.cfg.ids)

    def remove(self, ids: Iterable[str]) -> None:
        """Forget pairs: every score is then, to the last bit, as if they had never been added.

        Those in memory are deleted; those in mapped files are never looked at again, and `stored` can be written
        anew without them. Raises `UnknownName`, changing nothing, when an id is not there.
        """
        gone = set(ids)
        mapped = [i for i in range(len(self.kept)) if self.kept[i] and self.name(i)[0] in gone] if self.stored else []
        stay = [i for i, name in enumerate(self.cfg.ids) if name not in gone]
        found = {self.name(i)[0] for i in mapped} | (gone & set(self.cfg.ids))
        if gone - found:
            raise unknown("anchor", min(gone - found), self.ids)
        self.kept = self.kept.clone()
        self.kept[mapped] = False
        rows = torch.tensor(stay, dtype=torch.int64, device=self.image.device)
        self.image, self.text = self.image[rows], self.text[rows]
        self.bias = None if self.bias is None else self.bias[rows]
        captions = tuple(self.cfg.captions[i] for i in stay) if self.cfg.captions else ()
        self.cfg = replace(self.cfg, ids=tuple(self.cfg.ids[i] for i in stay), captions=captions)

    def add(
        self,
        image: Float[Tensor, "N _"],
        text: Float[Tensor, "M _"],
        ids: Sequence[str],
        captions: Sequence[str] = (),
        bias: Float[Tensor, "_"] | None = None,
    ) -> None:
        """Learn pairs, in no more time than it takes to copy them. Raises `UsageError` for an id that is taken."""
        if len(image) != len(text):
            raise UsageError(f"pairs need as many images as texts; got {len(image):,} and {len(text):,}")
        self._check_width("image", image, self.cfg.image_width)
        self._check_width("text", text, self.cfg.text_width)
        if (bias is None) != (self.bias is None):
            raise UsageError("rows of a classifier come with their biases, others without")
        taken = sorted(set(ids) & set(self.ids))
        if taken:
            raise UsageError(f'anchor "{taken[0]}" is there already ({len(taken)} of {len(ids)} are); remove it first')
        _check_names(ids, captions, len(image))
        self.image = torch.cat([self.image, image.to(self.image)])
        self.text = torch.cat([self.text, text.to(self.text)])
        if self.bias is not None and bias is not None:
            self.bias = torch.cat([self.bias, bias.to(self.bias)])
        known = self.cfg.captions or ("",) * len(self.cfg.ids)
        new = tuple(captions) or ("",) * len(ids)
        self.cfg = replace(
            self.cfg, ids=(*self.cfg.ids, *ids), captions=(*known, *new) if any(known) or any(new) else ()
        )

    def _likeliest(self, vectors: Tensor, k: int) -> Nearest:
        """The classifier's softmax up to a factor, by which its largest is 1; unit length cancels it."""
        assert self.bias is not None
        rows, bias = self.image.double(), self.bias.double()
        logits = (
            torch.stack([(rows * v).sum(1) for v in vectors.double()]) + bias
            if len(vectors)
            else rows.new_zeros(0, len(rows))
        )
        logits = logits / self.cfg.temperature
        if logits.shape[1]:
            logits = logits - logits.amax(1, keepdim=True)
        best, index = logits.exp().sort(dim=1, descending=True, stable=True)
        return Nearest(best[:, :k].contiguous(), index[:, :k].contiguous())

    def _check_width(self, kind: str, vectors: Tensor, width: int) -> None:
        if vectors.ndim != 2 or vectors.shape[1] != width:
            raise UsageError(f"{kind} vectors want the shape (n, {width}); got {tuple(vectors.shape)}")


def _check_names(ids: Sequence[str], captions: Sequence[str], rows: int) -> None:
    if len(ids) != rows or len(set(ids)) != rows:
        raise UsageError(f"{rows:,} pairs need as many different ids; got {len(set(ids)):,} of {len(ids):,}")
    if captions and len(captions) != rows:
        raise UsageError(f"{rows:,} pairs with {len(captions):,} captions; give one each or none")
