"""Chameleon as Meta released it, and Anole, which draws."""

from rebus.catalog.card_of import card_of
from rebus.catalog.systems import SYSTEMS

_ALL = SYSTEMS["chameleon"].tasks
_TEXT_OUT = "reads images and writes text alone: its scores of images were not released"

CARDS = [
    card_of(
        "chameleon",
        variant,
        preset=preset,
        parameters=parameters,
        repo=repo,
        license="Chameleon Research License",
        released=True,
        tasks=tasks,
        note=note,
    )
    for variant, preset, parameters, repo, tasks, note in (
        ("7b", "7b", 7_043_090_432, "facebook/chameleon-7b", _ALL - {"imagine"}, _TEXT_OUT),
        ("30b", "34b", 34_323_732_480, "facebook/chameleon-30b", _ALL - {"imagine"}, _TEXT_OUT),
        ("anole-7b", "anole_7b", 7_082_385_283, "leloy/Anole-7b-v0.1-hf", _ALL, "writes images, too"),
    )
]
