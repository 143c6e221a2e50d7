"""ASIF: two frozen encoders and a table of pairs, nothing learned.

Norelli et al., "ASIF: Coupled Data Turns Unimodal Models to Multimodal Without Training", 2023. An image is described
by the images of the table that it resembles, a text by the captions that it resembles (see `pairs.py` here).
Any image encoder goes with any text encoder; pairs can be added, removed and asked for their share in an answer.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from rebus.backbones.examples import dual_encoder_example
from rebus.backbones.text import bert
from rebus.backbones.text.bert import BERT, BERTConfig
from rebus.backbones.vision import efficientnet, resnet
from rebus.backbones.vision.efficientnet import EfficientNet, EfficientNetConfig
from rebus.backbones.vision.resnet import ResNet, ResNetConfig
from rebus.backbones.vision.vit import ViT, ViTConfig
from rebus.core.config import from_dict, to_dict
from rebus.core.errors import BadCheckpoint, BadConfig, UsageError, unknown
from rebus.core.outputs import Embeddings
from rebus.core.released_config import HARMLESS
from rebus.core.specs import ImageSpec, TextSpec
from rebus.core.system import Assembled, Layout, System
from rebus.models.training_free.imprinting import example_weight, imprint
from rebus.models.training_free.pairs import Contribution, Pairs, PairsConfig, check_settings
from rebus.weights.keymap import OwnNames

IMAGE_METHODS = ("image_vectors", "pooled", "features", "embed_image")  # how encoders give one vector an image
TEXT_METHODS = ("text_vectors", "embed_text")
MAX_DENSE = 200_000  # pairs; beyond, a dense description of one item would take megabytes


@dataclass(frozen=True, kw_only=True)
class ASIFConfig:
    """An encoder that is None is handed to the network: `image_from` and `text_from` say which checkpoint it is of, a
    catalogue name or a folder beside `config.json`. Without them the model is not saved."""

    image: EfficientNetConfig | ResNetConfig | ViTConfig | None = None
    text: BERTConfig | None = None
    image_from: str = ""
    text_from: str = ""
    tables: tuple[PairsConfig, ...] = ()
    whitened: int = 0  # width of text vectors whose directions are evened out before they are compared
    usual: int = 0  # length of the mean direction of images of anything, where that is known; words are taught with it
    scale: float | int = 1.0  # by which scores are multiplied before a softmax turns them into probabilities


PRESETS = {
    "tiny": ASIFConfig(
        image=ResNetConfig(variant="resnet18", num_classes=0),
        text=bert.PRESETS["tiny"],
        tables=(PairsConfig(ids=tuple("abcdefgh"), image_width=512, text_width=24, k=5, p=2.0),),
    ),
}


class ASIF(nn.Module):
    """Pixels and tokens → unit vectors with one place for each pair of the tables.

    With several tables, the score is their weighted mean. `image` and `text` are the encoders where the configuration
    has none: networks with one of the methods of `IMAGE_METHODS` and `TEXT_METHODS`, or any callables that give (B, D)
    vectors.
    """

    averages_templates = False  # Sec. 4: every sentence about a label stays a candidate of its own

    usual: Tensor | None
    text_mean: Tensor | None
    text_map: Tensor | None

    def __init__(self, cfg: ASIFConfig, *, image: Any = None, text: Any = None):
        super().__init__()
        self.image: Any = image
        self.text: Any = text
        if isinstance(cfg.image, EfficientNetConfig):
            self.image = EfficientNet(cfg.image)
        elif isinstance(cfg.image, ResNetConfig):
            self.image = ResNet(cfg.image)
        elif cfg.image is not None:
            self.image = ViT(cfg.image)
        if cfg.text is not None:
            self.text = BERT(cfg.text)
        self.tables = nn.ModuleList(Pairs(table) for table in cfg.tables)
        width = cfg.whitened
        self.register_buffer("text_mean", torch.zeros(width) if width else None)
        self.register_buffer("text_map", torch.zeros(width, width) if width else None)
        self.register_buffer("usual", torch.zeros(cfg.usual) if cfg.usual else None)
        self._cfg = cfg
        self.init_buffers()

    @classmethod
    def of(cls, image: Any, text: Any, tables: Pairs | Sequence[Pairs], *, scale: float | int = 1.0) -> "ASIF":
        """Any two encoders and their pairs."""
        network = cls(ASIFConfig(scale=scale), image=image, text=text)
        return network.with_tables(tables)

    def init_buffers(self) -> None:
        """The logarithm of the scale, as contrastive networks have it."""
        self.register_buffer("log_scale", torch.tensor(self._cfg.scale).log(), persistent=False)
        for number, table in enumerate(self.pairs()):
            weights = table.weights
            if weights is not None and not weights.is_meta and not bool((weights > 0).all()):
                raise BadCheckpoint(f"tables.{number}.weights holds numbers that are not above 0")

    @property
    def scale(self) -> Tensor:
        """By which scores are multiplied."""
        return torch.as_tensor(self.log_scale).exp()

    @property
    def cfg(self) -> ASIFConfig:
        """The configuration, with the pairs that are there now."""
        return replace(self._cfg, tables=tuple(table.cfg for table in self.pairs()))

    def hand(self, **encoders: Any) -> None:
        """Encoders that belong to other checkpoints: used here, and neither counted nor saved among the weights."""
        self.__dict__.update(encoders)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "ASIF":
        super()._apply(fn, recurse)
        for name in ("image", "text"):
            if isinstance(self.__dict__.get(name), nn.Module):
                self.__dict__[name]._apply(fn)
        return self

    def with_tables(self, tables: Pairs | Sequence[Pairs]) -> "ASIF":
        """The same encoders over other pairs; the network itself stays as it was."""
        twin = ASIF(ASIFConfig(scale=self._cfg.scale))
        for name in ("image", "text"):
            if name in self.__dict__:
                twin.hand(**{name: self.__dict__[name]})
            else:
                setattr(twin, name, getattr(self, name))
        twin._cfg, twin.usual = self._cfg, self.usual
        twin.text_mean, twin.text_map = self.text_mean, self.text_map
        twin.tables = nn.ModuleList([tables] if isinstance(tables, Pairs) else tables)
        return twin.train(self.training)

    def image_vectors(self, pixels: Float[Tensor, "B 3 Y X"]) -> Float[Tensor, "B D"]:
        """Images as the image encoder sees them: what the image side of a table holds."""
        return _encoder(self.image, IMAGE_METHODS)(pixels)

    def text_vectors(self, tokens: Int[Tensor, "T L"], mask: Bool[Tensor, "T L"] | None = None) -> Float[Tensor, "T D"]:
        """Texts as the text encoder reads them: what the text side of a table holds."""
        vectors: Tensor = _encoder(self.text, TEXT_METHODS)(tokens, mask)
        if self.text_mean is None or self.text_map is None:
            return vectors
        return (vectors - self.text_mean) @ self.text_map

    def embed_image(self, pixels: Float[Tensor, "B 3 Y X"]) -> Float[Tensor, "B N"]:
        """Images as unit vectors over the pairs; zeros where an image resembles none."""
        vectors = self.image_vectors(pixels)
        self._check_dense()
        parts = [table.describe_images(vectors).dense() * w for table, w in zip(self.pairs(), self._weights())]
        return torch.cat(parts, dim=1)

    def embed_text(self, tokens: Int[Tensor, "T L"], mask: Bool[Tensor, "T L"] | None = None) -> Float[Tensor, "T N"]:
        """Texts as unit vectors over the pairs."""
        vectors = self.text_vectors(tokens, mask)
        self._check_dense()
        parts = [table.describe_texts(vectors).dense() * w for table, w in zip(self.pairs(), self._weights())]
        return torch.cat(parts, dim=1)

    def score(self, image: Float[Tensor, "B D"], text: Float[Tensor, "T E"]) -> Float[Tensor, "B T"]:
        """Scores in [0, 1] from the encoders' vectors, never dense: for tables of any size."""
        parts = [table(image, text) * w * w for table, w in zip(self.pairs(), self._weights())]
        return torch.stack(parts).sum(0)

    def explain(
        self,
        pixels: Float[Tensor, "1 3 Y X"],
        tokens: Int[Tensor, "1 L"],
        mask: Bool[Tensor, "1 L"] | None = None,
        top: int | None = 5,
    ) -> list[Contribution]:
        """The pairs that say why this image and this text go together, largest share first."""
        image, text = self.image_vectors(pixels)[0], self.text_vectors(tokens, mask)[0]
        found = [
            part._replace(contribution=part.contribution * w * w)
            for table, w in zip(self.pairs(), self._weights())
            for part in table.explain(image, text)
        ]
        return sorted(found, key=lambda part: -part.contribution)[:top]

    def add_anchors(
        self,
        image: Float[Tensor, "N D"],
        text: Float[Tensor, "N E"],
        ids: Sequence[str],
        captions: Sequence[str] = (),
    ) -> None:
        """New pairs for the last table of captioned images. Raises `UsageError` where there is none."""
        tables = [table for table in self.pairs() if table.bias is None]
        if not tables:
            raise UsageError(
                "this model's anchors are the classes of a classifier; teach it words, or build one of captioned images"
            )
        self._check_free(ids)
        tables[-1].add(image, text, ids, captions)

    def remove_anchors(self, ids: Sequence[str]) -> None:
        """Forget pairs, whichever tables they are in. Raises `UnknownName`, changing nothing."""
        for table, mine in self._by_table(ids):
            table.remove(mine)

    def weigh_anchors(self, ids: Sequence[str], weight: float | int) -> None:
        """Let pairs count as `weight` copies of each would. Raises `UnknownName`, `UsageError`, changing nothing."""
        for table, mine in self._by_table(ids):
            table.weigh(mine, weight)

    def teach(
        self,
        image: Float[Tensor, "N D"],
        text: Float[Tensor, "E"],
        ids: Sequence[str],
        caption: str,
        against: Float[Tensor, "M D"] | None = None,
    ) -> list[str]:
        """A word from examples of it: a pair of each example and the word, which weigh enough to be seen among the
        others (`example_weight`), or one more class of a classifier.

        `against`: images of other things, from whose mean the class is distinguished; by default that of typical
        images.
        """
        self._check_free(ids)
        classes = [table for table in self.pairs() if table.bias is not None]
        if len(classes) == len(self.tables):
            usual = self.usual if against is None else F.normalize(against, dim=1).mean(0)
            return [imprint(classes[-1], image, text, ids[0], caption, usual)]
        table = [table for table in self.pairs() if table.bias is None][-1]
        weight = example_weight(table, image)
        self.add_anchors(image, text.expand(len(image), -1), ids, [caption] * len(ids))
        table.weigh(ids, weight)
        return list(ids)

    def _check_free(self, ids: Sequence[str]) -> None:
        taken = [name for name in ids if any(table.has(name) for table in self.pairs())]
        if taken:
            raise UsageError(f'anchor "{taken[0]}" exists already ({len(taken)} of {len(ids)} are); remove it first')

    def _by_table(self, ids: Sequence[str]) -> list[tuple[Pairs, list[str]]]:
        """The ids that each table has; the first table names the nearest to one that none has."""
        tables = self.pairs()
        found: list[tuple[Pairs, list[str]]] = [(table, []) for table in tables]
        for name in dict.fromkeys(ids):
            owner = next((number for number, table in enumerate(tables) if table.has(name)), None)
            if owner is None:
                known = [near for table in tables for near in table.some_ids()]
                raise unknown("anchor", name, known)
            found[owner][1].append(name)
        return [(table, mine) for table, mine in found if mine]

    def forward(
        self,
        pixels: Float[Tensor, "B 3 Y X"],
        tokens: Int[Tensor, "T L"],
        mask: Bool[Tensor, "T L"] | None = None,
    ) -> Embeddings:
        return Embeddings(self.embed_image(pixels), self.embed_text(tokens, mask), self.scale)

    def pairs(self) -> list[Pairs]:
        """The tables, in order."""
        return [table for table in self.tables if isinstance(table, Pairs)]

    def _weights(self) -> list[float]:
        """Square roots of the tables' shares, so that the joined vector has unit length."""
        total = sum(table.weight for table in self.pairs())
        if not total > 0:
            raise UsageError("no pairs: give the network at least one table with a weight above 0")
        return [(table.weight / total) ** 0.5 for table in self.pairs()]

    @property
    def is_dense(self) -> bool:
        """Whether there are few enough pairs for dense vectors; otherwise `score` alone compares."""
        return sum(map(len, self.pairs())) <= MAX_DENSE

    def _check_dense(self) -> None:
        if not self.is_dense:
            pairs = sum(map(len, self.pairs()))
            raise UsageError(
                f"{pairs:,} pairs are too many for dense vectors (at most {MAX_DENSE:,}); "
                "use network.score(network.image_vectors(…), network.text_vectors(…))"
            )


