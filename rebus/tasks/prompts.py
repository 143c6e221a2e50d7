"""The published prompt templates of CLIP; several are averaged.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021, sec. 3.1.4. "itap" is
short for "I took an image"; articles are never adjusted to the label. Those for the classes of LVIS are about
things in a scene, and theirs are: Gu et al., "Open-vocabulary Object Detection via Vision and Language Knowledge
Distillation", 2022, appendix.

A sentence has one place for the label: `{}` as it is; `{name}` in the plain spelling of `rebus.core.labels`;
`{a name}` the same with its article, "a red cap" or "an apple".
"""

from collections.abc import Callable, Sequence

from rebus.core.errors import UsageError, unknown
from rebus.core.labels import plain_label

_MEDIA = (
    "a bad photo of",
    "a sculpture of",
    "a low resolution photo of",
    "a rendering of",
    "graffiti of",
    "a cropped photo of",
    "a tattoo of",
    "a bright photo of",
    "a dark photo of",
    "a drawing of",
    "a close-up photo of",
    "a black and white photo of",
    "a painting of",
    "a pixelated photo of",
    "a jpeg corrupted photo of",
    "a blurry photo of",
    "a good photo of",
    "a doodle of",
    "a sketch of",
    "a rendition of",
    "art of",
)
_CIFAR = (
    "a photo of {} {}.",
    "a blurry photo of {} {}.",
    "a black and white photo of {} {}.",
    "a low contrast photo of {} {}.",
    "a high contrast photo of {} {}.",
    "a bad photo of {} {}.",
    "a good photo of {} {}.",
    "a photo of {} small {}.",
    "a photo of {} big {}.",
)

IMAGENET = (
    *(f"{medium} {article} {{}}." for medium in _MEDIA for article in ("a", "the")),
    *(f"{verb} {article} {{}}." for verb in ("a photo of", "itap of") for article in ("a", "the", "my")),
    *(
        f"a photo of {article} {look} {{}}."
        for look in ("hard to see", "clean", "dirty", "cool", "large", "nice", "weird", "small")
        for article in ("a", "the")
    ),
    *(
        f"{article} {make} {{}}."
        for make in ("embroidered", "plastic", "origami", "toy", "cartoon", "plushie")
        for article in ("a", "the")
    ),
    "a {} in a video game.",
    "the {} in a video game.",
    "a photo of many {}.",
    "a photo of one {}.",
)

# The best seven for ImageNet, found by forward selection, in the order of the release.
IMAGENET_BEST = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)

CIFAR = tuple(text.format(article, "{}") for article in ("a", "the") for text in _CIFAR)

_ONE = ("{a name}", "the {name}")
_SEEN = (  # where one of several words stands, each makes a sentence
    *(f"a photo of {one}" for one in (*_ONE, "my {name}", "one {name}", "many {name}")),
    *(f"a {look} photo of {one}" for look in ("good", "bad", "bright", "dark") for one in _ONE),
    *(
        f"a photo of {article} {look} {{name}}"
        for look in ("nice", "cool", "weird", "small", "large", "clean", "dirty", "hard to see")
        for article in ("a", "the")
    ),
    *(
        f"a {look} photo of {one}"
        for look in (
            *("low resolution", "cropped", "close-up", "jpeg corrupted", "blurry", "pixelated", "black and white"),
        )
        for one in _ONE
    ),
    *(f"{article} {make} {{name}}" for make in ("plastic", "toy", "plushie", "cartoon") for article in ("a", "the")),
    "an embroidered {name}",
    "the embroidered {name}",
    "a painting of the {name}",
    "a painting of a {name}",
)
LVIS = (
    *(f"There is {one} in the scene." for one in _ONE),
    *(f"This is a photo of {one} in the scene." for one in (*_ONE, "one {name}")),
    *(f"itap of {one}." for one in (*_ONE, "my {name}")),
    *(f"This is {seen}." for seen in _SEEN),
)

SETS: dict[str, tuple[str, ...]] = {
    "imagenet": IMAGENET,
    "imagenet_best": IMAGENET_BEST,
    "cifar10": CIFAR,
    "cifar100": CIFAR,
    "lvis": LVIS,
    "plain": ("{}",),
}


def templates_of(templates: str | Sequence[str]) -> tuple[str, ...]:
    """The sentences of a named set, or those given. Raises `UnknownName`, or `UsageError` for one without `{}`."""
    if isinstance(templates, str):
        if not _has_place(templates) and templates not in SETS:
            raise unknown(
                "set of templates",
                templates,
                SETS,
                f"There are: {', '.join(SETS)}. A template of your own holds {{}} where the label goes.",
            )
        return SETS.get(templates, (templates,))
    if not templates:
        raise UsageError("templates is empty: give at least one sentence with {} where the label goes")
    for template in templates:
        if not isinstance(template, str) or not _has_place(template):
            raise UsageError(f"a template is a sentence with {{}} where the label goes; got {template!r}")
    return tuple(templates)


def fill(template: str, label: str) -> str:
    """The label in its place, whatever braces it holds itself."""
    for place, write in _PLACES.items():
        if place in template:
            return template.replace(place, write(label))
    raise AssertionError(f"no place for a label in {template!r}")


def _has_place(template: str) -> bool:
    return any(place in template for place in _PLACES)


def _with_article(label: str) -> str:
    name = plain_label(label)
    return f"{'an' if name[:1] in tuple('aeiou') else 'a'} {name}"


_PLACES: dict[str, Callable[[str], str]] = {"{}": str, "{name}": plain_label, "{a name}": _with_article}
