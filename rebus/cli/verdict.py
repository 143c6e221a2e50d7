"""Can this model be used for a project, on this machine? Yes; yes, if …; or no, because …, and what is nearest."""

import os
from collections.abc import Iterator, Mapping

from rebus import catalog
from rebus.catalog.terms import terms_of
from rebus.core import extras
from rebus.core.card import PHOTOS, ModelCard

_SHARE = 0.8  # of this machine's memory that a model may take


def machine_memory() -> int | None:
    """Bytes; None where the system does not tell."""
    try:
        return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (ValueError, OSError, AttributeError):
        return None


def verdict(card: ModelCard, weights: str, memory: Mapping[str, int] | None, here: int | None) -> str:
    """`weights`: what `choose_model.where` says; `memory`: bytes of the weights by dtype, least last; `here`: bytes of
    this machine."""
    reason = _obstacle(card, weights, memory, here)
    if reason is not None:
        return f"no, because {reason}; nearest: {nearest(card)}"
    conditions = list(_conditions(card, weights, memory, here))
    return f"yes, if {'; and if '.join(conditions)}" if conditions else "yes"


def nearest(card: ModelCard) -> str:
    """What to use instead: what the card says, else the model with most of its tasks that can be used, of like size."""
    if card.instead is not None:
        return card.instead
    usable = [
        other
        for other in catalog.cards()
        if other.name != card.name and other.ready and other.domain == PHOTOS and (other.repo or other.extra)
    ]
    wanted = card.tasks or catalog.SYSTEMS[card.system].tasks

    def likeness(other: ModelCard) -> tuple[int, bool, int]:
        return len(other.tasks & wanted), other.family == card.family, -abs(other.parameters - card.parameters)

    return max((other for other in usable if fits(other)), key=likeness).name


def fits(card: ModelCard, here: int | None = None) -> bool:
    """Whether the weights in float32 fit this machine, or one of so many bytes."""
    here = machine_memory() if here is None else here
    return here is None or 4 * card.parameters <= _SHARE * here


def _obstacle(card: ModelCard, weights: str, memory: Mapping[str, int] | None, here: int | None) -> str | None:
    if weights == "not released":
        return "its weights were never released"
    if not card.tasks:
        return "it answers none of the tasks of rebus"
    if memory and here is not None and min(memory.values()) > _SHARE * here:
        least = min(memory, key=lambda dtype: memory[dtype])
        return f"it takes {memory[least] / 1e9:.1f} GB even in {least}, and this machine has {here / 1e9:.1f} GB"
    return None


def _conditions(card: ModelCard, weights: str, memory: Mapping[str, int] | None, here: int | None) -> Iterator[str]:
    terms = terms_of(card)
    if card.domain != PHOTOS:
        yield f"your images are synthetic {card.domain}: it knows no photos"
    if card.extra is not None and not extras.installed(card.extra):
        yield f"you install it: {extras.command(card.extra)}"
    if card.repo is None and card.released and not card.parts:
        yield f"you fetch its weights by hand: {card.instead or weights}"
    elif not card.ready:
        yield "you fine-tune it first: it is a base, which answers nothing well before fine-tuning"
    if terms.gated and weights != "cached":
        yield f"you accept its terms at the Hub ({card.repo})"
    if terms.commercial == "no":
        yield f"your use is not commercial ({card.license})"
    elif terms.commercial == "conditions":
        yield f"your use is within its terms ({card.license})"
    elif terms.commercial == "unknown":
        yield f"you need no certain right to commercial use ({terms.says})"
    if memory and here is not None:
        fitting = [dtype for dtype, size in memory.items() if size <= _SHARE * here]
        if fitting[0] != "float32":
            flag = "--quantize" if fitting[0].startswith("int") else "--dtype"
            yield f"it is loaded with {flag} {fitting[0]}, since float32 does not fit this machine"
