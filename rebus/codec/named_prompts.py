"""The sentences by which a system is asked for its named tasks (`System.named_tasks`)."""

import re

from rebus.codec.text import Control, Pieces, Prompt
from rebus.core.places import XYXY, LocationNotation
from rebus.core.specs import NamedTask


def named_prompt(
    task: NamedTask,
    locations: LocationNotation | None,
    size: tuple[int, int],
    text: str | None = None,
    region: XYXY | None = None,
) -> Prompt:
    """The sentence of a task. A region, in pixels of an image of `size` (width, height), becomes control tokens, for
    which `locations` is wanted; text stays text."""
    if text is not None:
        return task.prompt.replace("{text}", text.strip())
    if region is None:
        return task.prompt
    assert locations is not None
    before, after = task.prompt.split("{region}")
    tokens = [Control(token) for token in re.findall("<[^>]*>", locations.box_tokens(region, size))]
    return Pieces(before, *tokens, *([after] if after else []))
