"""Every name a user may load: one table, imported on first use, free of torch.

A row is the whole truth about a checkpoint: architecture, size, where its weights were released, licence, tasks.
`parameters` counts the architecture as published, tied weights once.
"""

import difflib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from rebus.core.card import SHAPES, ModelCard
from rebus.core.errors import UnknownName, unknown
from rebus.core.system import Find, System


@dataclass(frozen=True, kw_only=True)
class SystemRow:
    """What the catalogue knows of a system without importing it."""

    module: str  # the file that says everything else about it
    model_types: tuple[str, ...]  # of `config.json`, by which its checkpoints are recognised
    family: str = "backbones"
    tasks: frozenset[str] = frozenset()
    idea: str = ""
    paper: str = ""


_DUAL_ENCODER = frozenset({"embed_images", "embed_texts", "match", "classify"})

SYSTEMS = {
    "clip": SystemRow(
        module="rebus.models.contrastive.clip",
        model_types=("clip",),
        family="contrastive",
        tasks=_DUAL_ENCODER,
        idea="two towers, one space, a softmax over the batch",
        paper="Radford et al., Learning Transferable Visual Models From Natural Language Supervision, 2021",
    ),
    "siglip": SystemRow(
        module="rebus.models.contrastive.siglip",
        model_types=("siglip", "siglip2"),
        family="contrastive",
        tasks=_DUAL_ENCODER,
        idea="two towers, one space, a sigmoid on every pair",
        paper="Zhai et al., Sigmoid Loss for Language Image Pre-Training, 2023",
    ),
    "align": SystemRow(
        module="rebus.models.contrastive.align",
        model_types=("align",),
        family="contrastive",
        tasks=_DUAL_ENCODER,
        idea="two towers, one softmax, and more noisy pairs than anybody could clean",
        paper="Jia et al., Scaling Up Visual and Vision-Language Representation Learning With Noisy Text Supervision, "
        "2021",
    ),
    "lit": SystemRow(
        module="rebus.models.contrastive.lit",
        model_types=("lit",),
        family="contrastive",
        tasks=_DUAL_ENCODER,
        idea="a trained image tower that stays locked teaches a text tower its space",
        paper="Zhai et al., LiT: Zero-Shot Transfer with Locked-image text Tuning, 2022",
    ),
    "paligemma": SystemRow(
        module="rebus.models.unified.paligemma",
        model_types=("paligemma",),
        family="unified",
        tasks=frozenset({"caption", "ask", "classify", "detect", "segment", "stream"}),
        idea="SigLIP's image encoder, one linear layer, and Gemma writes the answer; boxes and masks are text too",
        paper="Beyer et al., PaliGemma: A versatile 3B VLM for transfer, 2024",
    ),
    "asif": SystemRow(
        module="rebus.models.training_free.asif",
        model_types=("asif",),
        family="training_free",
        tasks=_DUAL_ENCODER,
        idea="no training: an image is described by the captioned images it resembles, a text by the captions it "
        "resembles, and the two descriptions are compared",
        paper="Norelli et al., ASIF: Coupled Data Turns Unimodal Models to Multimodal Without Training, 2023",
    ),
    "magic": SystemRow(
        module="rebus.models.training_free.magic",
        model_types=("magic",),
        family="training_free",
        tasks=frozenset({"caption", "complete", "stream"}),
        idea="no training: a language model that never saw an image proposes words, a dual encoder says which of them "
        "go with the image",
        paper="Su et al., Language Models Can See: Plugging Visual Controls in Text Generation, 2022",
    ),
}
BACKBONES = {  # networks of one input with checkpoints of their own: what a training can start from
    "vit": SystemRow(
        module="rebus.backbones.vision.vit_layouts", model_types=("clip_vision_model", "siglip_vision_model")
    ),
    "resnet": SystemRow(module="rebus.backbones.vision.resnet", model_types=()),
    "efficientnet": SystemRow(module="rebus.backbones.vision.efficientnet", model_types=()),
    "bert": SystemRow(module="rebus.backbones.text.bert", model_types=("bert",)),
    "gemma": SystemRow(module="rebus.backbones.text.gemma_layouts", model_types=("gemma", "gemma2")),
    "gpt2": SystemRow(module="rebus.backbones.text.gpt2", model_types=("gpt2",)),
    "llama": SystemRow(module="rebus.backbones.text.llama_layouts", model_types=("llama",)),
    "mask_vqvae": SystemRow(module="rebus.backbones.vision.mask_vqvae", model_types=()),
}


def _row(system: str, variant: str, **fields: Any) -> ModelCard:
    """The card of a variant; what it shares with its system stands there."""
    of = SYSTEMS[system]
    shared = {"family": of.family, "tasks": of.tasks, "idea": of.idea, "paper": of.paper}
    return ModelCard(name=f"{system}/{variant}", system=system, **{**shared, **fields})


