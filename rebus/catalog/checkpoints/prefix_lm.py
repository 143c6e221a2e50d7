"""Language models that read an image first: SimVLM, VirTex."""

from rebus.catalog.card_of import card_of
from rebus.core.card import ModelCard


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


_SIMVLM = [
    card_of(
        "simvlm",
        size,
        preset=size,
        parameters=parameters,
        license="never released",
        instead="paligemma/3b-mix-224, which also completes text; or train one: `rebus plan simvlm/base`",
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
CARDS = [*_SIMVLM, *_VIRTEX]
