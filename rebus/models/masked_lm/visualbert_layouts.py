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
    ("attention.query.{p}", "phrases.q.{p}"),
    ("attention.key.{p}", "phrases.k.{p}"),
    ("attention.value.{p}", "phrases.v.{p}"),
]
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


def original_keys(cfg: VisualBERTConfig) -> KeyMap:
    """The `.th` files of the original code, with or without `module.`; of VCR the detector is left out."""
    rows: list[Row] = [*_bert_rows(), *((f"embeddings.{a}", ours) for a, ours in _REGIONS.values())]
    heads = [(a if "." in a.removeprefix("cls.") else a.replace("cls.", "classifier."), b) for a, b in _HEADS]
    heads = [(a.replace("attention.", "flickr_attention."), b) for a, b in heads]
    return KeyMap(
        [*nested(rows, theirs="bert.bert."), *nested(heads, theirs="bert."), *_image_rows(cfg)],
        ignore=["bert." + _TIED, "detector.*", "*.position_ids"],
        prefixes=["module."],
    )


def is_original(names: Collection[str]) -> bool:
    """Whether these are the names of a `.th` file."""
    return any(name.endswith("bert.bert.embeddings.projection.weight") for name in names)