def _clip(variant: str, preset: str, parameters: int, repo: str | None, license: str = "MIT") -> ModelCard:
    return _row(
        "clip",
        variant,
        preset=preset,
        parameters=parameters,
        license=license,
        released=repo is not None,
        repo=repo,
        instead=None if repo else "clip/l14 or clip/h14; these weights were released only as an open_clip archive",
    )


def _siglip(variant: str, parameters: int, repo: str) -> ModelCard:
    second = {"paper": "Tschannen et al., SigLIP 2: Multilingual Vision-Language Encoders, 2025"}
    return _row(
        "siglip",
        variant,
        preset=variant.replace("-", "_"),
        parameters=parameters,
        **(second if variant.startswith("v2") else {}),
        license="Apache-2.0",
        released=True,
        repo=f"google/{repo}",
    )


def _paligemma(variant: str, preset: str, parameters: int) -> ModelCard:
    second = variant.startswith("v2-")
    paper = {"paper": "Steiner et al., PaliGemma 2: A Family of Versatile VLMs for Transfer, 2024"}
    base = "-pt-" in variant
    return _row(
        "paligemma",
        variant,
        preset=preset,
        parameters=parameters,
        license="Gemma terms of use (gated)",
        released=True,
        repo=f"google/paligemma2-{variant[3:]}" if second else f"google/paligemma-{variant}",
        ready=not base,
        note="pt: a base for fine-tuning, answers the exact task prompts only"
        if base
        else "mix: fine-tuned on a mixture of tasks, ready to use",
        **(paper if second else {}),
    )


_LAION = "laion/CLIP-ViT-"
_CLIP = [
    _clip("b32", "b32", 151_277_313, "openai/clip-vit-base-patch32"),
    _clip("b16", "b16", 149_620_737, "openai/clip-vit-base-patch16"),
    _clip("l14", "l14", 427_616_513, "openai/clip-vit-large-patch14"),
    _clip("l14-336", "l14_336", 427_944_193, "openai/clip-vit-large-patch14-336"),
    _clip("rn50", "rn50", 102_007_137, "timm/resnet50_clip.openai"),
    _clip("rn101", "rn101", 119_688_033, "timm/resnet101_clip.openai"),
    _clip("rn50x4", "rn50x4", 178_300_601, "timm/resnet50x4_clip.openai"),
    _clip("rn50x16", "rn50x16", 290_979_217, "timm/resnet50x16_clip.openai"),
    _clip("rn50x64", "rn50x64", 623_258_305, "timm/resnet50x64_clip.openai"),
    _clip("b32-laion2b", "b32_gelu", 151_277_313, _LAION + "B-32-laion2B-s34B-b79K"),
    _clip("b16-laion2b", "b16_gelu", 149_620_737, _LAION + "B-16-laion2B-s34B-b88K"),
    _clip("l14-laion2b", "l14_gelu", 427_616_513, _LAION + "L-14-laion2B-s32B-b82K"),
    _clip("b16-plus-240", "b16_plus_240", 208_377_345, None),
    _clip("h14", "h14", 986_109_441, _LAION + "H-14-laion2B-s32B-b79K"),
    _clip("g14", "g14", 1_366_678_273, _LAION + "g-14-laion2B-s34B-b88K"),
    _clip("bigg14", "bigg14", 2_539_567_105, _LAION + "bigG-14-laion2B-39B-b160k"),
]
_SIGLIP = [
    _siglip("b16-224", 203_155_970, "siglip-base-patch16-224"),
    _siglip("b16-256", 203_202_050, "siglip-base-patch16-256"),
    _siglip("b16-384", 203_447_810, "siglip-base-patch16-384"),
    _siglip("b16-512", 203_791_874, "siglip-base-patch16-512"),
    _siglip("b16-256-multilingual", 370_626_050, "siglip-base-patch16-256-multilingual"),
    _siglip("l16-256", 652_150_786, "siglip-large-patch16-256"),
    _siglip("l16-384", 652_478_466, "siglip-large-patch16-384"),
    _siglip("so400m14-224", 877_360_306, "siglip-so400m-patch14-224"),
    _siglip("so400m14-384", 877_960_498, "siglip-so400m-patch14-384"),
    _siglip("so400m16-256-i18n", 1_127_430_706, "siglip-so400m-patch16-256-i18n"),
    _siglip("v2-b32-256", 376_856_066, "siglip2-base-patch32-256"),
    _siglip("v2-b16-224", 375_187_970, "siglip2-base-patch16-224"),
    _siglip("v2-b16-256", 375_234_050, "siglip2-base-patch16-256"),
    _siglip("v2-b16-384", 375_479_810, "siglip2-base-patch16-384"),
    _siglip("v2-b16-512", 375_823_874, "siglip2-base-patch16-512"),
    _siglip("v2-l16-256", 881_526_786, "siglip2-large-patch16-256"),
    _siglip("v2-l16-384", 881_854_466, "siglip2-large-patch16-384"),
    _siglip("v2-l16-512", 882_313_218, "siglip2-large-patch16-512"),
    _siglip("v2-so400m14-224", 1_135_463_602, "siglip2-so400m-patch14-224"),
    _siglip("v2-so400m14-384", 1_136_008_498, "siglip2-so400m-patch14-384"),
    _siglip("v2-so400m16-256", 1_135_670_962, "siglip2-so400m-patch16-256"),
    _siglip("v2-so400m16-384", 1_136_039_602, "siglip2-so400m-patch16-384"),
    _siglip("v2-so400m16-512", 1_136_555_698, "siglip2-so400m-patch16-512"),
    _siglip("v2-g16-256", 1_871_393_906, "siglip2-giant-opt-patch16-256"),
    _siglip("v2-g16-384", 1_871_885_426, "siglip2-giant-opt-patch16-384"),
    _siglip("v2-b16-naflex", 375_234_050, "siglip2-base-patch16-naflex"),
    _siglip("v2-so400m16-naflex", 1_135_670_962, "siglip2-so400m-patch16-naflex"),
]
_ALIGN = [
    _row(
        "align",
        "base",
        preset="b7_base",
        parameters=172_117_841,
        license="Apache-2.0",
        released=True,
        repo="kakaobrain/align-base",
        note="Kakao Brain's, trained on COYO-700M",
    ),
    _row(
        "align",
        "l2-large",
        preset="l2_large",
        parameters=874_917_557,
        license="never released",
        instead="align/base; Google released neither weights nor data",
    ),
    _row(
        "align",
        "b3-mini",
        preset="b3_mini",
        parameters=21_684_777,
        license="never released",
        instead="align/base; this size was reported for CC3M alone",
    ),
]
_PALIGEMMA_SIZES = {
    "3b": 2_923_335_408,
    "v2-3b": 3_032_094_960,
    "v2-10b": 9_662_409_456,
    "v2-28b": 27_650_192_112,
}
_LONGER = {224: 0, 448: 884_736, 896: 4_423_680}  # only the position table grows with the image
_PALIGEMMA = [
    _paligemma(f"{size}-{kind}-{side}", f"{size.replace('-', '_')}_{side}", parameters + longer)
    for size, parameters in _PALIGEMMA_SIZES.items()
    for side, longer in _LONGER.items()
    for kind in ("pt", "mix")
    if not (kind == "mix" and side == 896)
]


