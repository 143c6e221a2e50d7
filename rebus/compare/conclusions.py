"""What a comparison shows, in sentences; and what it does not."""

from collections.abc import Iterator, Mapping
from typing import Any


def conclusions(summary: Mapping[str, Any]) -> list[str]:
    """The sentences at the top of a report, from its summary."""
    return [*_failures(summary), *(_by_truth(summary) if summary["score"] else _by_agreement(summary)), *_gaps(summary)]


def _by_truth(summary: Mapping[str, Any]) -> Iterator[str]:
    shown = [pair for pair in summary["pairs"] if pair.get("better")]
    means = {row["model"]: row["score"] for row in summary["models"]}
    for pair in shown:
        better = pair["better"]
        other = pair["first"] if better == pair["second"] else pair["second"]
        low, high = (pair["low"], pair["high"]) if better == pair["second"] else (-pair["high"], -pair["low"])
        yield (
            f"{better} is better than {other}: {means[better]:.3f} against {means[other]:.3f} "
            f"(difference {low:.3f} to {high:.3f}, p = {pair['adjusted']:.2g} after Holm's correction)."
        )
    for group in summary["groups"]:
        if len(group) > 1:
            yield f"No difference is shown between {' and '.join(group)}."
    least = summary["smallest_difference"]
    if least is not None:
        count = summary["scored_images"]
        shows = f"only differences of at least {least:.3f} show" if least <= 1 else "no difference can show"
        yield f"With {count} image{'s' * (count != 1)} {shows}."


def _by_agreement(summary: Mapping[str, Any]) -> Iterator[str]:
    known = [pair for pair in summary["pairs"] if pair["agreement"] is not None]
    if known:
        most = max(known, key=lambda pair: pair["agreement"])
        least = min(known, key=lambda pair: pair["agreement"])
        yield f"{most['first']} and {most['second']} agree most: {most['agreement']:.3f}."
        if least is not most:
            yield f"{least['first']} and {least['second']} agree least: {least['agreement']:.3f}."
        yield "Agreement does not say who is right: give the ground truth (--truth) for that."


def _failures(summary: Mapping[str, Any]) -> Iterator[str]:
    for row in summary["models"]:
        if row["error"] is not None:
            yield (
                f"{row['model']} failed after {row['answered']} of {summary['images']} images and is not compared: "
                f"{row['error']}"
            )


def _gaps(summary: Mapping[str, Any]) -> Iterator[str]:
    for row in summary["models"]:
        if row["status"].startswith("stopped"):
            yield f"{row['model']} came to {row['answered']} of {summary['images']} images within the budget."
        if row["domain"] not in (None, "photos"):
            yield f"{row['model']} was trained on synthetic {row['domain']} only: answers on photos are meaningless."
    if summary["score"] and summary["scored_images"] < summary["images"]:
        yield (
            f"Scores are of the {summary['scored_images']} of {summary['images']} images that all models answered "
            "and whose ground truth is known."
        )
    if summary["rows_of_other_images"]:
        yield f"{summary['rows_of_other_images']:,} rows of the ground truth are of other images."
