"""The names of VisualBERT's weights in its released layouts."""

from collections.abc import Collection

from rebus.backbones.block_keys import clip_vision, siglip_vision
from rebus.backbones.text import bert
from rebus.backbones.vision import resnet
from rebus.backbones.vision.vit import ViTConfig
from rebus.models.masked_lm.visualbert_config import VisualBERTConfig
from rebus.weights.key_sides import Row, nested
from rebus.weights.keymap import KeyMap

_HEADS = [
    ("cls.predictions.transform.dense.{p}", "blanks.dense.{p}"),
    ("cls.predictions.transform.LayerNorm.{p}", "blanks.norm.{p}"),
    ("cls.predictions.bias", "blanks.bias"),
    ("cls.seq_relationship.{p}", "match.{p}"),
    ("cls.{p}", "choice.{p}"),
    ("cls.transform.dense.{p}", "choice.dense.{p}"),  # these three are ours
    ("cls.transform.LayerNorm.{p}", "choice.norm.{p}"),
    ("cls.decoder.{p}", "choice.out.{p}"),
    ("attention.query.{p}", "phrases.q.{p}"),
    ("attention.key.{p}", "phrases.k.{p}"),
    ("attention.value.{p}", "phrases.v.{p}"),
]
_TRANSFORMED = {  # ours → MMF's
    "choice.dense.{p}": "classifier.0.dense.{p}",
    "choice.norm.{p}": "classifier.0.LayerNorm.{p}",
    "choice.out.{p}": "classifier.1.{p}",
}
_REGIONS = {  # theirs in the reference library → in the original code, and ours
    "visual_token_type_embeddings.weight": ("token_type_embeddings_visual.weight", "region_types.weight"),
    "visual_position_embeddings.weight": ("position_embeddings_visual.weight", "region_positions.weight"),
    "visual_projection.{p}": ("projection.{p}", "region_proj.{p}"),
}
_TIED = "cls.predictions.decoder.*"  # the embeddings of words, and a second name of the bias


def _bert_rows() -> list[Row]:
    """Everything that is BERT's own."""
    joint = [(a.replace("encoder.layer.{i}.", "additional_layer."), b.replace("blocks.{i}.", "joint."))
             for a, b in bert.ROWS if "{i}" in a]  # fmt: skip
    return [*nested(bert.ROWS, ours="text."), ("pooler.dense.{p}", "text.pooler.{p}"), *joint]


def keys(cfg: VisualBERTConfig) -> KeyMap:
    """The transformers layout of all its classes; `vision_model`, which makes regions of images, is ours."""
    rows: list[Row] = [*_bert_rows(), *((f"embeddings.{a}", ours) for a, (_, ours) in _REGIONS.items())]
    return KeyMap(
        [*nested(rows, theirs="visual_bert."), *_HEADS, *_image_rows(cfg)],
        ignore=[_TIED, "*.position_ids", "detector.*"],
    )


def _image_rows(cfg: VisualBERTConfig) -> list[Row]:
    if isinstance(cfg.image, ViTConfig):
        return nested(clip_vision() if cfg.image.class_token else siglip_vision(), ours="image.")
    return [] if cfg.image is None else nested(resnet.ROWS, theirs="vision_model.", ours="image.")


def _torch_rows(cfg: VisualBERTConfig, body: str, heads: str) -> list[Row]:
    """The names of the original code and of MMF, which differ by their prefixes."""
    rows: list[Row] = [*_bert_rows(), *((f"embeddings.{a}", ours) for a, ours in _REGIONS.values())]
    theirs = {"choice.{p}": "classifier.{p}", **_TRANSFORMED}
    own: list[Row] = [(theirs.get(b, a).replace("attention.", "flickr_attention."), b) for a, b in _HEADS]
    return [*nested(rows, theirs=body), *nested(own, theirs=heads), *_image_rows(cfg)]


def original_keys(cfg: VisualBERTConfig) -> KeyMap:
    """The `.th` files of the original code, with or without `module.`; of VCR the detector is left out."""
    ignored = ["bert." + _TIED, "detector.*", "*.position_ids"]
    return KeyMap(_torch_rows(cfg, "bert.bert.", "bert."), ignore=ignored, prefixes=["module."])


def mmf_keys(cfg: VisualBERTConfig) -> KeyMap:
    """The files of MMF."""
    ignored = ["model." + _TIED, "*.position_ids"]
    return KeyMap(_torch_rows(cfg, "model.bert.", "model."), ignore=ignored, prefixes=["module."])


def is_mmf(names: Collection[str]) -> bool:
    """Whether these are the names of a file of MMF."""
    return any(name.removeprefix("module.") == "model.bert.embeddings.projection.weight" for name in names)


def is_original(names: Collection[str]) -> bool:
    """Whether these are the names of a `.th` file."""
    return any(name.endswith("bert.bert.embeddings.projection.weight") for name in names)
