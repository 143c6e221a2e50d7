"""Dual encoders: CLIP, SigLIP, ALIGN, and LiT of two trained encoders."""

from rebus.catalog.card_of import card_of
from rebus.core.card import ModelCard


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
        instead="align/base; this size was reported for CC3M only",
    ),
]
_LIT_STARTER = card_of(
    "lit",
    "starter",
    preset="starter",
    parameters=28_241_129,
    license="Apache-2.0 (EfficientNet-Lite0, all-MiniLM-L6-v2)",
    extra="starter",
    ready=False,
    note="start of `rebus train lit_photos`: pretrained encoders, and heads fitted on the names of the classes",
)
CARDS = [*_CLIP, *_SIGLIP, *_ALIGN, _LIT_STARTER]
