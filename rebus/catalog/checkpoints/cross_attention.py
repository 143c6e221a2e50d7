"""VisualGPT, whose weights were never released."""

from rebus.catalog.card_of import card_of

_VISUALGPT = [
    card_of(
        "visualgpt",
        size.replace("_", "-"),
        preset=size,
        parameters=parameters,
        license="never released",
        instead="paligemma/3b-mix-224, which captions photos; or train one from GPT-2: `rebus plan visualgpt/base`",
    )
    for size, parameters in (
        ("base", 213_400_320),
        ("base_r101", 255_900_480),
        ("medium", 633_953_280),
        ("large", 1_402_232_064),
    )
]
CARDS = _VISUALGPT
