"""VisualBERT's configuration, and its spelling in released files."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from rebus.backbones.released_configs import read_clip_vision, read_siglip_vision, write_vision
from rebus.backbones.text import bert
from rebus.backbones.text.bert import BERTConfig
from rebus.backbones.vision import resnet
from rebus.backbones.vision.resnet import ResNetConfig
from rebus.backbones.vision.vit import ViTConfig
from rebus.core.errors import BadConfig
from rebus.core.released_config import Released

Head = Literal["pretraining", "answers", "verdict", "choices", "phrases"]
CLASSES: Mapping[str, Head] = {  # the reference library's class for each head
    "VisualBertForPreTraining": "pretraining",
    "VisualBertForQuestionAnswering": "answers",
    "VisualBertForVisualReasoning": "verdict",
    "VisualBertForMultipleChoice": "choices",
    "VisualBertForRegionToPhraseAlignment": "phrases",
}
CLASS_OF = {head: name for name, head in CLASSES.items()}
TASKS: Mapping[Head, frozenset[str]] = {  # what a user can ask of a network with that head
    "pretraining": frozenset({"match"}),
    "answers": frozenset({"ask"}),
    "verdict": frozenset({"match"}),
    "choices": frozenset(),
    "phrases": frozenset({"detect"}),
}


@dataclass(frozen=True, kw_only=True)
class VisualBERTConfig:
    """`head`: blanks and matching ("pretraining"); which of the listed `answers` (VQA); whether a statement about one
    or two images is true ("verdict", NLVR2); which of several `choices` fits (VCR); which region each of some
    `phrases` means (Flickr30K Entities)."""

    text: BERTConfig = field(default_factory=lambda: bert.PRESETS["base"])
    region_width: int = 2048  # of the features of a region
    head: Head = "pretraining"
    num_answers: int = 3129  # of the head "answers", `<unk>` included
    late_fusion: bool = False  # the text goes through the blocks alone, and one more block joins it with the regions
    image: ViTConfig | ResNetConfig | None = None  # what makes regions of an image; None: features come with the batch
    choice_transform: bool = (
        False  # a hidden layer and a norm before the answers, which then are read at the question's
    )
    # last word: MMF's runs
    merge: int = 1  # neighbouring cells of its grid, along each side, that are one region


NUM_BOX_INPUTS = 6  # left, top, right, bottom, width, height, as shares of the image
_TINY = VisualBERTConfig(text=replace(bert.PRESETS["tiny"], pooler=True), region_width=14)
_GRID = ViTConfig(width=14, num_layers=1, num_heads=2, mlp_width=20, patch_size=8, image_size=24)
PRESETS = {
    "tiny": _TINY,
    "tiny_answers": replace(_TINY, head="answers", num_answers=11),
    "tiny_verdict": replace(_TINY, head="verdict"),
    "tiny_choices": replace(_TINY, head="choices"),
    "tiny_phrases": replace(_TINY, head="phrases"),
    "tiny_late": replace(_TINY, late_fusion=True),
    "tiny_transform": replace(_TINY, head="answers", num_answers=11, choice_transform=True),
    "tiny_grid": replace(_TINY, head="answers", num_answers=11, image=_GRID),
    "vqa_pre": VisualBERTConfig(),
    "vqa": VisualBERTConfig(head="answers"),
    "nlvr2_pre": VisualBERTConfig(region_width=1024),
    "nlvr2": VisualBERTConfig(region_width=1024, head="verdict"),
    "vcr_pre": VisualBERTConfig(region_width=512),
    "vcr": VisualBERTConfig(region_width=512, head="choices"),
    "flickr": VisualBERTConfig(region_width=2048 + NUM_BOX_INPUTS, head="phrases"),
}


def read_transformers(data: Mapping[str, Any]) -> VisualBERTConfig:
    """`config.json` of any of the reference classes, and ours, which may hold a `vision_config`.

    Raises `BadConfig` naming what is unknown or not supported.
    """
    fields = Released(data)
    names = fields.take("architectures", list, ["VisualBertForPreTraining"])
    if len(names) != 1 or names[0] not in CLASSES:
        raise BadConfig(f"{fields.where}.architectures: expected one of {', '.join(CLASSES)}; got {names}")
    head = CLASSES[names[0]]
    labels = fields.take("num_labels", int, len(data.get("id2label") or {}) or 2)
    fields.skip("special_visual_initialize")  # a way to begin, which the reference class overwrites
    region_width, late_fusion = (
        fields.size("visual_embedding_dim", 512),
        fields.take("bypass_transformer", bool, False),
    )
    image = _read_image(fields.part("vision_config")) if "vision_config" in data else None
    merge, transform = fields.size("vision_merge", 1), fields.take("choice_transform", bool, False)
    return VisualBERTConfig(
        text=bert.read_fields(fields, pooler=True),
        region_width=region_width,
        head=head,
        num_answers=labels if head == "answers" else VisualBERTConfig.num_answers,
        late_fusion=late_fusion,
        image=image,
        choice_transform=transform,
        merge=merge,
    )


def _read_image(part: Released) -> ViTConfig | ResNetConfig:
    kind = part.take("model_type", str)
    readers = {"clip_vision_model": read_clip_vision, "siglip_vision_model": read_siglip_vision}
    if kind in readers:
        found: ViTConfig | ResNetConfig = readers[kind](part)
    elif kind == "resnet":
        found = ResNetConfig(variant=part.take("architecture", resnet.Variant), num_classes=0)
    else:
        raise BadConfig(f"{part.where}.model_type: expected one of {', '.join([*readers, 'resnet'])}; got {kind!r}")
    part.finish()
    return found


def write_transformers(cfg: VisualBERTConfig) -> dict[str, Any]:
    """The `config.json` from which the reference class builds the same network; `vision_config` is ours."""
    if not cfg.text.pooler:
        raise BadConfig("text.pooler: every VisualBERT has one")
    found = {
        **bert.write_transformers(cfg.text),
        "architectures": [CLASS_OF[cfg.head]],
        "model_type": "visual_bert",
        "visual_embedding_dim": cfg.region_width,
        "bypass_transformer": cfg.late_fusion,
        "special_visual_initialize": True,
    }
    if cfg.head == "answers":
        found["id2label"] = {str(i): f"LABEL_{i}" for i in range(cfg.num_answers)}
        found["label2id"] = {name: int(i) for i, name in found["id2label"].items()}
    if isinstance(cfg.image, ViTConfig):
        kind = "clip_vision_model" if cfg.image.class_token else "siglip_vision_model"
        found["vision_config"] = {"model_type": kind, **write_vision(cfg.image)}
    elif cfg.image is not None:
        found["vision_config"] = {"model_type": "resnet", "architecture": cfg.image.variant}
    if cfg.choice_transform:
        found["choice_transform"] = True
    if cfg.merge > 1:
        found["vision_merge"] = cfg.merge
    return found


def infer_original(shapes: Mapping[str, tuple[int, ...]]) -> VisualBERTConfig:
    """The configuration of a `.th` file of the original code, which holds weights alone: heads are 64 wide."""
    inner = {name.removeprefix("module.").removeprefix("bert."): shape for name, shape in shapes.items()}
    cfg = _inferred(inner, inner.get("classifier.weight", (0,))[0])
    return replace(cfg, head="phrases") if "flickr_attention.query.weight" in inner else cfg


def infer_mmf(shapes: Mapping[str, tuple[int, ...]]) -> VisualBERTConfig:
    """The configuration of a file of MMF: heads are 64 wide. Raises `BadConfig` for NLVR2, which reads two images in
    two passes there."""
    inner = {name.removeprefix("model."): shape for name, shape in shapes.items()}
    rows, wide = inner.get("classifier.1.weight", (0, 0))
    cfg = _inferred(inner, rows)
    if rows and wide != cfg.text.width:
        raise BadConfig(
            f"a head of MMF that reads {wide} numbers in place of {cfg.text.width}: NLVR2's is not supported"
        )
    return replace(cfg, choice_transform=rows > 0)


def _inferred(inner: Mapping[str, tuple[int, ...]], outputs: int) -> VisualBERTConfig:
    """By the shapes of BERT's own tensors and of the regions', and how many outputs the head has."""
    vocab, width = inner["bert.embeddings.word_embeddings.weight"]
    layers = {found[1] for name in inner if (found := re.match(r"bert\.encoder\.layer\.(\d+)\.", name))}
    head: Head = "pretraining"
    if outputs:
        head = "choices" if outputs == 1 else "verdict" if outputs == 2 else "answers"
    return VisualBERTConfig(
        text=BERTConfig(
            width=width,
            num_layers=len(layers),
            num_heads=max(width // 64, 1),
            mlp_width=inner["bert.encoder.layer.0.intermediate.dense.weight"][0],
            vocab_size=vocab,
            context=inner["bert.embeddings.position_embeddings.weight"][0],
            num_types=inner["bert.embeddings.token_type_embeddings.weight"][0],
            pooler=True,
        ),
        region_width=inner["bert.embeddings.projection.weight"][1],
        head=head,
        num_answers=outputs if head == "answers" else VisualBERTConfig.num_answers,
        late_fusion="bert.additional_layer.output.dense.weight" in inner,
    )
