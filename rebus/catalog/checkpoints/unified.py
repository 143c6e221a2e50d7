"""Generative models of every task: PaliGemma, PaLI-3, Florence-2."""

from rebus.catalog.card_of import card_of
from rebus.core.card import ModelCard


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


def _florence2(variant: str, preset: str, parameters: int, note: str) -> ModelCard:
    return card_of(
        "florence2",
        variant,
        preset=preset,
        parameters=parameters,
        license="MIT",
        released=True,
        repo=f"microsoft/Florence-2-{variant}",
        note=note,
    )


_PALI3 = [
    card_of(
        "pali3",
        preset.replace("_", "-"),
        preset=preset,
        parameters=parameters,
        license="never released",
        instead="paligemma/3b-mix-224, its open descendant; or train one from SigLIP and T5, whose weights are open: "
        "`rebus train pali3_siglip_t5`",
        note=note,
    )
    for preset, parameters, note in (
        ("5b_224", 5_076_572_544, "text part: T5 XL's shape and mT5's vocabulary, since UL2's were not published"),
        ("5b_812", 5_081_744_256, "most tasks were measured at this size"),
        ("5b_1064", 5_085_757_824, "documents and infographics were measured at this size"),
        ("study_b16", 3_317_762_304, "with the image encoder ViT-B/16"),
        ("study_l16", 3_535_789_056, "with the image encoder ViT-L/16"),
        ("so400m_t5_xl", 3_264_560_880, "made of parts that were released: SigLIP So400m/14 and T5 1.1 XL"),
    )
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
_FLORENCE2 = [
    _florence2("base", "base", 231_414_016, "pretrained on FLD-5B: captions, boxes, masks, reading"),
    _florence2("base-ft", "base", 231_414_016, "fine-tuned on a mixture of tasks"),
    _florence2("large", "large_4k", 776_465_408, "pretrained further for 4,096 tokens of context"),
    _florence2("large-ft", "large", 770_173_952, "fine-tuned on a mixture of tasks"),
]
CARDS = [*_PALIGEMMA, *_PALI3, *_FLORENCE2]
