"""What may be done with the weights of a card, whether they are gated, and where that is said. No legal advice."""

from dataclasses import dataclass
from typing import Literal

from rebus.core.card import ModelCard

Commercial = Literal["yes", "conditions", "no", "unknown"]
COMMERCIAL: tuple[Commercial, ...] = ("yes", "conditions", "no", "unknown")


@dataclass(frozen=True)
class Terms:
    """Of a licence. `conditions`: commercial use is allowed under terms of its own. `gated`: the Hub hands the
    weights only to those who accepted the terms there."""

    commercial: Commercial
    says: str
    gated: bool = False


_PERMISSIVE = Terms("yes", "any use, as long as the notice of the licence is kept")
TERMS = {  # licence as it stands on cards, without what is in brackets
    "MIT": _PERMISSIVE,
    "Apache-2.0": _PERMISSIVE,
    "MIT, Apache-2.0": _PERMISSIVE,
    "MIT; that of the language model applies too": Terms(
        "unknown", "the trained layers are free for any use; the language model has terms of its own"
    ),
    "Apache-2.0; learned from photos of Flickr8k and of COCO": Terms(
        "unknown",
        "the networks are free for any use; Flickr8k, on which the weights between them were trained, is not",
    ),
    "other: LLaMA's, not commercial": Terms("no", "research only"),
    "not stated, MIT": Terms("unknown", "the authors state no licence for the language model"),
    "Gemma terms of use": Terms(
        "conditions", "commercial use under Google's terms and its list of forbidden uses", True
    ),
    "Chameleon Research License": Terms("no", "non-commercial research only", True),
    "never released": Terms("unknown", "there are no weights that could have a licence"),
}


def terms_of(card: ModelCard) -> Terms:
    """Raises `KeyError` for a licence that nobody has looked up."""
    return TERMS[_plain(card.license)]


def source_of(card: ModelCard) -> str:
    """Where the licence of a card is stated."""
    if card.bundled:
        return "LICENSE of this package"
    if card.extra is not None:
        return "the metadata of the packages that hold the parts"
    repos = [repo for repo in (card.repo, *card.parts.values()) if repo and card.released]
    if card.license == "never released" or not card.released:
        return "no weights were released"
    if repos:
        return "model card of " + ", ".join(dict.fromkeys(repos))
    return "the repository of its authors"


def _plain(license: str) -> str:
    """`MIT (Tiny YOLOv2), Apache-2.0 (…)` → `MIT, Apache-2.0`."""
    found, depth = [], 0
    for letter in license:
        depth += (letter == "(") - (letter == ")")
        if not depth and letter != ")":
            found.append(letter)
    return " ".join("".join(found).split()).replace(" ,", ",").replace(" ;", ";")
