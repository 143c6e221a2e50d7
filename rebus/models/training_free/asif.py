"""ASIF: two frozen encoders and a table of pairs, nothing learned.

Norelli et al., "ASIF: Coupled Data Turns Unimodal Models to Multimodal Without Training", 2023. An image is described
by the images of the table that it resembles, a text by the captions that it resembles (see `pairs.py` here).
Any image encoder goes with any text encoder; pairs can be added, removed and asked for their share in an answer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rebus.backbones.examples import dual_encoder_example
from rebus.backbones.text import bert
from rebus.backbones.text.bert import BERT, BERTConfig
from rebus.backbones.vision import efficientnet, resnet
from rebus.backbones.vision.efficientnet import EfficientNet, EfficientNetConfig
from rebus.backbones.vision.resnet import ResNet, ResNetConfig
from rebus.core.config import from_dict, to_dict
from rebus.core.errors import BadCheckpoint, BadConfig, UsageError
from rebus.core.outputs import Embeddings
from rebus.core.released_config import HARMLESS
from rebus.core.specs import ImageSpec, TextSpec
from rebus.core.system import Assembled, Layout, System
from rebus.models.training_free.pairs import Contribution, Pairs, PairsConfig, check_settings
from rebus.weights.keymap import OwnNames

MAX_DENSE = 200_000  # pairs; beyond, a dense description of one item would take megabytes


@dataclass(frozen=True, kw_only=True)
class ASIFConfig:
    """An encoder that is None is handed to the network; such a model is not saved whole."""

    image: EfficientNetConfig | ResNetConfig | None = None
    text: BERTConfig | None = None
    tables: tuple[PairsConfig, ...] = ()
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
    has none: modules with `features` or `embed_image`, and `embed_text`, or any callables that give (B, D) vectors.
    """

    averages_templates = False  # Sec. 4: every sentence about a label stays a candidate of its own

    def __init__(self, cfg: ASIFConfig, *, image: Any = None, text: Any = None):
        super().__init__()
        self.image: Any = image
        self.text: Any = text
        if isinstance(cfg.image, EfficientNetConfig):
            self.image = EfficientNet(cfg.image)
        elif isinstance(cfg.image, ResNetConfig):
            self.image = ResNet(cfg.image)
        if cfg.text is not None:
            self.text = BERT(cfg.text)
        self.tables = nn.ModuleList(Pairs(table) for table in cfg.tables)
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

    def with_tables(self, tables: Pairs | Sequence[Pairs]) -> "ASIF":
        """The same encoders over other pairs; the network itself stays as it was."""
        twin = ASIF(ASIFConfig(scale=self._cfg.scale), image=self.image, text=self.text)
        twin._cfg = self._cfg
        twin.tables = nn.ModuleList([tables] if isinstance(tables, Pairs) else tables)
        return twin.train(self.training)

    def image_vectors(self, pixels: Float[Tensor, "B 3 Y X"]) -> Float[Tensor, "B D"]:
        """Images as the image encoder sees them: what the image side of a table holds."""
        for name in ("features", "embed_image"):
            if hasattr(self.image, name):
                return getattr(self.image, name)(pixels)
        return self.image(pixels)

    def text_vectors(self, tokens: Int[Tensor, "T L"], mask: Bool[Tensor, "T L"] | None = None) -> Float[Tensor, "T D"]:
        """Texts as the text encoder reads them: what the text side of a table holds."""
        return getattr(self.text, "embed_text", self.text)(tokens, mask)

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
    if cfg.image is None or cfg.text is None:
        raise UsageError("the encoders were handed to this model and are not saved with it; save its pairs instead")
    return {"model_type": "asif", "architectures": ["ASIF"], **to_dict(cfg)}


def image_spec(cfg: ASIFConfig) -> ImageSpec:
    """As the image encoder was trained."""
    if isinstance(cfg.image, EfficientNetConfig):
        return efficientnet.image_spec(cfg.image)
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
    assemble={"starter": _assemble_starter},
)
