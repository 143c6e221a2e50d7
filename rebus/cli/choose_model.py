"""Which model a verb uses: the one that was named, else the best one that is on this machine already."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from rebus import catalog
from rebus.cli.output import note
from rebus.core import extras
from rebus.core.card import ModelCard
from rebus.core.errors import MissingFile, UnsupportedTask, UsageError

if TYPE_CHECKING:
    from rebus.api import Model

_BYTES_EACH = 4  # of a parameter in float32: the most that loading takes


def cached_names() -> frozenset[str]:
    """Catalogue names whose released weights lie whole in the local Hub cache."""
    likely = [card for card in catalog.cards() if card.repo and _traces(card.repo)]
    if not likely:
        return frozenset()  # without the slow import below
    from rebus.weights.hub import cached

    return frozenset(card.name for card in likely if card.repo and cached(card.repo) is not None)


def _traces(repo: str) -> bool:
    """Whether any cache folder has ever heard of a repository: a cheap look before the real one."""
    homes = [os.environ.get("HF_HUB_CACHE"), os.environ.get("HF_HOME"), os.environ.get("REBUS_HOME")]
    xdg = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = "models--" + repo.replace("/", "--")
    for home in [*filter(None, homes), f"{xdg}/huggingface"]:
        root = Path(os.path.expandvars(home)).expanduser()
        if (root / folder).is_dir() or (root / "hub" / folder).is_dir():
            return True
    return False


def where(card: ModelCard, cached: frozenset[str]) -> str:
    """Where the weights of a row are: bundled, installed, cached, on the Hub, or nowhere."""
    if card.bundled:
        return "bundled"
    if card.extra is not None:
        return "installed" if extras.installed(card.extra) else f"extra {card.extra}"
    if card.name in cached:
        return "cached"
    return "Hub" if card.repo else "not released"


def choose(task: str) -> tuple[str, str]:
    """(name, why) of the best model for a task that needs no download. Raises `MissingFile` where there is none."""
    able = [card for card in catalog.cards() if task in card.tasks]
    if not able:
        raise UnsupportedTask(f"no model of the catalogue can {task}")
    if task == "classify":  # comparing is faster than writing every label, and better on photos
        able = [card for card in able if "match" in card.tasks] or able
    here = cached_names()
    released = [card for card in able if card.name in here and card.ready and _fits(card)]
    if released:
        return max(released, key=lambda card: card.parameters).name, "released weights, found in the local cache"
    packaged = [card for card in able if card.extra is not None and card.ready and extras.installed(card.extra)]
    if packaged:
        return packaged[0].name, "works on photos, offline; no released weights are cached"
    bundled = [card for card in able if card.bundled]
    if bundled:
        return bundled[0].name, "bundled; it knows the scenes world only, so name a released --model for photos"
    usable = [card.name for card in able if card.released and card.ready][:4]
    raise MissingFile(
        f"no model on this machine can {task}. Name one with --model (its weights are fetched once): "
        f"{', '.join(usable)}; rebus models --task {task} lists all"
    )


def _fits(card: ModelCard) -> bool:
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):  # not told on this system
        return True
    return card.parameters * _BYTES_EACH < 0.6 * memory


def open_model(args: argparse.Namespace, task: str | None) -> "Model":
    """Load what `--model` names, or the best for the task, saying which. Raises what `rebus.load` raises."""
    name = args.model
    if name is None:
        assert task is not None
        name, why = choose(task)
        note(f"using {name} ({why})")
    rows = {card.name: card for card in catalog.cards()}
    if task is not None and name in rows and task not in rows[name].tasks:
        raise _unsupported(name, task)
    _log_as_notes()
    import torch

    from rebus.api import load

    device = getattr(args, "device", None)
    if device is not None:
        check_device(device)
    dtype = getattr(args, "dtype", None)
    model = load(
        name,
        device=device,
        dtype=getattr(torch, dtype) if dtype else None,
        quantize=getattr(args, "quantize", None),
        compile=getattr(args, "compile", False),
    )
    if task is not None and task not in model.tasks:
        raise _unsupported(name, task)
    if getattr(args, "truncate", False) and model.processor.text is not None:
        model.processor.text.allow_truncation()
    return model


def _unsupported(name: str, task: str) -> UnsupportedTask:
    able = catalog.models_that_can(task)
    return UnsupportedTask(f"{name} cannot {task}; models that can: {', '.join(able) or 'none yet'}")


def _log_as_notes() -> None:
    """What the library logs goes to stderr like the command's own notes."""
    import logging

    class Notes(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            note(record.getMessage())

    log = logging.getLogger("rebus")
    if not log.handlers:
        log.addHandler(Notes())
        log.propagate = False


def check_device(name: str) -> None:
    """Raise `UsageError` for a device that PyTorch does not know or this machine does not have."""
    import torch

    try:
        torch.empty(0, device=torch.device(name))
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0][:120]
        raise UsageError(f"--device {name}: not on this machine ({reason}). Try --device cpu") from None
