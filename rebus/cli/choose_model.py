"""Which model a command uses: the one that is named, otherwise the best one on this machine."""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rebus import catalog
from rebus.cli.output import note, short_count
from rebus.core import extras
from rebus.core.card import PHOTOS, SHAPES, ModelCard
from rebus.core.errors import MissingFile, UnsupportedTask, UsageError

if TYPE_CHECKING:
    from rebus.api import Model

_BYTES_EACH = 4  # of a parameter in float32: the most that loading takes


def cached_names() -> frozenset[str]:
    """Catalogue names whose released weights are complete in the local Hub cache."""
    likely = [card for card in catalog.cards() if card.repo and _traces(card.repo)]
    if not likely:
        return frozenset()  # without the slow import below
    from rebus.weights.hub import cached

    return frozenset(card.name for card in likely if all(cached(repo) is not None for repo in _repos(card)))


def _repos(card: ModelCard) -> set[str]:
    """All Hub ids that a model is loaded from."""
    rows = catalog.ROWS
    parts = (rows[source].repo if source in rows else source for source in card.parts.values())
    return {repo for repo in (card.repo, *parts) if repo}


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
    if card.repo is None:
        return "authors' archive" if card.released else "not released"
    return "Hub"


def choose(task: str, by_examples: bool = False) -> tuple[str, str]:
    """(name, why) of the best model for a task on photos that needs no download.

    Models of another domain are never chosen, since their predictions for photos mean nothing. `by_examples`: one that
    learns the task from examples in its prompt. Raises `MissingFile` where there is none.
    """
    able = [card for card in catalog.cards() if task in card.tasks and card.ready]
    if by_examples:
        able = [card for card in able if task in catalog.system(card.system).prompts.after_example]
    if not able:
        raise UnsupportedTask(f"no model of the catalogue can {task}")
    photos = [card for card in able if card.domain == PHOTOS]
    if task == "classify" and not by_examples:  # comparing is faster than writing every label, and better on photos
        photos = [card for card in photos if "match" in card.tasks] or photos
    here = cached_names()
    released = [card for card in photos if card.name in here and _fits(card)]
    if released:
        return max(released, key=lambda card: card.parameters).name, "released weights in the local cache"
    packaged = [card for card in photos if card.extra is not None and extras.installed(card.extra)]
    if packaged:
        return packaged[0].name, "works on photos, offline; no released weights are cached"
    raise MissingFile(f"no model on this machine can {task} photos. {' '.join(_ways(task, able))}")


def _ways(task: str, able: Sequence[ModelCard]) -> Iterator[str]:
    """What to do where no model on this machine can do a task, a sentence each."""
    extra = next((card.extra for card in able if card.extra is not None), None)
    if extra is not None:
        yield f"Install one that works offline: {extras.command(extra)}."
    usable = [card.name for card in able if card.repo and _fits(card)][:4]
    if usable:
        yield f"Name one with --model (its weights are downloaded once): {', '.join(usable)}."
    large = [card.name for card in able if card.repo and not _fits(card)][:4]
    if large and not usable:
        yield f"Too large for this machine's memory in float32: {', '.join(large)}; --dtype bfloat16 needs half."
    shapes = [card.name for card in able if card.domain == SHAPES]
    if shapes:
        yield f"For synthetic shapes only, not photos: --model {shapes[0]}."
    yield f"rebus models --task {task} lists all."


def domain_warning(card: ModelCard) -> str | None:
    """A warning for a model that was not trained on photos, otherwise None."""
    if card.domain == PHOTOS:
        return None
    return f"{card.name} was trained on synthetic {card.domain} only: its predictions for photos are meaningless"


def _fits(card: ModelCard) -> bool:
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):  # not told on this system
        return True
    return card.parameters * _BYTES_EACH < 0.6 * memory


def open_model(args: argparse.Namespace, task: str | None, by_examples: bool = False) -> "Model":
    """Load the model of `--model`, or the best one for the task, with a note. Raises what `rebus.load` raises."""
    name = args.model
    if name is None:
        assert task is not None
        name, why = choose(task, by_examples)
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
    if args.model is not None and sys.stderr.isatty():  # a file of logs need not know
        size = f" ({short_count(rows[name].parameters)} parameters)" if name in rows else ""
        note(f"loading {name}{size}")
    dtype = getattr(args, "dtype", None)
    model = load(
        name,
        device=device,
        dtype=getattr(torch, dtype) if dtype else None,
        quantize=getattr(args, "quantize", None),
        compile=getattr(args, "compile", False),
        pack=True,
    )
    if task is not None and task not in model.tasks:
        raise _unsupported(name, task)
    if getattr(args, "truncate", False) and model.processor.text is not None:
        model.processor.text.allow_truncation()
    warning = domain_warning(model.card) if task is not None else None
    if warning is not None:
        note(f"warning: {warning}")
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
