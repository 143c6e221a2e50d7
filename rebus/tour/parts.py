"""The sections of the tour, one after another."""

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from rebus import catalog
from rebus.api import load
from rebus.catalog import scene_judge
from rebus.tour.names import SHOTS, Named, name_scenes
from rebus.tour.photos import NUM_CAPTIONED, Captioned, Photos, caption_photos, look_at_photos, samples
from rebus.tour.scenes import LEAST_IOU, Drawing, Matched, Writing, draw_scenes, match_scenes, write_scenes

Tick = Callable[[str], None]
RELEASED = "clip/b32"  # runs beside asif/starter where its weights are in the local cache
WEAK = 0.5  # results below this accuracy come last


@dataclass(frozen=True)
class Line:
    """A row of the table: a model on a task, with the number of correct answers and the seconds."""

    model: str
    task: str
    what: str
    right: int
    of: int
    seconds: float

    @property
    def accuracy(self) -> float:
        return self.right / self.of if self.of else 0.0


@dataclass
class Tour:
    """All results. `missing`: what could not be shown, and what to do about it."""

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
class Section:
    """One model on one kind of task: `kind` is photos, caption, guided caption, match, write, name or draw. `judge`:
    the model that checks generated images."""

    model: str
    kind: str
    judge: str = ""


def plan(starter: bool, captions: bool = False, released: bool = False) -> list[Section]:
    """The sections that this machine can show. `starter`, `captions`: whether the networks of those extras are
    installed; `released`: whether the weights of `RELEASED` are in the local cache."""
    sections = [Section("asif/starter", "photos")] if starter and samples() else []
    sections += [Section(RELEASED, "photos")] if released and samples() else []
    if captions and samples():
        sections += [Section("flamingo/photos", "caption"), Section("magic/starter", "guided caption")]
    for name, card in catalog.bundled().items():
        if not name.endswith("/scenes"):
            continue
        if "match" in card.tasks:
            sections.append(Section(name, "match"))
        if "imagine" in card.tasks:
            sections.append(Section(name, "draw", scene_judge()))
        elif card.tasks & {"caption", "ask", "detect", "read"}:
            sections.append(Section(name, "write"))
        if "classify" in catalog.system(card.system).prompts.after_example:
            sections.append(Section(name, "name"))
    return sections


def tour(sections: list[Section], tick: Tick = lambda _: None) -> Tour:
    """Run all sections; `tick` is called with the model's name before each. Lines: photos first, then by accuracy,
    those below `WEAK` last."""
    began = time.perf_counter()
    seen = Tour(machine=f"{platform.machine()}, Python {platform.python_version()}")
    for section in sections:
        tick(section.model)
        model = load(section.model)
        if section.kind == "photos":
            photos = look_at_photos(model, samples())
            seen.photos.append(photos)
            seen.lines += _photo_lines(photos)
        elif section.kind in ("caption", "guided caption"):
            guided = section.kind == "guided caption"
            captioned = caption_photos(model, samples()[:NUM_CAPTIONED], guided)
            seen.captioned.append(captioned)
            what, number = "photos, caption contains the label", len(captioned.images)
            seen.lines.append(Line(model.card.name, "caption", what, captioned.named, number, captioned.seconds))
        elif section.kind == "match":
            matched = match_scenes(model)
            seen.matched.append(matched)
            seen.lines += _match_lines(matched)
        elif section.kind == "name":
            named = name_scenes(model)
            seen.named.append(named)
            what = f"new names for held-out objects, {SHOTS} examples"
            seen.lines.append(Line(named.model, "classify", what, named.right, len(named.rows), named.seconds))
        elif section.kind == "draw":
            drawing = draw_scenes(model, load(section.judge))
            seen.drawing.append(drawing)
            what = "images with exactly the objects of the prompt"
            right, number = sum(drawing.right), len(drawing.right)
            seen.lines.append(Line(drawing.model, "imagine", what, right, number, drawing.seconds))
        else:
            writing = write_scenes(model)
            seen.writing.append(writing)
            seen.lines += _writing_lines(writing)
    kinds = {section.kind for section in sections}
    if "photos" not in kinds:
        seen.missing.append('Photos were not shown: install the extra "starter" (pip install "rebus-vlm[starter]").')
    if RELEASED not in {section.model for section in sections}:
        seen.missing.append(
            f"A released CLIP was not run for comparison: the weights of {RELEASED} are not in the local cache. The "
            f'calls are the same; rebus.load("{RELEASED}") downloads the weights, then run the tour again.'
        )
    if not kinds & {"match", "write"}:
        seen.missing.append("Scenes were not shown: this copy of the package has no bundled checkpoints.")
    of_photos = {line.model for one in seen.photos for line in _photo_lines(one)}
    seen.lines.sort(key=lambda line: (line.accuracy < WEAK, line.model not in of_photos, -line.accuracy))
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
        Line(photos.model, "match", "photos, text queries", found_right, len(photos.queries), photos.search_seconds),
    ]


def _match_lines(matched: Matched) -> list[Line]:
    number = len(matched.scenes)
    return [
        Line(matched.model, "match", f"scenes, caption → image of {number}", matched.to_image, number, matched.seconds),
        Line(matched.model, "match", f"scenes, image → caption of {number}", matched.to_text, number, matched.seconds),
    ]


def _writing_lines(writing: Writing) -> list[Line]:
    rows, lines = writing.rows, []
    if "caption" in writing.seconds:
        attributes = [truth is None for row in rows for _, truth in row.attributes]
        lines.append(("caption", "scenes, attributes in captions", sum(attributes), len(attributes)))
    if "ask" in writing.seconds:
        answers = [truth == said for row in rows for _, truth, said in row.answers]
        lines.append(("ask", "scenes, questions", sum(answers), len(answers)))
    if "read" in writing.seconds:
        asked = [(row.read, row.scene.writing) for row in rows if row.read is not None]
        right = sum(writing is not None and said == writing.text for said, writing in asked)
        lines.append(("read", "scenes, text in the image", right, len(asked)))
    if "detect" in writing.seconds:
        objects = sum(len(row.scene.objects) for row in rows)
        lines.append(("detect", f"scenes, boxes, IoU ≥ {LEAST_IOU}", sum(row.found for row in rows), objects))
    if "segment" in writing.seconds:
        good = sum(row.overlap >= LEAST_IOU for row in rows)
        lines.append(("segment", f"scenes, masks, IoU ≥ {LEAST_IOU}", good, len(rows)))
    return [Line(writing.model, task, what, right, of, writing.seconds[task]) for task, what, right, of in lines]
