"""Can this model be used for your project: licence, memory, speed, limits, scores.

The first line is a verdict: yes; yes, if …; or no, because …, with the nearest alternative. Unknown is said as such.
"""

import argparse
import dataclasses
from collections.abc import Mapping
from typing import Any

from rebus import catalog
from rebus.cli.model_facts import facts, lines, measure
from rebus.cli.output import bold, emit, say
from rebus.core.card import ModelCard
from rebus.core.specs import ImageSpec

EXAMPLE = "rebus info siglip/b16-224"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="a name from `rebus models`")
    parser.add_argument(
        "--here", action="store_true", help="measure its speed and memory on this machine, and check it"
    )


def run(args: argparse.Namespace) -> int:
    from rebus.open_checkpoint import config_of

    card = catalog.info(args.name)
    here = measure(card) if args.here else None
    found = facts(card, here)
    system = catalog.system(card.system)
    config = config_of(card.name)[1] if card.bundled else system.presets.get(card.preset)
    image = system.image_spec(config) if config is not None and system.image_spec else None
    text = system.text_spec(config) if config is not None and system.text_spec else None
    prompts = {k: v for k, v in dataclasses.asdict(system.prompts).items() if v is not None and k in card.tasks}
    if args.json:
        plain = {f.name: getattr(card, f.name) for f in dataclasses.fields(card)}
        plain |= {"tasks": sorted(card.tasks), "scores": dict(card.scores), **found}
        plain |= {"prompts": prompts, "presets": sorted(system.presets)}
        for name, spec in (("image", image), ("text", text)):
            plain[name] = dataclasses.asdict(spec) if spec is not None else None
        emit(plain)
        return 0
    say(bold(f"{card.name}: {found['verdict']}"))
    for title, value in [*lines(card, found, here), *_lines(card)]:
        say(f"  {title:<12}{value}")
    if image is not None:
        height, width = image.size
        say(f"  {'images':<12}{height} × {width}, resize {image.resize}, {image.resample}, {_spread(image)}")
    if text is not None:
        case = ", lower case" if text.lower else ""
        say(f"  {'words':<12}up to {text.context} tokens{case}")
    for task, prompt in prompts.items():
        say(f"  {'prompt':<12}{task}: {prompt!r}")
    _say_scores(card.scores)
    return 0


def _lines(card: ModelCard) -> list[tuple[str, str]]:
    lines = [
        ("idea", card.idea),
        ("paper", card.paper),
        ("family", card.family),
        ("parameters", f"{card.parameters:,}" if card.parameters else "those of its parts"),
        ("tasks", ", ".join(sorted(card.tasks))),
        ("domain", card.domain),
    ]
    if card.instead:
        lines.append(("instead", card.instead))
    if card.note:
        lines.append(("note", card.note))
    return [(title, value) for title, value in lines if value]


def _say_scores(scores: Mapping[str, Any], indent: int = 2) -> None:
    for title, value in scores.items():
        if isinstance(value, dict):
            say(f"{'':{indent}}{title}")
            _say_scores(value, indent + 2)
        else:
            width = max(12, len(title) + 1, 26 - indent) if indent > 2 else 12
            say(f"{'':{indent}}{title:<{width}}{_number(value)}")


def _spread(image: ImageSpec) -> str:
    mean, std = (", ".join(f"{v:.4g}" for v in dict.fromkeys(values)) for values in (image.mean, image.std))
    return f"mean {mean}, deviation {std}"


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
