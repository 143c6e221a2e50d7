"""Every published checkpoint: a row is the whole truth about one.

Architecture, size, where its weights were released, licence. `parameters` counts the architecture as published, tied
weights once.
"""

from typing import Any

from rebus.catalog import visualbert
from rebus.catalog.systems import SYSTEMS
from rebus.core.card import ModelCard


def card_of(system: str, variant: str, **fields: Any) -> ModelCard:
    """The card of a variant; what it shares with its system stands there. `name`: where it is not `system/variant`."""
    of = SYSTEMS[system]
    shared = {"family": of.family, "tasks": of.tasks, "idea": of.idea, "paper": of.paper}
    return ModelCard(system=system, **{"name": f"{system}/{variant}", **shared, **fields})


def _clip(variant: str, preset: str, parameters: int, repo: str | None, license: str = "MIT") -> ModelCard:
    return card_of(
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
    return card_of(
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
    return card_of(
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


def _virtex(variant: str, parameters: int, zoo: str, writes: bool = True) -> ModelCard:
    return card_of(
        "virtex",
        variant,
        preset=variant.replace("-", "_"),
        parameters=parameters,
        license="MIT",
        released=True,
        ready=False,
        instead=f"the file of {zoo} in the model zoo of kdexd/virtex, by its path: rebus.load(FILE)",
        **({} if writes else {"tasks": frozenset()}),
    )


def _magic(variant: str, parameters: int, text: str, note: str) -> ModelCard:
    parts, license = {"text": text, "guide": "clip/b32"}, "not stated (language model), MIT (guide)"
    own = {"preset": variant, "parameters": parameters, "license": license, "parts": parts, "note": note}
    return card_of("magic", variant, released=True, repo=text, **own)


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
    card_of(
        "align",
        "base",
        preset="b7_base",
        parameters=172_117_841,
        license="Apache-2.0",
        released=True,
        repo="kakaobrain/align-base",
        note="Kakao Brain's, trained on COYO-700M",
    ),
    card_of(
        "align",
        "l2-large",
        preset="l2_large",
        parameters=874_917_557,
        license="never released",
        instead="align/base; Google released neither weights nor data",
    ),
    card_of(
        "align",
        "b3-mini",
        preset="b3_mini",
        parameters=21_684_777,
        license="never released",
        instead="align/base; this size was reported for CC3M alone",
    ),
]
_SIMVLM = [
    card_of(
        "simvlm",
        size,
        preset=size,
        parameters=parameters,
        license="never released",
        instead="paligemma/3b-mix-224, which writes after an image, too; or train one: `rebus plan simvlm/base`",
    )
    for size, parameters in (
        ("small", 103_575_680),
        ("base", 251_829_584),
        ("large", 767_529_408),
        ("huge", 1_555_725_120),
    )
]
_VIRTEX = [
    _virtex("r50-l1-h512", 38_111_568, "width_ablations/bicaptioning_R_50_L1_H512"),
    _virtex("r50-l1-h768", 51_699_792, "width_ablations/bicaptioning_R_50_L1_H768"),
    _virtex("r50-l1-h1024", 69_482_320, "width_ablations/bicaptioning_R_50_L1_H1024"),
    _virtex("r50-l1-h2048", 182_555_472, "width_ablations/bicaptioning_R_50_L1_H2048"),
    _virtex("r50-l2-h1024", 103_075_664, "depth_ablations/bicaptioning_R_50_L2_H1024"),
    _virtex("r50-l3-h1024", 136_669_008, "depth_ablations/bicaptioning_R_50_L3_H1024"),
    _virtex("r50-l4-h1024", 170_262_352, "depth_ablations/bicaptioning_R_50_L4_H1024"),
    _virtex("r50w2x-l1-h1024", 112_808_528, "backbone_ablations/bicaptioning_R_50W2X_L1_H1024"),
    _virtex("r101-l1-h1024", 88_474_448, "backbone_ablations/bicaptioning_R_101_L1_H1024"),
    _virtex("r50-l1-h2048-forward", 115_407_696, "task_ablations/captioning_R_50_L1_H2048"),
    _virtex("r50-l1-h2048-masked", 115_407_696, "task_ablations/masked_lm_R_50_L1_H2048", writes=False),
    _virtex("r50-tokens", 43_998_032, "task_ablations/token_classification_R_50", writes=False),
    _virtex("r50-labels", 23_674_001, "task_ablations/multilabel_classification_R_50", writes=False),
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
_VILD = [
    card_of(
        "vild",
        f"{backbone}{kind}",
        preset=f"{backbone}{kind}".replace("-", "_"),
        parameters=parameters,
        license="Apache-2.0",
        released=True,
        ready=False,
        instead=f"the released archive {backbone}_vild{kind.replace('-', '_')}.tar.gz: unpack it, load its .index",
        note="for TensorFlow 1, without a text encoder: rebus.models.distillation.vild.take_text_encoder gives it one",
    )
    for backbone, sizes in {"resnet50": (48_051_284, 64_838_228), "resnet152": (82_687_060, 99_474_004)}.items()
    for kind, parameters in zip(("", "-ensemble"), sizes, strict=True)
]
_MAGIC = [
    _magic("coco", 275_718_657, "cambridgeltl/magic_mscoco", "a GPT-2 that read COCO's captions without images"),
    _magic("flickr30k", 275_718_657, "cambridgeltl/magic_flickr30k", "a GPT-2 that read Flickr30k's captions"),
    _magic("stories", 275_717_889, "cambridgeltl/simctg_rocstories", "a story after a title, guided by an image"),
]
_VISUALBERT = [card_of("visualbert", variant, **fields) for variant, fields in visualbert.CARDS.items()]
_STARTERS = [
    card_of(
        "magic",
        "starter",
        preset="starter",
        parameters=0,
        license="Apache-2.0 (SmolLM2-135M, EfficientNet-Lite0, all-MiniLM-L6-v2)",
        extra="captions",
        note='real photos, offline, with the extra "captions"',
        scores={
            "command": "python benchmarks/magic.py photos flickr8k_1k",
            "hardware": "one core of an AMD EPYC, float32: 0.58 seconds of the processor a photo",
            "scores": {
                "Flickr8k, 100 held-out photos": {
                    "guided": {"guide_score": 0.327, "CIDEr-D": 0.104, "ROUGE-L": 0.322, "BLEU-1": 0.431},
                    "unguided": {"guide_score": 0.015, "CIDEr-D": 0.037, "ROUGE-L": 0.291, "BLEU-1": 0.401},
                    "better by the guide": 0.98,
                },
            },
        },
    ),
    card_of(
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
    card_of(
        "crops",
        "starter",
        name="vild/starter",
        preset="starter",
        parameters=0,
        license="MIT (Tiny YOLOv2), Apache-2.0 (EfficientNet-Lite0, all-MiniLM-L6-v2)",
        parts={"encoder": "asif/starter"},
        extra="detector",
        note='real photos, offline, with the extra "detector"; boxes of any words',
        scores={
            "command": "python benchmarks/starter.py FOLDER --only coco",
            "hardware": "any: what is found does not depend on it, but for the last digits",
            "scores": {
                "COCO, 127 photos, 80 names": {"AP50": 0.238, "AP": 0.128},
                "64 of them, on which settings were chosen": {"AP50": 0.274},
                "the other 63": {"AP50": 0.226},
            },
        },
    ),
    card_of(
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
ROWS: dict[str, ModelCard] = {
    card.name: card
    for card in (*_CLIP, *_SIGLIP, *_ALIGN, *_SIMVLM, *_VIRTEX, *_VISUALBERT, *_PALIGEMMA, *_VILD, *_MAGIC, *_STARTERS)
}
