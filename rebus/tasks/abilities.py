"""Which tasks a system can do: what its network is capable of, together with what the system declares."""

from typing import Any

from rebus.core.capabilities import (
    DescribesRegions,
    DrawsImages,
    EmbedsImages,
    EmbedsText,
    FindsRegions,
    GroundsPhrases,
    MatchesPairs,
    PicksAnswers,
    WritesText,
)
from rebus.core.system import System


def abilities(system: System, network: Any = None) -> frozenset[str]:
    """The names of the task methods. `network`: one of the system's networks, or by default the class of them.

    Vectors and scores follow from the network alone. A generative model needs a prompt for a task, a notation of
    places for detection, one of outlines, or mask codes and their decoder, for segmentation, one of lines of writing
    for reading, and a form of images to draw one.
    """
    network = system.network if network is None else network
    found: set[str] = set()
    if _can(network, EmbedsImages):
        found.add("embed_images")
    if _can(network, EmbedsText):
        found.add("embed_texts")
    if found == {"embed_images", "embed_texts"}:
        found |= {"match", "classify"}
    for capability, task in (
        (MatchesPairs, "match"),
        (PicksAnswers, "ask"),
        (GroundsPhrases, "detect"),
        (DescribesRegions, "embed_regions"),
    ):
        if _can(network, capability):
            found.add(task)
    if _can(network, FindsRegions):
        found |= {"detect", "segment"} if getattr(network, "finds_masks", True) else {"detect"}
    if _can(network, WritesText):
        found |= {"stream"} | {task for task in ("caption", "ask", "classify", "complete") if _has_prompt(system, task)}
        if system.locations is not None and _has_prompt(system, "detect"):
            found.add("detect")
        masks = system.locations is not None and system.locations.mask_codes and _needed(system, "segment")
        if (masks or system.outlines is not None) and _has_prompt(system, "segment"):
            found.add("segment")
        if system.lines is not None and _has_prompt(system, "read"):
            found.add("read")
        if system.named_tasks:
            found.add("perform")
        draws = (_can(network, DrawsImages) and getattr(network, "draws", True)) or _needed(system, "imagine")
        if system.image_tokens is not None and draws and _has_prompt(system, "imagine"):
            found.add("imagine")
    return frozenset(found)


def _can(network: Any, capability: type) -> bool:
    """Whether a network, or all networks of a class, have the methods of a capability."""
    return issubclass(network, capability) if isinstance(network, type) else isinstance(network, capability)


def _has_prompt(system: System, task: str) -> bool:
    return getattr(system.prompts, task) is not None


def _needed(system: System, task: str) -> bool:
    """Whether a companion is declared for a task."""
    return any(task in companion.tasks for companion in system.companions.values())
