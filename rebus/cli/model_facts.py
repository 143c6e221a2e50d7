"""What to know of a model before a project is built on it, field by field; what nobody knows is "unknown"."""

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from rebus import catalog
from rebus.catalog.terms import source_of, terms_of
from rebus.cli.choose_model import cached_names, where
from rebus.cli.output import note
from rebus.cli.verdict import machine_memory, verdict
from rebus.core import extras
from rebus.core.card import ModelCard
from rebus.core.errors import RebusError

UNKNOWN = "unknown"
FIELDS = (
    *("verdict", "weights", "gated", "license", "commercial", "license_source", "download", "memory", "speed"),
    *("score", "limits", "check"),
)
_LONG = 1800  # seconds that a measurement may take


@dataclass(frozen=True)
class Here:
    """What was measured on this machine; `bench` and `check` say why where they could not be."""

    predicted: int | None  # bytes of a process that answers, batches of one
    bench: dict[str, Any] | str
    check: dict[str, Any] | str


def facts(card: ModelCard, here: Here | None = None) -> dict[str, Any]:
    """All of `FIELDS`."""
    weights = where(card, cached_names())
    terms, row = terms_of(card), catalog.SYSTEMS[card.system]
    memory = _memory(card)
    size = _on_disk(card)
    return {
        "verdict": verdict(card, weights, memory, machine_memory()),
        "weights": weights,
        "gated": terms.gated if card.repo is not None or card.released else False,
        "license": card.license,
        "commercial": terms.commercial,
        "license_source": source_of(card),
        "download": UNKNOWN if size is None else size,
        "memory": memory or UNKNOWN,
        "speed": UNKNOWN if here is None else here.bench,
        "score": row.score,
        "limits": "; ".join(filter(None, (_domain_limit(card), row.limits))),
        "check": UNKNOWN if here is None else here.check,
    }


def lines(card: ModelCard, found: dict[str, Any], here: Here | None) -> list[tuple[str, str]]:
    """The fields after the verdict as (title, text) for a person."""
    terms = terms_of(card)
    memory = found["memory"]
    said = [
        ("weights", found["weights"] + (f": {card.repo}" if card.repo else "")),
        ("gated", "yes, the Hub asks you to accept its terms" if found["gated"] else "no"),
        ("licence", f"{card.license}: {terms.says}"),
        ("commercial", {"conditions": "under conditions"}.get(terms.commercial, terms.commercial)),
        ("stated in", found["license_source"]),
        ("download", _download(found)),
        ("memory", memory if memory == UNKNOWN else ", ".join(f"{_size(b)} {dtype}" for dtype, b in memory.items())),
        ("speed here", _speed(found["speed"])),
        ("a score", found["score"]),
        ("limits", found["limits"]),
        ("check", _checks(found["check"])),
    ]
    if here is not None and here.predicted is not None:
        measured = here.bench.get("peak_memory_bytes") if isinstance(here.bench, dict) else None
        peak = f", {_size(measured)} measured" if measured else ""
        said.insert(7, ("process", f"{_size(here.predicted)} predicted in float32{peak}"))
    return said


def measure(card: ModelCard) -> Here:
    """Load and time the model in new processes, one after another."""
    note(f"measuring {card.name} on this machine: imports, speed, checks")
    predicted = predicted_memory(card)
    return Here(predicted, measured_speed(card), _json(["check", card.name, "--json"]))


def predicted_memory(card: ModelCard) -> int | None:
    """Bytes of a process that answers one image at a time in float32: all that it imports, which a process without
    weights shows, the weights, and what an answer takes. None for models put together when they are loaded."""
    from rebus.plan.inference import inference_memory

    try:
        found = inference_memory(card.name)
    except RebusError:
        return None
    return int(_run(["-c", _RUNTIME, card.name])) + found.weights["float32"] + (found.answer or 0)


def measured_speed(card: ModelCard) -> dict[str, Any] | str:
    """What `rebus bench` says of batches of one, in a process of its own; or why it says nothing."""
    return _json(["bench", card.name, "--batch-size", "1", "--runs", "3", "--json"])


# Everything that answering imports, and no weights: the network is built without values.
_RUNTIME = """
import sys
import rebus.api, rebus.evaluate.bench
from rebus.core.errors import RebusError
from rebus.core.memory import peak_of_process
from rebus.open_checkpoint import config_of
from rebus.weights.load_weights import on_meta
try:
    system, config = config_of(sys.argv[1])
    with on_meta():
        system.build(config)
except RebusError:
    pass
print(peak_of_process())
"""


def _run(words: list[str]) -> str:
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=_LONG, check=False)
    if done.returncode not in (0, 1) or not done.stdout.strip():
        raise RebusError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "it ended without a word")
    return done.stdout


def _json(words: list[str]) -> dict[str, Any] | str:
    try:
        found: dict[str, Any] = json.loads(_run(["-m", "rebus.cli", *words]))
    except (RebusError, subprocess.TimeoutExpired, ValueError) as error:
        return f"{UNKNOWN}: {error}"
    return found


def _memory(card: ModelCard) -> dict[str, int] | None:
    from rebus.plan.inference import weight_memory

    if card.extra is not None and not extras.installed(card.extra):
        return None
    try:
        return weight_memory(card.name)
    except RebusError:  # made of parts that are not here
        return None


def _on_disk(card: ModelCard) -> int | None:
    """Bytes that are still to be fetched where that is known."""
    if card.bundled or (card.extra is not None and extras.installed(card.extra)):
        return 0
    if card.repo is not None and card.name in cached_names():
        return 0
    return None


def _domain_limit(card: ModelCard) -> str | None:
    return (
        f"trained on synthetic {card.domain} only: predictions for photos are meaningless"
        if card.domain != "photos"
        else None
    )


def _download(found: dict[str, Any]) -> str:
    memory, size = found["memory"], found["download"]
    if found["weights"] == "not released":
        return "there is nothing to download"
    if size != UNKNOWN:
        return "nothing" if size == 0 else _size(size)
    if memory == UNKNOWN:
        return UNKNOWN
    return f"{UNKNOWN}; {_size(memory['float32'])} where the weights are stored in float32, half of it in 16 bits"


def _size(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"


def _speed(bench: Any) -> str:
    if not isinstance(bench, dict):
        return f"{bench}; --here measures it" if bench == UNKNOWN else str(bench)
    named = {
        "one_image_ms": "{:,.0f} ms an image",
        "texts_per_second": "{:,.1f} texts/s",
        "first_token_ms": "{:,.0f} ms to the first token",
        "tokens_per_second": "{:,.1f} tokens/s",
        "answers_per_second": "{:,.1f} answers/s",
    }
    said = [form.format(bench[name]) for name, form in named.items() if name in bench]
    return ", ".join(said) + f" ({bench['device']}, {bench['dtype']}, {bench['threads']} threads)"


def _checks(check: Any) -> str:
    if not isinstance(check, dict):
        return f"{check}; --here runs it" if check == UNKNOWN else str(check)
    failed = [one["name"] for one in check["checks"] if one["passed"] is False]
    passed = sum(one["passed"] is True for one in check["checks"])
    return f"{passed} of {len(check['checks'])} passed" + (
        f"; FAILED: {', '.join(failed)}" if failed else ", none failed"
    )
