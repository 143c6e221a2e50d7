"""The gallery: one HTML file that needs nothing else, light or dark as the reader's system is."""

import base64
import html
import io
from collections.abc import Iterable

from PIL import Image, ImageDraw

from rebus.core.answers import Box
from rebus.tasks.draw import draw_boxes, draw_masks
from rebus.tour.names import Named
from rebus.tour.parts import Line, Tour
from rebus.tour.photos import Captioned, Photos
from rebus.tour.scenes import Drawing, Matched, Writing, Written, enlarged, truth_boxes
from rebus.tour.style import STYLE

_PHOTO_SIDE, _SCENE_FACTOR = 340, 3
_SHOWN_MATCHES = 8


def page(tour: Tour, version: str) -> str:
    """The whole page."""
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        f"<title>rebus: the offline tour</title><style>{STYLE}</style></head><body><main>",
        _head(tour, version),
        _table(tour.lines),
        *(f"<p class='missing'>{_text(said)}</p>" for said in tour.missing),
        *map(_photos, tour.photos),
        *map(_captioned, tour.captioned),
        *map(_matched, tour.matched),
        *map(_writing, tour.writing),
        *map(_named, tour.named),
        *map(_drawing, tour.drawing),
        "<footer>Every scene above was held out: no model here was trained on it. The photos are the samples of "
        "scikit-image, to which no model here was fitted. Misses are shown as they came. Nothing was fetched from, "
        "or sent to, any network.</footer></main></body></html>",
    ]
    return "\n".join(parts)


def _head(tour: Tour, version: str) -> str:
    return (
        "<header><h1>rebus</h1><p class='lead'>Images and text, joined by the models on this machine. Sorted, "
        "found, captioned, questioned, boxed and painted, offline.</p>"
        f"<p class='quiet'>version {_text(version)} · {tour.seconds:.0f} seconds on {_text(tour.machine)}</p></header>"
    )


def _table(lines: Iterable[Line]) -> str:
    rows = []
    for line in lines:
        share = line.right / line.of if line.of else 0.0
        rows.append(
            f"<tr><td class='name'>{_text(line.model)}</td><td>{_text(line.task)}</td><td>{_text(line.what)}</td>"
            f"<td class='number'>{line.right} of {line.of}</td>"
            f"<td><span class='bar'><i style='width:{share:.0%}'></i></span></td>"
            f"<td class='number quiet'>{line.seconds:.1f} s</td></tr>"
        )
    head = "<tr><th>model</th><th>task</th><th>held-out images</th><th class='number'>right</th><th></th><th></th></tr>"
    return f"<section><div class='scroll'><table>{head}{''.join(rows)}</table></div></section>" if rows else ""


def _photos(photos: Photos) -> str:
    cards = []
    for image in sorted(photos.images, key=lambda image: not image.right):
        bars = "".join(
            f"<li><span class='label'>{_text(label)}</span><span class='bar'><i style='width:{p:.0%}'></i></span>"
            f"<span class='number'>{p:.0%}</span></li>"
            for label, p in list(image.ranking)[:3]
        )
        verdict = "" if image.right else f"<p class='miss'>a miss: it is {_text(image.truth)}</p>"
        cards.append(
            f"<figure>{_photo(image.image, image.truth)}<figcaption><p class='said'>{_text(image.ranking.top)}"
            f"</p>{verdict}<ol class='bars'>{bars}</ol></figcaption></figure>"
        )
    found = []
    for query in sorted(photos.queries, key=lambda query: not query.right):
        best = [photos.images[i] for i in query.order[:3]]
        thumbs = [f"<span>{_photo(image.image, image.truth, 150)}</span>" for image in best]
        mark = "hit" if query.right else "miss"
        found.append(
            f"<div><p class='words {mark}'>“{_text(query.words)}”</p><div class='thumbs'>{''.join(thumbs)}</div></div>"
        )
    return (
        f"<section><h2>Photos, sorted into labels <small>{_text(photos.model)}</small></h2>"
        "<p>No training, no download: an ImageNet classifier and a sentence encoder, joined by the names of its 1,000 "
        "classes. It knows those things and what resembles them, and is no CLIP: for all others load released weights, "
        '<code>rebus.load("clip/b32")</code>, which take the same calls. '
        f"Each photo chose among {len(photos.labels)} labels; misses come last.</p>"
        f"<div class='grid'>{''.join(cards)}</div></section>"
        f"<section><h2>Photos, found by words <small>{_text(photos.model)}</small></h2>"
        f"<p>The three photos of {len(photos.images)} that fit best, best first. A cross: another one was "
        "meant; these come last.</p>"
        f"<div class='queries'>{''.join(found)}</div></section>"
    )