def _encoder(network: Any, methods: Sequence[str]) -> Any:
    """What gives one vector an item; the network itself, where it has none of the methods."""
    return next((getattr(network, name) for name in methods if hasattr(network, name)), network)


def whitening(vectors: Float[Tensor, "N D"]) -> tuple[Float[Tensor, "D"], Float[Tensor, "D D"]]:
    """(mean, map): `(v − mean) @ map` varies as much in all directions.

    Texts of an encoder that learned by filling in blanks all point one way, which hides how they differ (Su et al.,
    "Whitening Sentence Representations for Better Semantics and Faster Retrieval", 2021)."""
    mean = vectors.double().mean(0)
    variances, directions = torch.linalg.eigh(torch.cov(vectors.double().T))
    variances = variances.clamp(min=1e-3 * float(variances.max()))  # what hardly varies is noise
    return mean.float(), (directions * variances**-0.5 @ directions.T).float()


def _parts(cfg: ASIFConfig) -> dict[str, str]:
    """The checkpoints that the encoders are of."""
    return {name: source for name, source in (("image", cfg.image_from), ("text", cfg.text_from)) if source}


def read_config(data: Mapping[str, Any]) -> ASIFConfig:
    """`config.json` as `write_config` wrote it; raises `BadConfig` naming unknown fields."""
    known = {name: value for name, value in data.items() if name not in HARMLESS}
    cfg: ASIFConfig = from_dict(ASIFConfig, known, "config.json")
    for number, table in enumerate(cfg.tables):
        check_settings(table, f"config.json: tables[{number}]")
    if not 0 < cfg.scale < float("inf"):
        raise BadConfig(f"config.json: scale is a number above 0; got {cfg.scale!r}")
    return cfg