def _magic(variant: str, parameters: int, text: str, note: str) -> ModelCard:
    parts, license = {"text": text, "guide": "clip/b32"}, "not stated (language model), MIT (guide)"
    own = {"preset": variant, "parameters": parameters, "license": license, "parts": parts, "note": note}
    return _row("magic", variant, released=True, repo=text, ready=variant != "stories", **own)


_MAGIC = [
    _magic("coco", 275_718_657, "cambridgeltl/magic_mscoco", "a GPT-2 that read COCO's captions without images"),
    _magic("flickr30k", 275_718_657, "cambridgeltl/magic_flickr30k", "a GPT-2 that read Flickr30k's captions"),
    _magic("stories", 275_717_889, "cambridgeltl/simctg_rocstories", "a story after a title, guided by an image"),
]
_STARTERS = [
    _row(
        "asif",
        "starter",
        preset="starter",
        parameters=0,
        idea="no training: an image is described by the ImageNet classes it resembles, a text by the class names it "
        "resembles, and the two descriptions are compared",
        license="Apache-2.0 (EfficientNet-Lite0, all-MiniLM-L6-v2)",
        extra="starter",
        note='real photos, offline, with the extra "starter"',
        scores={
            "command": "python benchmarks/starter.py FOLDER",
            "hardware": "any: what is found does not depend on it, but for the last digits",
            "scores": {
                "ImageNet, 750 photos, 1,000 names": {"top-1": 0.839},
                "CIFAR-10, 4,000 test images": {"top-1": 0.539},
                "Flickr8k, 100 photos by a caption": {
                    "class pairs": {"R@1": 0.17, "R@5": 0.57, "R@10": 0.72},
                    "700 captioned photos instead": {"R@1": 0.26, "R@5": 0.60, "R@10": 0.73},
                    "both": {"R@1": 0.33, "R@5": 0.64, "R@10": 0.86},
                },
            },
        },
    ),
    _row(
        "magic",
        "starter",
        preset="starter",
        parameters=0,
        license="Apache-2.0 (SmolLM2-135M, EfficientNet-Lite0, all-MiniLM-L6-v2)",
        extra="captions",
        note='real photos, offline, with the extra "captions"',
        scores={
            "command": "python benchmarks/magic.py photos flickr8k_1k",
            "hardware": "one core of an AMD EPYC, float32: 0.72 seconds of the processor a photo",
            "scores": {
                "Flickr8k, 100 held-out photos": {
                    "guided": {"guide_score": 0.313, "CIDEr-D": 0.069, "ROUGE-L": 0.261, "BLEU-1": 0.352},
                    "unguided": {"guide_score": 0.015, "CIDEr-D": 0.037, "ROUGE-L": 0.291, "BLEU-1": 0.401},
                    "better by the guide": 0.98,
                },
            },
        },
    ),
    _row(
        "lit",
        "starter",
        preset="starter",
        parameters=28_241_129,
        license="Apache-2.0 (EfficientNet-Lite0, all-MiniLM-L6-v2)",
        extra="starter",
        ready=False,
        note="what `rebus train lit_photos` starts from: trained towers, heads that know the names of the classes",
    ),
]
SMALL = "clip/b32"  # whose speed is measured where any model will do: it trains on every machine
ROWS: dict[str, ModelCard] = {card.name: card for card in (*_CLIP, *_SIGLIP, *_ALIGN, *_PALIGEMMA, *_MAGIC, *_STARTERS)}