def _captioned(captioned: Captioned) -> str:
    cards = [
        f"<figure>{_photo(image, label)}<figcaption><p class='said'>{_text(said)}</p></figcaption></figure>"
        for image, label, said in captioned.images
    ]
    return (
        f"<section><h2>Photos, described <small>{_text(captioned.model)}</small></h2>"
        "<p>A small language model that never saw an image, guided word by word by the model above. Without the guide "
        f"it says of every photo: “{_text(captioned.unguided)}”</p><div class='grid'>{''.join(cards)}</div></section>"
    )


def _drawing(drawing: Drawing) -> str:
    cards = []
    for prompt, image, found, right in zip(drawing.prompts, drawing.images, drawing.found, drawing.right, strict=True):
        verdict = "" if right else f"<p class='miss'>a miss: found are {_text(', '.join(found) or 'no objects')}</p>"
        cards.append(
            f"<figure>{_scene_image(image.resize((96, 96), Image.Resampling.BICUBIC), prompt)}"
            f"<figcaption><p class='words'>“{_text(prompt)}”</p>{verdict}</figcaption></figure>"
        )
    return (
        f"<section><h2>Scenes, drawn <small>{_text(drawing.model)}</small></h2>"
        f"<p>A network that reads and writes images as tokens between the words. {_text(drawing.detector)} looks for "
        f"the colours and shapes of each caption.</p><div class='grid'>{''.join(cards)}</div></section>"
    )


def _matched(matched: Matched) -> str:
    number = len(matched.scenes)
    captions = [s.captions[0] for s in matched.scenes]
    missed = [i for i in range(number) if captions[matched.orders[i][0]] != captions[i]]
    hits = [i for i in range(number) if i not in missed]
    shown = [*hits[: max(2, _SHOWN_MATCHES - len(missed))], *missed]
    cards = []
    for i in shown:
        best = matched.orders[i][0]
        right = captions[best] == captions[i]
        place = matched.orders[i].index(i) + 1
        verdict = "" if right else f"<p class='miss'>a miss: its own image came {_ordinal(place)}</p>"
        other = "" if right else _scene_image(matched.scenes[i].image, "the right image", small=True)
        cards.append(
            f"<figure><div class='pair'>{_scene_image(matched.scenes[best].image, captions[best])}{other}</div>"
            f"<figcaption><p class='words'>“{_text(captions[i])}”</p>{verdict}</figcaption></figure>"
        )
    return (
        f"<section><h2>Scenes, found by their captions <small>{_text(matched.model)}</small></h2>"
        f"<p>{matched.to_image} of {number} captions found their own image among all {number}, and {matched.to_text} "
        f"images their own caption. Every miss is shown, before a few of the others.</p>"
        f"<div class='grid'>{''.join(cards)}</div></section>"
    )


def _writing(writing: Writing) -> str:
    cards = [_written(row, writing.seconds) for row in writing.rows]
    how = "One small network writes every answer as text; boxes and masks are words too."
    if "caption" not in writing.seconds:
        how = "A detector that was taught by a dual encoder, asked for each shape by its name."
    return (
        f"<section><h2>Scenes, described and searched <small>{_text(writing.model)}</small></h2>"
        f"<p>{how} Thin white boxes are the truth.</p><div class='stack'>{''.join(cards)}</div></section>"
    )


def _named(named: Named) -> str:
    cards = []
    for one, said in named.rows:
        shown = "".join(
            f"<span>{_scene_image(example.scene.image, example.name, small=True)} {_text(example.name)}</span>"
            for example in one.shots
        )
        mark = "hit" if said == one.query.name else "miss"
        verdict = "" if mark == "hit" else f"<p class='miss'>a miss: it is {_text(one.query.name)}</p>"
        cards.append(
            f"<div><div class='thumbs'>{shown}</div>{_scene_image(one.query.scene.image, 'the query')}"
            f"<p class='words {mark}'>“{_text(said)}”</p>{verdict}</div>"
        )
    return (
        f"<section><h2>Made-up names, learned from examples <small>{_text(named.model)}</small></h2>"
        "<p>Each episode has names of its own for kinds of objects that no training showed. The model saw the small "
        f"images with their names and named the large one.</p><div class='queries'>{''.join(cards)}</div></section>"
    )