def write_config(cfg: ASIFConfig) -> dict[str, Any]:
    """`config.json`: model_type "asif", encoders, tables with the names of their pairs."""
    if (cfg.image is None and not cfg.image_from) or (cfg.text is None and not cfg.text_from):
        raise UsageError("the encoders were handed to this model and are not saved with it; save its pairs instead")
    return {"model_type": "asif", "architectures": ["ASIF"], **to_dict(cfg)}


def image_spec(cfg: ASIFConfig) -> ImageSpec:
    """As the image encoder was trained."""
    if isinstance(cfg.image, EfficientNetConfig):
        return efficientnet.image_spec(cfg.image)
    if isinstance(cfg.image, ViTConfig):
        return ImageSpec(size=(cfg.image.image_size,) * 2)
    return resnet.image_spec(cfg.image or ResNetConfig())


def text_spec(cfg: ASIFConfig) -> TextSpec:
    """As the text encoder was trained."""
    return bert.text_spec(cfg.text or BERTConfig())


def _assemble_starter() -> Assembled:
    from rebus.models.training_free.starter import assemble_starter  # which builds on this file

    return assemble_starter()


SYSTEM = System(
    name="asif",
    network=ASIF,
    config=ASIFConfig,
    presets=PRESETS,
    layouts={
        "transformers": Layout(
            name="transformers", keys=lambda cfg: OwnNames(), read_config=read_config, write_config=write_config
        )
    },
    example=dual_encoder_example,
    image_spec=image_spec,
    any_image_size=True,
    text_spec=text_spec,
    handed=_parts,
    text_side=lambda cfg: ASIF(replace(cfg, image=None)),
    assemble={"starter": _assemble_starter},
)