def checkpoint_folder() -> Path:
    """Where the bundled checkpoints lie in this package."""
    return Path(__file__).parent / "checkpoints"


@cache
def bundled() -> dict[str, ModelCard]:
    """The checkpoints in the package, `<system>/scenes`, with the scores on their cards."""
    found = {}
    for path in sorted(checkpoint_folder().glob("*/card.json")):
        data = json.loads(path.read_text())
        found[data["name"]] = _row(
            data["system"],
            data["name"].removeprefix(f"{data['system']}/"),
            preset="",
            parts=data.get("parts", {}),
            settings=data.get("settings", {}),
            parameters=data["parameters"],
            license="Apache-2.0",
            bundled=True,
            domain=SHAPES,
            note=data.get("note", ""),
            scores={key: data[key] for key in ("command", "seed", "hardware", "scores") if key in data},
        )
    return found


def bundled_folder(name: str) -> Path:
    """Where the bundled checkpoint of that name lies, if it is one."""
    return checkpoint_folder() / name.replace("/", "_")


def cards() -> Iterator[ModelCard]:
    """All rows: bundled ones first, then the published ones."""
    yield from bundled().values()
    yield from ROWS.values()


def list_models(family: str | None = None, task: str | None = None, released: bool | None = None) -> list[ModelCard]:
    """The cards of all models, or of those of a family, with a task, or whose weights were (not) released."""
    return [
        row
        for row in cards()
        if (family is None or row.family == family)
        and (task is None or task in row.tasks)
        and (released is None or row.released == released)
    ]


def info(name: str) -> ModelCard:
    """The row of a name; raises `UnknownName` with the nearest ones."""
    rows = {row.name: row for row in cards()}
    if name not in rows:
        raise unknown("model", name, rows, see="`rebus models` lists them all.")
    return rows[name]


def find(name: str) -> ModelCard | None:
    """The row of a name; None for what is no name of the catalogue. Raises `UnknownName` for a misspelt one."""
    rows = {row.name: row for row in cards()}
    if name in rows or name.split("/")[0] not in SYSTEMS or Path(name).exists():
        return rows.get(name)
    return info(name)


def system_row(name: str) -> SystemRow:
    """A system or backbone by its name."""
    rows = SYSTEMS | BACKBONES
    if name not in rows:
        raise unknown("system", name, rows)
    return rows[name]


def system(name: str) -> System:
    """The description at the end of a system's file; imports torch. A system with parts of other systems is handed the
    look-up of those."""
    found: System | Callable[[Find], System] = import_module(system_row(name).module).SYSTEM
    return found if isinstance(found, System) else found(system)


def systems() -> Iterator[System]:
    """All of them, backbones last."""
    yield from map(system, (*SYSTEMS, *BACKBONES))


def models_that_can(task: str) -> list[str]:
    """A few names to try for a task: published models that are ready to use, then those in the package."""
    able = [row for row in cards() if task in row.tasks and row.ready]
    return [row.name for row in able if not row.bundled][:3] + [row.name for row in able if row.bundled]


def system_of_type(model_type: str) -> str:
    """The system behind a released `model_type`; raises `UnknownName` naming those that can be loaded."""
    types = {kind: name for name, row in (SYSTEMS | BACKBONES).items() for kind in row.model_types}
    if model_type in types:
        return types[model_type]
    near = difflib.get_close_matches(model_type, types, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise UnknownName(f"config.json: model_type {model_type!r} is not one of {', '.join(types)}{hint}")