def _written(row: Written, seconds: dict[str, float]) -> str:
    images = [("the scene", row.scene.image.resize((288, 288), Image.Resampling.NEAREST))]
    notes = []
    if "detect" in seconds:
        wrong = len(row.boxes) - row.found
        drawn = draw_boxes(_with_truth(row), [_scaled(box) for box in row.boxes], smallest=288)
        said = f"{row.found} of {len(row.scene.objects)} found" + (f", {wrong} wrong" if wrong else "")
        images.append((f"detect: {said}", drawn))
    if "segment" in seconds:
        images.append(
            (f"segment “{row.phrase}”: overlap {row.overlap:.2f}", draw_masks(row.scene.image, row.masks[:1], 288))
        )
    writing = row.scene.writing
    if row.read is not None and writing is not None:
        images.append((f"read: {row.read}", writing.image.resize((288, 288), Image.Resampling.NEAREST)))
        notes.append(_answer("what is written?", writing.text, row.read))
    figures = "".join(
        f"<figure>{_image(image, title, 'PNG')}<figcaption>{_text(title)}</figcaption></figure>"
        for title, image in images
    )
    if "caption" in seconds:
        notes.append(f"<p class='caption'>{_caption(row)}</p>")
    notes += [_answer(*answer) for answer in row.answers]
    return f"<article><div class='row'>{figures}</div><div class='notes'>{''.join(notes)}</div></article>"


def _answer(question: str, truth: str, said: str) -> str:
    mark, corrected = ("hit", "") if truth == said else ("miss", f" <em>it is {_text(truth)}</em>")
    return f"<p class='qa'><span class='{mark}'>{_text(question)}</span> <b>{_text(said)}</b>{corrected}</p>"


def _caption(row: Written) -> str:
    """The caption word by word; what is wrong is struck out, with the truth after it."""
    if not row.attributes or not row.caption:
        return "<del>nothing</del>"
    words = [
        _text(said) if truth is None else f"<del>{_text(said)}</del> <ins>{_text(truth)}</ins>"
        for said, truth in row.attributes
    ]
    groups = [" ".join(words[i : i + 4]) for i in range(0, len(words), 4)]
    return ", ".join(groups)


def _with_truth(row: Written) -> Image.Image:
    """The scene, enlarged, with thin white boxes around the objects."""
    canvas = enlarged(row.scene.image, _SCENE_FACTOR)
    pen = ImageDraw.Draw(canvas)
    for box in truth_boxes(row.scene):
        pen.rectangle([value * _SCENE_FACTOR for value in box.xyxy], outline=(255, 255, 255), width=1)
    return canvas


def _scaled(box: Box) -> Box:
    left, top, right, bottom = (value * _SCENE_FACTOR for value in box.xyxy)
    return Box((left, top, right, bottom), box.label, box.score)


def _photo(image: Image.Image, alt: str, side: int = _PHOTO_SIDE) -> str:
    copy = image.copy()
    copy.thumbnail((side, side), Image.Resampling.LANCZOS)
    return _image(copy, alt, "JPEG")


def _scene_image(image: Image.Image, alt: str, small: bool = False) -> str:
    return _image(image, alt, "PNG", "scene small" if small else "scene")


def _image(image: Image.Image, alt: str, form: str, style: str = "") -> str:
    buffer = io.BytesIO()
    image.save(buffer, form, **({"quality": 85} if form == "JPEG" else {"optimize": True}))
    data = base64.b64encode(buffer.getvalue()).decode()
    size = f"width='{image.width}' height='{image.height}'"
    return f"<img class='{style}' {size} alt='{_text(alt)}' src='data:image/{form.lower()};base64,{data}'>"


def _text(words: str) -> str:
    return html.escape(words, quote=True)


def _ordinal(number: int) -> str:
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
